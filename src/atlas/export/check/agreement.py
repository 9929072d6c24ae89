"""Compare a runtime's tokens, logits, greedy text and perplexity with PyTorch's."""

import math
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.export.check.runtimes import RuntimeProcess, continue_greedily
from atlas.model.attention import KVCache
from atlas.model.transformer import Decoder
from atlas.tokens.byte_level import ByteLevelTokenizer
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import TokenBatch

LLAMA_CPP = RuntimeProcess("llama.cpp")
TRANSFORMERS = RuntimeProcess("transformers")
ONNXRUNTIME = RuntimeProcess("onnxruntime", tokenizes=False)
TORCH_EXPORT = RuntimeProcess("torch.export", tokenizes=False)
MAX_PROMPT_TOKENS = 16
PERPLEXITY_TOLERANCE = 1e-3  # relative, of llama.cpp's F32, for logits with a deviation of 1


@dataclass(frozen=True)
class Expected:
    """The results of Atlas's own tokenizer and model."""

    texts: list[tuple[str, list[int]]]  # with their ids
    sequences: list[tuple[list[int], npt.NDArray[np.float32]]]  # ids (T,), logits (T, V) after each
    end_ids: frozenset[int]  # of tokens that end a generated text
    composes: bool  # the tokenizer composes characters (NFC) first, which llama.cpp does not
    prompts: list[tuple[list[int], list[int]]]  # ids, and the ids that continue them greedily
    greedy_tokens: int  # length of each continuation
    context_length: int

    @property
    def logit_deviation(self) -> float:
        """Standard deviation of the logits, averaged over the sequences."""
        return math.sqrt(np.mean([logits.var() for _, logits in self.sequences]))

    @property
    def error_scale(self) -> float:
        """Factor of all tolerances.

        Rounding is relative: the error of a logit is a share of the numbers that it is the sum of.
        Training spreads logits, from a deviation of about 1 at random weights to 10, and their
        errors with them. Logits that are all small are still sums of numbers near 1.
        """
        return max(1.0, self.logit_deviation)


@dataclass(frozen=True)
class Agreement:
    """Comparison of a runtime's results with the expected ones.

    A tie is a position where PyTorch's logits of the two tokens differ by at most 2 tolerances.
    """

    texts: int
    tokens: int  # ids of the texts
    token_mismatches: int  # texts with different ids
    end_mismatches: int  # end tokens that don't end a text in the runtime
    logit_difference: float  # the largest, over all positions and tokens
    greedy_tokens: int
    greedy_mismatches: int  # continuations that differ before a tie
    greedy_ties: int  # continuations that first differ at a tie


@torch.no_grad()
def expect(
    model: Decoder, tokenizer: Tokenizer, texts: Sequence[str], prompts: int, greedy_tokens: int
) -> Expected:
    """Compute the results that a runtime should give, on texts and on the nasty strings.

    The first ``prompts`` texts also give logits and a greedy continuation of ``greedy_tokens``, cut
    at the length of a training window: a longer context would need memory for nothing. Word
    tokenizers skip the nasty strings, because llama.cpp encodes an unknown word as a known one that
    is its prefix.
    """
    length = model.config.sequence_length
    config = model.config.model_copy(update={"context_length": length})
    all_texts = [*texts, *(() if tokenizer.kind == "word" else NASTY_STRINGS)]
    ids = [each.tolist() for each in tokenizer.encode_stream(all_texts)]
    sequences = [each[:length] for each in ids[: min(prompts, len(texts))] if each]
    starts = [sequence[: min(MAX_PROMPT_TOKENS, length // 2)] for sequence in sequences]
    new_tokens = min(greedy_tokens, length - max(map(len, starts)))

    def continuation(start: list[int]) -> list[int]:
        cache = KVCache.empty(config, 1, model.embedding.weight)
        return continue_greedily(
            lambda new, _: model(torch.tensor([new]), cache=cache)[0], start, new_tokens
        )

    return Expected(
        texts=list(zip(all_texts, ids, strict=True)),
        sequences=[(each, model(torch.tensor([each]))[0].numpy()) for each in sequences],
        prompts=[(start, continuation(start)) for start in starts],
        end_ids=tokenizer.end_ids,
        composes=isinstance(tokenizer, ByteLevelTokenizer) and tokenizer.normalizes,
        greedy_tokens=new_tokens,
        context_length=length,
    )


def compare(
    file: Path,
    expected: Expected,
    model: Decoder,
    tolerance: float,
    runtime: RuntimeProcess = LLAMA_CPP,
) -> Agreement:
    """Run an exported file or folder in its runtime and compare the results.

    ``tolerance`` is the largest difference of logits that rounding explains.
    """
    texts = expected.texts if runtime.tokenizes else []
    composes = expected.composes and runtime.name == LLAMA_CPP.name
    compose = partial(unicodedata.normalize, "NFC")
    request = {
        "context_length": expected.context_length,
        "texts": [compose(text) if composes else text for text, _ in texts],
        "sequences": [ids for ids, _ in expected.sequences],
        "prompts": [ids for ids, _ in expected.prompts],
        "greedy_tokens": expected.greedy_tokens,
        "vocab_size": model.config.vocab_size,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answer = runtime.ask(request, folder, file=file)
        differences = [
            float(np.abs(np.load(folder / f"logits-{number}.npy") - logits).max())
            for number, (_, logits) in enumerate(expected.sequences)
        ]
    verdicts = [
        compare_continuations(model, prompt, ours, theirs, tolerance)
        for (prompt, ours), theirs in zip(expected.prompts, answer["continuations"], strict=True)
    ]
    pairs = zip(texts, answer["texts"], strict=True)
    return Agreement(
        texts=len(texts),
        tokens=sum(len(ids) for _, ids in texts),
        token_mismatches=sum(ids != theirs for (_, ids), theirs in pairs),
        end_mismatches=len(expected.end_ids.difference(answer["end_ids"])) * runtime.tokenizes,
        logit_difference=max(differences),
        greedy_tokens=sum(len(ours) for _, ours in expected.prompts),
        greedy_mismatches=verdicts.count("mismatch"),
        greedy_ties=verdicts.count("tie"),
    )


@torch.no_grad()
def compare_continuations(
    model: Decoder, prompt: list[int], ours: list[int], theirs: list[int], tolerance: float
) -> Literal["same", "tie", "mismatch"]:
    """Compare two greedy continuations at the first token where they differ.

    After a tie the texts may go anywhere, so nothing after it is compared.
    """
    pairs = enumerate(zip(ours, theirs, strict=False))
    step = next((step for step, (a, b) in pairs if a != b), None)
    if step is None:
        return "same"
    logits = model(torch.tensor([[*prompt, *ours[:step]]]))[0, -1]
    gap = float(logits[ours[step]] - logits[theirs[step]])
    return "tie" if gap <= 2 * tolerance else "mismatch"


def check_agreement(
    file: Path,
    agreement: Agreement,
    tolerance: float = math.inf,
    runtime: RuntimeProcess = LLAMA_CPP,
    outcome: str = "not exported",
) -> None:
    """Raise an error if the runtime's results are not the expected ones.

    Without a tolerance, as for quantized files, only the tokens must be equal. The message ends
    with the ``outcome``.
    """
    problems = []
    if other := agreement.token_mismatches:
        problems.append(f"{other} of {agreement.texts} texts have different tokens")
    if ends := agreement.end_mismatches:
        problems.append(f"{ends} end tokens don't end a text there")
    if not agreement.logit_difference <= tolerance:  # NaN fails too
        problems.append(f"logits differ by {agreement.logit_difference:g}, allowed {tolerance:g}")
    if agreement.greedy_mismatches and tolerance < math.inf:
        problems.append(f"{agreement.greedy_mismatches} greedy continuations differ")
    if problems:
        raise AtlasError(
            f"{file}: {runtime.name} disagrees with PyTorch: {'; '.join(problems)}; {outcome}"
        )


@dataclass(frozen=True)
class Quality:
    """How well a GGUF file predicts text, according to llama.cpp."""

    perplexity: float
    kl_divergence: float  # from the F32 file's predictions, nats per token
    top_1_agreement: float  # share of the positions where both find the same token most likely
    speed: Mapping[str, float]  # tokens per second in llama.cpp, of ``prompt`` and ``generation``


def measure_quality(gguf: Path, exact: Path, batches: Sequence[TokenBatch[Any]]) -> Quality:
    """Run a GGUF file on windows of text and compare it with the F32 file ``exact``."""
    inputs, targets = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    request = {
        "context_length": inputs.shape[1],
        "exact": None if gguf == exact else str(exact.resolve()),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "windows.npz", inputs=inputs, targets=targets)
        answer = LLAMA_CPP.ask(request, folder, file=gguf)
    tokens = sum(batch.num_targets() for batch in batches)
    return Quality(
        perplexity=math.exp(answer["loss"] / tokens),
        kl_divergence=answer["divergence"] / tokens,
        top_1_agreement=1.0 if gguf == exact else answer["same"] / tokens,
        speed=answer["speed"],
    )


def check_perplexity(gguf: Path, quality: Quality, expected: float, error_scale: float = 1) -> None:
    """Reject an F32 file whose perplexity differs too much from PyTorch's."""
    tolerance = PERPLEXITY_TOLERANCE * error_scale
    if not abs(quality.perplexity / expected - 1) <= tolerance:  # NaN fails too
        raise AtlasError(
            f"{gguf}: its perplexity is {quality.perplexity:.5g} in llama.cpp and {expected:.5g} "
            "in PyTorch; not exported"
        )
