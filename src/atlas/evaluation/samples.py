"""Samples: what the model writes after given prompts."""

from atlas.generation.generate import Sampling, generate
from atlas.model.decoder import Decoder
from atlas.params import EvaluateParams
from atlas.tokens.tokenizer import Tokenizer


def write_samples(model: Decoder, tokenizer: Tokenizer, evaluate: EvaluateParams) -> str:
    """A page of Markdown with a continuation of each prompt."""
    page = [
        f"Samples at temperature {evaluate.temperature:g}, top-k {evaluate.top_k}, "
        f"top-p {evaluate.top_p:g}, seeds from {evaluate.seed} on."
    ]
    for seed, prompt in enumerate(evaluate.prompts, start=evaluate.seed):
        sampling = Sampling(evaluate.temperature, evaluate.top_k, evaluate.top_p, seed)
        ids = tokenizer.encode(prompt)
        text = tokenizer.decode([*ids, *generate(model, ids, evaluate.sample_tokens, sampling)])
        page.append("\n".join(f"    {line}" for line in text.split("\n")))
    return "\n\n".join(page) + "\n"
