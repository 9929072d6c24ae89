"""A summary of the model in params.yaml, without training it."""

from collections.abc import Mapping

from atlas.model.config import ModelConfig
from atlas.model.counts import cache_bytes, count, training_bytes
from atlas.params.runtime_support import ARCHITECTURES, architecture_of, nearest_change
from atlas.params.schema import Params
from atlas.tools.console import print_table


def print_summary(params: Params) -> None:
    """Print weights, operations, memory and the architecture that llama.cpp would run."""
    options = params.model.model_dump()
    config = ModelConfig(
        **options,
        vocab_size=params.tokenizer.vocab_size,
        eos=0,  # the ids and the tokenizer do not change the counts
        separator=0,
        add_bos_token=False,
        tokenizer_sha256="0" * 64,
        learned_tokens=0,
    )
    counts = count(config)
    weights = {part: number for part, number in counts.parameters.items() if number}
    sections: dict[str, Mapping[str, str | int]] = {
        "weights": weights | {"total": counts.total_parameters}
    }
    if params.tokenizer.kind in ("char", "word"):
        sections["vocabulary"] = {"at most": config.vocab_size}
    sections["operations per token"] = {
        "forward": counts.forward_flops,
        "training": counts.training_flops,
    }
    if config.kind == "decoder":
        micro_batch = params.train.batch_size // params.train.grad_accum_steps
        memory = training_bytes(
            config, micro_batch, activation_checkpointing=params.train.activation_checkpointing
        )
        memory["total"] = sum(memory.values())
        sections["training memory"] = {key: _megabytes(size) for key, size in memory.items()}
        sections["cache of one sequence"] = {"keys and values": _megabytes(cache_bytes(config, 1))}
    architecture = architecture_of(options)
    unsupported = f"not supported; nearest: {nearest_change(ARCHITECTURES, options)}"
    sections["llama.cpp"] = {"architecture": architecture.name if architecture else unsupported}
    rows = [
        ("" if number else section, key, value if isinstance(value, str) else f"{value:,}")
        for section, values in sections.items()
        for number, (key, value) in enumerate(values.items())
    ]
    print_table(("", "", ""), rows, right=(2,))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
