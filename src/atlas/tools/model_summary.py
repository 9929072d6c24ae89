"""A summary of the model in params.yaml, without training it."""

from rich.console import Console
from rich.table import Table

from atlas.model.config import ModelConfig
from atlas.model.counts import cache_bytes, count, training_bytes
from atlas.params.runtime_support import ARCHITECTURES, architecture_of, nearest_change
from atlas.params.schema import Params

NO_TOKENIZER = "0" * 64
NO_ID = 0


def print_summary(params: Params) -> None:
    """Print weights, operations, memory and the architecture that llama.cpp would run."""
    options = params.model.model_dump()
    config = ModelConfig(
        **options,
        vocab_size=params.tokenizer.vocab_size,
        eos=NO_ID,
        separator=NO_ID,
        add_bos_token=False,
        tokenizer_sha256=NO_TOKENIZER,
        learned_tokens=0,
    )
    counts = count(config)
    table = Table("", "", "", box=None, pad_edge=False, show_header=False)
    table.columns[2].justify = "right"

    def section(name: str, rows: dict[str, str]) -> None:
        for number, (key, value) in enumerate(rows.items()):
            table.add_row("" if number else name, key, value)

    weights = {part: f"{number:,}" for part, number in counts.parameters.items() if number}
    section("weights", weights | {"total": f"{counts.total_parameters:,}"})
    if params.tokenizer.kind in ("char", "word"):
        section("vocabulary", {"at most": f"{config.vocab_size:,}"})
    section(
        "operations per token",
        {"forward": f"{counts.forward_flops:,}", "training": f"{counts.training_flops:,}"},
    )
    if config.kind == "decoder":
        micro_batch = params.train.batch_size // params.train.grad_accum_steps
        memory = training_bytes(
            config, micro_batch, activation_checkpointing=params.train.activation_checkpointing
        )
        memory["total"] = sum(memory.values())
        section("training memory", {key: _megabytes(size) for key, size in memory.items()})
        section("cache of one sequence", {"keys and values": _megabytes(cache_bytes(config, 1))})
    architecture = architecture_of(options)
    support = (
        architecture.name
        if architecture
        else f"not supported; nearest: {nearest_change(ARCHITECTURES, options)}"
    )
    section("llama.cpp", {"architecture": support})
    Console(highlight=False).print(table)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
