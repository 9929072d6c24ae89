"""Tiny stored models of many shapes, and a runtime without a process."""

from dataclasses import dataclass
from pathlib import Path

import torch

from atlas.export.bundle import ModelBundle, ModelMetadata
from atlas.export.check.runtimes import RuntimeProcess, answer_request
from atlas.model.config import ModelConfig
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, load_model, save_weights
from tests.small import GPT2_SHAPE, LLAMA_SHAPE, small_config

WIDE = {"d_model": 64, "d_ff": 96, "n_head": 4, "context_length": 96}
SHAPES = {
    "llama": LLAMA_SHAPE | WIDE | {"n_kv_head": 4},
    "llama-mqa": LLAMA_SHAPE | WIDE | {"bias": True, "n_kv_head": 1, "rope_theta": 500.0},
    "llama-odd": LLAMA_SHAPE | WIDE | {"d_model": 54, "d_ff": 77, "n_head": 3, "n_kv_head": 1},
    "llama-scaled": LLAMA_SHAPE | WIDE | {"rope_scaling": 4.0},
    "qwen3-eps": LLAMA_SHAPE | WIDE | {"qk_norm": "head", "n_kv_head": 4, "norm_eps": 1e-6},
    "gpt2-bias-untied": GPT2_SHAPE | WIDE | {"bias": True, "tied_head": False, "n_kv_head": 4},
    "starcoder2-scaled": GPT2_SHAPE | WIDE | {"positions": "rope", "rope_scaling": 2.0},
    "refact-odd": LLAMA_SHAPE
    | WIDE
    | {"positions": "alibi", "d_model": 54, "n_head": 3, "n_kv_head": 1},
    "mpt-six": GPT2_SHAPE | WIDE | {"positions": "alibi", "d_model": 96, "n_head": 6},
}


@dataclass(frozen=True)
class InProcess(RuntimeProcess):
    """Answer in this process, so that tests of many models import the runtime once."""

    def run(self, *arguments: str, file: Path) -> None:
        """Answer the request."""
        answer_request(Path(arguments[0]))


def store(folder, options, tokenizer, deviation=None) -> Decoder:
    """Write a model whose weights, norms and biases look trained.

    With a deviation, that of its logits, matrices are twice as large, too.
    """
    config = small_config(
        **options,
        vocab_size=tokenizer.vocab_size,
        eos=tokenizer.eos,
        tokenizer_sha256=tokenizer.sha256,
    )
    model = Decoder(config).eval()
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_((0.26 if deviation else 0.13) * noise)
            else:
                parameter.add_(0.1 * noise)
        if deviation:
            ids = torch.randint(5, tokenizer.vocab_size, (4, config.context_length))
            factor = deviation / model(ids).std()
            for parameter in model.norm.parameters():
                parameter.mul_(factor)
    folder.mkdir(exist_ok=True)
    config.write(folder)
    save_weights(model, folder / "model.safetensors")
    return load_model(folder, torch.device("cpu"))


def store_changed(folder, model) -> None:
    """Change a few weights of a stored model."""
    with torch.no_grad():
        model.blocks[1].attention.key.weight[3] += 0.5
    save_weights(model, folder / "model.safetensors")


def bundle_of(folder, tokenizer, name="test") -> ModelBundle:
    """A stored model and its tokenizer, ready for export."""
    return ModelBundle(folder, ModelConfig.read(folder), tokenizer, ModelMetadata(name))
