"""Samples: what the model writes after given prompts."""

from atlas.generation.generate import generate_batch
from atlas.generation.prompts import beginnings
from atlas.generation.sampling import Sampling
from atlas.model.language_model import LanguageModel
from atlas.params import EvaluateParams
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer

DOCUMENTS = 6  # of val, whose beginnings are continued where no prompts are given


def write_samples(
    model: LanguageModel, tokenizer: Tokenizer, val: TokenSplit, evaluate: EvaluateParams
) -> str:
    """A page of Markdown with a continuation of each prompt.

    Without prompts, documents of ``val`` give them, evenly spread: of a question all of it, of
    any other text the first few tokens.
    """
    page = [
        f"Samples at temperature {evaluate.temperature:g}, top-k {evaluate.top_k}, "
        f"top-p {evaluate.top_p:g}, seeds from {evaluate.seed} on."
    ]
    prompts = [tokenizer.encode(prompt) for prompt in evaluate.prompts] or beginnings(
        val, DOCUMENTS
    )
    samplings = [
        Sampling(
            temperature=evaluate.temperature, top_k=evaluate.top_k, top_p=evaluate.top_p, seed=seed
        )
        for seed in range(evaluate.seed, evaluate.seed + len(prompts))
    ]
    written = generate_batch(model, prompts, evaluate.sample_tokens, samplings)
    for ids, more in zip(prompts, written, strict=True):
        text = tokenizer.decode([*ids, *more])
        page.append("\n".join(f"    {line}" for line in text.split("\n")))
    return "\n\n".join(page) + "\n"
