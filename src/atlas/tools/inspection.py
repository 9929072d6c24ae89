"""``atlas inspect`` and ``atlas model``: print a GGUF file, or the size of a model to train."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFValueType

from atlas.pipeline.gguf_file import Field, read_gguf
from atlas.tools.console import print_table, printable

MAX_CHARACTERS = 80  # printed of a value


def print_gguf(path: Path) -> None:
    """Print the header, the metadata, a table of types and a table of tensors."""
    file = read_gguf(path)
    # Number of tensors, values and bytes of each type.
    totals: dict[str, Any] = defaultdict(lambda: np.zeros(3, np.int64))
    for tensor in file.tensors:
        totals[tensor.kind.name] += (1, tensor.values, tensor.size)
    metadata = [(key, _type(field), _value(field)) for key, field in file.fields.items()]
    tensors = [
        (
            tensor.name,
            tensor.kind.name,
            " x ".join(map(str, reversed(tensor.shape))),
            f"{tensor.size:,}",
        )
        for tensor in file.tensors
    ]
    _, weights, stored = sum(totals.values(), np.zeros(3, np.int64))
    by_count = sorted(totals.items(), key=lambda item: -item[1][0])
    types = [(kind, *(f"{number:,}" for number in total)) for kind, total in by_count]
    bits = 8 * stored / max(weights, 1)
    order = "" if file.byte_order == "little" else ", big-endian"
    print(
        f"{printable(str(path))}: GGUF version {file.version}{order}, {file.size:,} bytes, "
        f"{len(tensors)} tensors of {weights:,} values, {bits:.2f} bits each"
    )
    print()
    print_table(("key", "type", "value"), metadata)
    print()
    print_table(("type", "tensors", "values", "bytes"), types, right=(1, 2, 3))
    print()
    print_table(("tensor", "type", "shape", "bytes"), tensors, right=(3,))


def _type(field: Field) -> str:
    return "[".join(kind.name.lower() for kind in field.kinds) + "]" * (len(field.kinds) - 1)


def _value(field: Field) -> str:
    """Format a value in one line; a list as its length and first items."""
    if field.count is None:
        return _shorten(field.value)
    more = ", ..." if field.count > len(field.value) else ""
    nested = " values" if GGUFValueType.ARRAY in field.kinds[1:] else ""
    return f"{field.count:,}{nested}: {', '.join(map(_shorten, field.value))}{more}"


def _shorten(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"  # as many digits as float32 has
    text = repr(value) if isinstance(value, str) else str(value)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(value):,} characters)"


def print_summary(root: Path, presets: Sequence[str]) -> None:
    """Print size, operations, memory and llama.cpp architecture of the model in params.yaml."""
    from atlas.model.config import ModelConfig  # slow: PyTorch
    from atlas.model.counts import cache_bytes, count, training_bytes
    from atlas.params.presets import with_presets
    from atlas.params.runtime_support import ARCHITECTURES, architecture_of, nearest_change

    params = with_presets(root, presets)
    options, train = params.model.model_dump(), params.train
    config = ModelConfig(
        **options,
        vocab_size=params.tokenizer.vocab_size,
        bos=0,  # the ids and the tokenizer do not change the counts
        eos=0,
        end_ids=(0,),
        sequence_length=params.train.sequence_length or params.model.context_length,
        separator=0,
        add_bos_token=False,
        tokenizer_sha256="0" * 64,
        learned_tokens=0,
    )
    counts = count(config)
    weights = {part: number for part, number in counts.parameters.items() if number}
    operations = {"forward": counts.forward_flops, "training": counts.training_flops}
    sections: dict[str, Mapping[str, str | int]] = {
        "weights": weights | {"total": counts.total_parameters}
    }
    if params.tokenizer.kind in ("char", "word"):
        sections["vocabulary"] = {"at most": config.vocab_size}
    sections["operations per token"] = operations
    if config.kind == "decoder":
        micro_batch = train.batch_size // train.grad_accum_steps
        checkpointing = train.activation_checkpointing
        memory = training_bytes(config, micro_batch, activation_checkpointing=checkpointing)
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
