"""Samples during training: after each validation the model continues the same val document."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from atlas.errors import AtlasError, one_line
from atlas.model.language_model import LanguageModel
from atlas.model.logits import draw, keep_top_k, keep_top_p
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import document_prompts

TEMPERATURE, TOP_K, TOP_P, SEED = 0.8, 50, 0.95, 1


def sample_text(
    model: LanguageModel, tokenizer: Tokenizer, val: TokenSplit, max_tokens: int
) -> str:
    """Return the beginning of the first val document and its continuation.

    The random numbers are always the same ones, of a generator that training does not use.
    """
    prompt = (document_prompts(val, 1) or [[]])[0]
    with model.evaluating():
        ids = continue_ids(model, prompt, max_tokens)
    return tokenizer.decode([*prompt, *ids])


@torch.no_grad()
def continue_ids(model: LanguageModel, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """Sample up to ``max_tokens`` ids after a prompt, until the document ends.

    A plain loop without a KV cache: each token rereads the text. When the context is full, the
    model forgets the older half of it, as in ``atlas.inference``; an encoder-decoder stops there,
    because it would lose its question.
    """
    config = model.config
    generator = np.random.default_rng(SEED)
    prompt = config.with_bos(prompt)
    ids = list(prompt)
    visible = min(len(ids), config.context_length)
    while len(ids) < len(prompt) + max_tokens:
        inputs = torch.tensor([ids[-visible:]], device=model.device)  # (1, T)
        logits = model(inputs)[0, -1].float().cpu().numpy()  # (V,)
        if not np.isfinite(logits).all():
            raise AtlasError("the model's logits are NaN or infinite; train it again")
        logits = (logits - logits.max()) / np.float32(TEMPERATURE)
        token = draw(keep_top_p(keep_top_k(logits, TOP_K), TOP_P), generator)
        if token == config.eos:
            break
        ids.append(token)
        if visible < config.context_length:
            visible += 1
        elif config.kind == "encoder_decoder":
            break
        else:
            visible = max(1, config.context_length // 2)
    return ids[len(prompt) :]


def samples_page(samples: Iterable[tuple[int, str]]) -> str:
    """Format ``(step, text)`` pairs as a Markdown table."""
    lines = [f"| {step} | {one_line(text).replace('|', chr(92) + '|')} |" for step, text in samples]
    return "\n".join(["| step | sample |", "| --- | --- |", *lines]) + "\n"
