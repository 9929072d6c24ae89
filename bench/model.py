"""Measure forward and backward passes of the decoder against litgpt and transformers.

    pip install -e '.[bench]'
    python -m bench.model
    python -m bench.model --compiled

Each contestant builds the same shape as Llama (RoPE, RMSNorm, SwiGLU; all with the same number of
weights) and as GPT-2 (learned positions, LayerNorm, GELU, biases, tied head; litgpt has neither
learned positions nor a tied head, so it runs GPT-NeoX). All run in float32 on the CPU with the same
loss and alternate in rounds; medians and ratios are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.params.schema import load_params
from bench.shared import ROOT

SHA = "0" * 64
SECONDS = 2.0  # per contestant and round


@dataclass(frozen=True)
class Shape:
    """Size of a model and its batch."""

    d_model: int
    n_layer: int
    n_head: int
    context_length: int
    batch: int
    vocab_size: int

    @property
    def d_ff(self) -> int:
        """Width of SwiGLU: two thirds of four times d_model, rounded up to a multiple of 32."""
        return -(-8 * self.d_model // 3 // 32) * 32

    def __str__(self) -> str:
        return (
            f"{self.n_layer} layers, {self.d_model} wide, T {self.context_length}, "
            f"B {self.batch}, V {self.vocab_size:,}"
        )


SHAPES = (Shape(128, 4, 4, 64, 12, 65), Shape(384, 6, 6, 256, 4, 4096))
FAMILIES = ("llama", "gpt2")


class Logits(nn.Module):
    """A transformers model that returns only logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, T) to logits (B, T, V)."""
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits


def config_of(**options: Any) -> ModelConfig:
    """Return the model config of params.yaml with changed options and no real tokenizer."""
    values = load_params(ROOT / "params.yaml").model.model_dump() | options
    made_up = {
        "bos": 1,
        "eos": 1,
        "end_ids": (1,),
        "sequence_length": values["context_length"],
        "separator": None,
        "add_bos_token": False,
        "tokenizer_sha256": SHA,
        "learned_tokens": 0,
    }
    return ModelConfig(**made_up | values)


def wait(device: torch.device) -> None:
    """Wait for pending work on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def atlas(shape: Shape, family: str) -> nn.Module:
    """Build our decoder."""
    options: dict[str, dict[str, Any]] = {
        "llama": {"tied_head": False, "d_ff": shape.d_ff},
        "gpt2": {
            "positions": "learned",
            "norm": "layernorm",
            "feed_forward": "gelu",
            "d_ff": 4 * shape.d_model,
            "bias": True,
        },
    }
    config = config_of(
        **options[family],
        d_model=shape.d_model,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        context_length=shape.context_length,
        vocab_size=shape.vocab_size,
    )
    model = Decoder(config)
    initialize(model, 1)
    return model


def litgpt(shape: Shape, family: str) -> nn.Module:
    """Build the litgpt model."""
    from litgpt import GPT, Config

    options = {
        "llama": {
            "bias": False,
            "norm_class_name": "RMSNorm",
            "mlp_class_name": "LLaMAMLP",
            "intermediate_size": shape.d_ff,
        },
        "gpt2": {
            "bias": True,
            "norm_class_name": "LayerNorm",
            "mlp_class_name": "GptNeoxMLP",
            "gelu_approximate": "tanh",
            "intermediate_size": 4 * shape.d_model,
        },
    }
    config = Config(
        **options[family],
        block_size=shape.context_length,
        vocab_size=shape.vocab_size,
        padded_vocab_size=shape.vocab_size,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_embd=shape.d_model,
        rotary_percentage=1.0,
        parallel_residual=False,
    )
    model: nn.Module = GPT(config)
    return model


def transformers(shape: Shape, family: str, dropout: float = 0.0) -> nn.Module:
    """Build the transformers model with fused attention; dropout applies to GPT-2 only."""
    import transformers as library

    common = {
        "vocab_size": shape.vocab_size,
        "attn_implementation": "sdpa",
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if family == "llama":
        llama = library.LlamaConfig(
            **common,
            hidden_size=shape.d_model,
            intermediate_size=shape.d_ff,
            num_hidden_layers=shape.n_layer,
            num_attention_heads=shape.n_head,
            max_position_embeddings=shape.context_length,
        )
        return Logits(library.LlamaForCausalLM(llama))
    gpt2 = library.GPT2Config(
        **common,
        n_positions=shape.context_length,
        n_embd=shape.d_model,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )
    return Logits(library.GPT2LMHeadModel(gpt2))


CONTESTANTS: dict[str, Callable[[Shape, str], nn.Module]] = {
    "atlas": atlas,
    "litgpt": litgpt,
    "transformers": transformers,
}


def main() -> None:
    """Compare the contestants at each shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiled", action="store_true", help="through torch.compile")
    options = parser.parse_args()
    kind = "compiled" if options.compiled else "eager"
    print(f"float32, {torch.get_num_threads()} threads, {kind}; tokens/s, median (best)")
    for shape in SHAPES:
        for family in FAMILIES:
            compare(shape, family, options.rounds, options.compiled)


def compare(shape: Shape, family: str, rounds: int, compiled: bool) -> None:
    """Print the speeds at one shape, and ours against the best peer."""
    torch.manual_seed(1)
    ids = torch.randint(0, shape.vocab_size, (shape.batch, shape.context_length + 1))
    models = {name: make(shape, family) for name, make in CONTESTANTS.items()}
    if compiled:
        torch.compiler.reset()
        for model in models.values():
            model.compile()
    seconds: dict[str, list[float]] = {name: [] for name in models}
    steps = {name: warm_up(model, ids) for name, model in models.items()}
    for _ in range(rounds):
        for name, model in models.items():
            started = time.perf_counter()
            for _ in range(steps[name]):
                step(model, ids)
            seconds[name].append((time.perf_counter() - started) / steps[name])
    tokens = shape.batch * shape.context_length
    middle = {name: tokens / statistics.median(each) for name, each in seconds.items()}
    print(f"{family}, {shape}")
    for name, speed in middle.items():
        weights = sum(parameter.numel() for parameter in models[name].parameters())
        print(
            f"  {name:13} {speed:8,.0f} ({tokens / min(seconds[name]):,.0f})  {weights:,} weights"
        )
    best = max((name for name in middle if name != "atlas"), key=lambda name: middle[name])
    pairs = zip(seconds["atlas"], seconds[best], strict=True)
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    print(
        f"  against {best}: {middle['atlas'] / middle[best]:.2f} times as fast "
        f"(rounds {ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def step(model: nn.Module, ids: Tensor) -> None:
    """Run a forward and a backward pass."""
    logits = model(ids[:, :-1])
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        parameter.grad = None


def warm_up(model: nn.Module, ids: Tensor) -> int:
    """Run the first steps, which compile; return how many steps fill a round."""
    for _ in range(3):
        step(model, ids)
    started = time.perf_counter()
    step(model, ids)
    return max(2, round(SECONDS / (time.perf_counter() - started)))


if __name__ == "__main__":
    main()
