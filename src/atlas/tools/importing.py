"""``atlas import``: make a base model of weights from elsewhere, checked in their own runtime.

A base model is a folder in Atlas's own format that training can start from (``train.start``)::

    config.json, model.safetensors    as train writes them
    tokenizer/                        of the source
    origin.json                       where it comes from, and what was checked
    preset.yaml                       params to fine-tune it (``atlas preset base``)
    LICENSE                           as in the source, if it has one

It appears whole, or not at all. Nothing in a source runs as code.
"""

import math
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
import yaml
from torch import Tensor

from atlas.errors import NO_ROOM, AtlasError, NotWritten
from atlas.export.check.agreement import (
    TRANSFORMERS,
    Agreement,
    Expected,
    check_agreement,
    compare,
    expect,
    measure_quality,
)
from atlas.export.check.runtimes import log_softmax
from atlas.export.export import TOLERANCE
from atlas.export.gguf.quantize import quantize
from atlas.inference.backends.load import SAFETENSORS
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.transformer import Decoder
from atlas.model.weights import WEIGHTS, load_model, write_weights
from atlas.params.presets import MODELS, OF_MODEL
from atlas.params.runtime_support import ARCHITECTURES, export_conflicts
from atlas.params.schema import ModelParams
from atlas.pipeline.files import partial_path, put_in_place, remove, sha256, write_json
from atlas.pipeline.gguf_file import read_gguf
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import NO_TARGET, TokenBatch
from atlas.tools.console import print_table, printable
from atlas.tools.sources import ORIGIN, Source, open_source

TOKENIZER = "tokenizer"  # a folder of the base model
ONE_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_:/-]*")
MAX_LICENCE = 1 << 18  # bytes
MAX_UNUSED_ROWS, UNUSED_SHARE = 1024, 0.02  # of an embedding; the larger counts
MAX_CONTEXT = 8192  # tokens, unless --context-length says otherwise
GREEDY_TOKENS = 24
MAX_DIVERGENCE = 0.1  # nats per token, of a quantized GGUF file from its dequantized weights
SPARE_MEMORY = 1 << 29  # bytes, in addition to the weights
SEQUENCE_LENGTH = 256  # tokens of a window in fine-tuning
TUNING_SECONDS = 480  # of steps; compiling and validating take the rest of ten minutes
WEIGHTS_PER_SECOND = 1.5e10  # times tokens, in training on two cores in float32
BATCH_SIZE, LOGIT_BYTES = 4, 3e8
SMALL_MODEL, LARGE_MODEL, LARGE_VOCABULARY = 50_000_000, 300_000_000, 80_000
# Ours, so that nobody trained on them; each is short, because the first logits decide.
TEXTS = (
    "The lighthouse keeper counted the steps again. There had always been two hundred and twelve "
    "of them, but tonight the lamp stood one step higher than before, and the sea was quiet.",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n\n\nprint(mean([3, 4.5, 12]))\n",
    "Question: Which is heavier, a litre of water or a litre of oil?\nAnswer: The water, because "
    "oil floats on it. A litre of water weighs about 1 kg, a litre of oil about 0.92 kg.",
    "Der Zug nach Köln fährt heute später ab; « un café, s'il vous plaît », sagte sie leise. "
    "Późną nocą świecił księżyc. 今日は雨です。",
    "| day | visitors | income |\n| --- | ---: | ---: |\n| Monday | 1,204 | 3,611.50 |\n"
    "| Tuesday | 987 | 2,961.00 |\n\nTotal: 2,191 visitors; 42 % more than in May 2019.\n",
    "“Don't,” she said, “you'll wake the baby!” — He didn't; he never did... And so (for once) it "
    "was she who laughed first: a small, surprised laugh, like someone finding a coin.",
)


@dataclass
class Result:
    """The findings of an import, as numbers and as lines for people."""

    config: ModelConfig
    numbers: dict[str, int | float | str] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)


# Write


def write_base(source: Source, folder: Path, context_length: int | None = None) -> Result:
    """Write a base model into an existing empty folder, and check it against its source."""
    weights, tokenizer = source.weights, source.tokenizer
    check_vocabulary(source)
    check_memory(source.path, weights.size, psutil.virtual_memory().available)
    tokenizer.save(folder / TOKENIZER)
    saved = Tokenizer.load(folder / TOKENIZER)
    if saved.sha256 != tokenizer.sha256:
        raise AtlasError(f"{source.path}: its tokenizer changes when it is saved; not imported")
    options = weights.params.model_dump() | _context(source, context_length)
    config = ModelConfig(
        **options,
        vocab_size=saved.vocab_size,
        bos=saved.bos,
        eos=saved.eos,
        end_ids=tuple(sorted(saved.end_ids)),
        sequence_length=min(SEQUENCE_LENGTH, options["context_length"]),
        separator=source.separator,
        add_bos_token=source.add_bos_token or saved.add_bos,
        tokenizer_sha256=saved.sha256,
        learned_tokens=0,
    )
    config.write(folder)
    tensors = {}
    for name, tensor in weights.tensors(config.vocab_size):
        if not tensor.isfinite().all():
            raise AtlasError(
                f"{source.path}: {name} has values that are not finite; get another copy of the "
                "model"
            )
        if name == "positions.weight":
            tensor = tensor[: config.context_length]
        tensors[name] = _smallest(tensor, weights.dtype)
    write_weights(tensors, folder / WEIGHTS)
    del tensors
    if source.licence_file is not None:
        with source.licence_file.open("rb") as file:
            (folder / "LICENSE").write_bytes(file.read(MAX_LICENCE))
    return check_base(source, folder, config)


def check_vocabulary(source: Source) -> None:
    """Reject a tokenizer that can't be that of the embedding."""
    rows, pieces = source.weights.rows, source.tokenizer.vocab_size
    problem = f"its tokenizer has {pieces:,} tokens, and the embedding has {rows:,} rows"
    if pieces > rows:
        raise AtlasError(f"{source.path}: {problem}: the tokenizer is of another model")
    if rows - pieces > max(MAX_UNUSED_ROWS, UNUSED_SHARE * rows):
        raise AtlasError(
            f"{source.path}: {problem}: too many for padding, so the tokenizer is of another model"
        )


def check_memory(path: Path, size: int, available: int) -> None:
    """Reject a model that memory has no room for, before it is loaded.

    The check holds the weights twice: in PyTorch, and in the runtime of the source.
    """
    needed = 2 * size + SPARE_MEMORY
    if needed > available:
        raise AtlasError(
            f"{path}: import needs about {needed / 1e9:.1f} GB of memory (the weights in float32, "
            f"here and in the source's runtime), and {available / 1e9:.1f} GB are free; close "
            "other programs, or use a smaller model"
        )


def _context(source: Source, context_length: int | None) -> dict[str, Any]:
    """The context of the base model, and a window only if it is shorter."""
    trained, window = source.weights.params.context_length, source.weights.params.window
    if context_length and context_length > trained:
        raise AtlasError(
            f"--context-length {context_length}: {source.path} was trained with {trained} tokens; "
            f"give at most {trained}"
        )
    length = context_length or min(trained, MAX_CONTEXT)
    return {"context_length": length, "window": window if window and window < length else None}


def _smallest(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a 16-bit type if that loses nothing, else in float32."""
    small = tensor.to(dtype)
    return small.contiguous() if small.float().equal(tensor.float()) else tensor.contiguous()


# Check


def check_base(source: Source, folder: Path, config: ModelConfig) -> Result:
    """Compare a base model with its source in the source's runtime; a difference is an error."""
    result = Result(config)
    model = cast(Decoder, load_model(folder, torch.device("cpu")))
    expected = expect(model, source.tokenizer, TEXTS, len(TEXTS), GREEDY_TOKENS)
    match source.kind:
        case "hugging_face":
            tolerance = TOLERANCE * expected.error_scale
            # Atlas ends a text also at tokens whose names llama.cpp knows; transformers does not.
            texts = expected.texts if source.tokenizer_file is None else []
            comparable = replace(expected, end_ids=frozenset(), texts=texts)
            agreement = compare(source.path, comparable, model, tolerance, TRANSFORMERS)
            check_agreement(source.path, agreement, tolerance, TRANSFORMERS, "not imported")
            _add_agreement(result, "transformers", agreement, expected, tolerance)
        case "gguf":
            _check_gguf(source, folder, expected, model, result)
        case "atlas":
            _check_copy(source, expected, result)
    nats, bits = _text_loss(expected, source.tokenizer)
    result.numbers["bits_per_byte"] = bits
    result.rows.append(("", f"{bits:.2f} bits per byte on {len(TEXTS)} short texts"))
    if nats > math.log(config.vocab_size):
        result.rows.append(
            ("warning", "no better than guessing there: it is untrained, or has another tokenizer")
        )
    return result


def _check_gguf(
    source: Source, folder: Path, expected: Expected, model: Decoder, result: Result
) -> None:
    """Compare with llama.cpp, exactly on dequantized weights and loosely on the file itself.

    llama.cpp rounds the inputs of quantized matrices, too, so only dequantized weights give logits
    that can be compared digit by digit. llama.cpp dequantizes them itself.
    """
    weights = source.weights
    tolerance = logit_tolerance(weights.architecture, weights.params) * expected.error_scale
    types = {each.kind.name for each in read_gguf(source.path).tensors if len(each.shape) > 1}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        exact = source.path
        if types != {"F32"}:
            exact = Path(name) / "exact.gguf"
            quantize(source.path, exact, "f32")
        agreement = compare(exact, expected, model, tolerance)
        check_agreement(source.path, agreement, tolerance, outcome="not imported")
        _add_agreement(result, "llama.cpp", agreement, expected, tolerance)
        if exact == source.path:
            return
        own = compare(source.path, expected, model, tolerance)
        quality = measure_quality(source.path, exact, [_windows(expected)])
    if not quality.kl_divergence <= MAX_DIVERGENCE:  # NaN fails, too
        raise AtlasError(
            f"{source.path}: in llama.cpp its predictions are {quality.kl_divergence:.3g} nats per "
            f"token from those of its own weights, allowed {MAX_DIVERGENCE}; not imported"
        )
    same = len(expected.prompts) - own.greedy_mismatches - own.greedy_ties
    result.numbers |= {
        "types": ", ".join(sorted(types)),
        "file_kl_divergence": quality.kl_divergence,
        "file_top_1_agreement": quality.top_1_agreement,
        "file_logit_difference": own.logit_difference,
        "file_greedy_same": same,
    }
    result.rows.append(
        (
            "the file itself",
            f"llama.cpp also rounds activations for {', '.join(sorted(types))}: KL divergence "
            f"{quality.kl_divergence:.2g} nats per token (allowed {MAX_DIVERGENCE}), same top "
            f"token {100 * quality.top_1_agreement:.1f} %, logits differ by at most "
            f"{own.logit_difference:.2g}, {same} of {len(expected.prompts)} greedy texts equal",
        )
    )


def logit_tolerance(architecture: str, params: ModelParams) -> float:
    """The difference of logits that rounding explains in an architecture of llama.cpp."""
    rows = (row for row in ARCHITECTURES if row.name == architecture)
    return next(
        row.logit_tolerance for row in rows if params.feed_forward in row.allowed["feed_forward"]
    )


def _windows(expected: Expected) -> TokenBatch[Any]:
    """The texts as padded rows."""
    rows = [ids for ids, _ in expected.sequences]
    inputs = np.zeros((len(rows), max(map(len, rows)) - 1), np.int64)
    targets = np.full_like(inputs, NO_TARGET)
    for number, ids in enumerate(rows):
        inputs[number, : len(ids) - 1], targets[number, : len(ids) - 1] = ids[:-1], ids[1:]
    return TokenBatch(inputs, targets, targets != NO_TARGET)


def _check_copy(source: Source, expected: Expected, result: Result) -> None:
    """Compare with the folder that the weights were copied from, loaded by Atlas."""
    model = load_model(source.path, torch.device("cpu"))
    with torch.no_grad():
        differences = [
            float((model(torch.tensor([ids]))[0] - torch.from_numpy(logits)).abs().max())
            for ids, logits in expected.sequences
        ]
    if max(differences) > TOLERANCE * expected.error_scale:
        raise AtlasError(
            f"{source.path}: logits differ from its own by {max(differences):g}; not imported"
        )
    result.numbers |= {"runtime": "atlas", "logit_difference": max(differences)}
    result.rows.append(("check", f"logits differ from the source's by {max(differences):.2g}"))


def _add_agreement(
    result: Result, runtime: str, agreement: Agreement, expected: Expected, tolerance: float
) -> None:
    result.numbers |= {
        "runtime": runtime,
        "logit_deviation": expected.logit_deviation,
        "logit_tolerance": tolerance,
        **vars(agreement),
    }
    ties = f", {agreement.greedy_ties} up to a tie" if agreement.greedy_ties else ""
    tokens = f"tokens of {agreement.texts} texts equal in {runtime}"
    result.rows += [
        (
            "check",
            tokens if agreement.texts else "tokens not compared: the tokenizer is not the source's",
        ),
        (
            "",
            f"logits differ by at most {agreement.logit_difference:.2g} (allowed {tolerance:.2g}; "
            f"their standard deviation is {expected.logit_deviation:.2g})",
        ),
        ("", f"greedy texts equal: {agreement.greedy_tokens} tokens{ties}"),
    ]


def _text_loss(expected: Expected, tokenizer: Tokenizer) -> tuple[float, float]:
    """Loss on the texts, in nats per token and in bits per byte; their first tokens are given."""
    loss, tokens, size = 0.0, 0, 0
    for ids, logits in expected.sequences:
        predicted = log_softmax(logits[:-1])
        loss -= float(predicted[np.arange(len(ids) - 1), ids[1:]].sum())
        tokens += len(ids) - 1
        size += len(tokenizer.decode(ids[1:]).encode())
    return loss / max(1, tokens), loss / math.log(2) / max(1, size)


# Params to fine-tune it


def preset(config: ModelConfig, source: Source, base: str) -> dict[str, Any]:
    """Params that start from a base model and fine-tune it for about ten minutes on two cores."""
    size = source.weights.size // 4
    tokens = TUNING_SECONDS * WEIGHTS_PER_SECOND / size
    steps = round(min(2000, max(40, tokens / BATCH_SIZE / config.sequence_length)) / 10) * 10
    model = config.model_dump(mode="json", include=set(ModelParams.model_fields))
    train: dict[str, Any] = {
        "start": base,
        "sequence_length": config.sequence_length,
        "steps": steps,
        "epochs": None,
        "batch_size": BATCH_SIZE,
        "grad_accum_steps": BATCH_SIZE if config.vocab_size > LARGE_VOCABULARY else 1,
        "precision": "auto",
        "optimizer": "adamw",
        "lr": 5e-5 if size > LARGE_MODEL else 1e-4,
        "schedule": "cosine",
        "min_lr_ratio": 0.1,
        "warmup_share": 0.1,
        "weight_decay": 0.01,
        "log_every": 5,
        "eval_every": math.ceil(steps / 4),
        "eval_windows": 16,
        "eval_train_windows": 4,
    }
    if config.feed_forward not in GATES:
        targets = ("query", "key", "value", "output", "up", "down")
        train["lora"] = {"targets": list(targets)}
    rows = LOGIT_BYTES / (12 * config.sequence_length * config.vocab_size)
    formats = ("gguf:f32", "gguf:q8_0") if size < LARGE_MODEL else ("gguf:q8_0", "hugging_face")
    options = config.model_dump()
    # A value with a blank would need quotes in `dvc exp run $(atlas preset base)`.
    licence, url = (
        value if value and ONE_WORD.fullmatch(value) else None
        for value in (source.licence, source.url)
    )
    return {
        "tokenizer": {"path": f"{base}/{TOKENIZER}"},
        "model": model,
        "train": train,
        "evaluate": {
            "batch_size": int(min(16, max(1, rows))),
            "stride": 0.5 if size < SMALL_MODEL else None,
            "free_samples": 4,
        },
        "export": {
            "name": f"{file_name(source.name)}-tuned",
            "license": licence,
            "source": url,
            "formats": [each for each in formats if not list(export_conflicts(options, [each]))],
            "check_windows": 8,
        },
    }


def file_name(name: str) -> str:
    """The name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "base"


# The command


def import_model(
    path: Path,
    out: Path,
    root: Path,
    *,
    tokenizer: Path | None = None,
    context_length: int | None = None,
) -> None:
    """Create the folder of a base model, and print what it is and what to do next.

    ``root`` is the project, to which the paths in its preset are relative.
    """
    _check_target(out)
    source = open_source(path, tokenizer)
    partial = partial_path(out)
    remove(partial)
    is_new = not partial.parent.exists()
    try:
        partial.mkdir(parents=True)
        result = write_base(source, partial, context_length)
        base = str(out.absolute())
        if out.absolute().is_relative_to(root.absolute()):
            base = out.absolute().relative_to(root.absolute()).as_posix()
        values = preset(result.config, source, base)
        about = f"# Fine-tune {printable(source.name)} for about ten minutes on two cores.\n"
        text = about + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (partial / OF_MODEL).write_text(text, encoding="utf-8", newline="\n")
        write_json(partial / ORIGIN, _origin(source, result))
        put_in_place(partial, out)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise NotWritten(out, error.strerror) from None
        raise
    finally:
        remove(partial)
        if is_new:
            with suppress(OSError):  # it holds the base model
                partial.parent.rmdir()
    _print_result(source, result, out, base)


def _check_target(out: Path) -> None:
    """Reject a folder that import did not write; a base model is replaced."""
    if out.exists() and not (out / ORIGIN).is_file():
        raise AtlasError(
            f"--out {out}: already exists, and `atlas import` did not write it; choose another name"
        )
    if not out.absolute().parent.parent.is_dir():
        raise AtlasError(f"--out {out}: folder {out.parent} does not exist; create it first")


def _origin(source: Source, result: Result) -> dict[str, Any]:
    """Describe the source of a base model; paths of the machine are private."""
    given = source.tokenizer_file
    return {
        "name": source.name,
        "kind": source.kind,
        "architecture": source.weights.architecture,
        "author": source.author,
        "license": source.licence,
        "url": source.url,
        "context_length": source.weights.params.context_length,
        "embedding_rows": source.weights.rows,
        "files": _hashes(source.path),
        **({"tokenizer_files": _hashes(given)} if given else {}),
        "checks": result.numbers,
    }


def _hashes(source: Path) -> dict[str, str]:
    """The SHA-256 of a file, or of each file of a model in a folder."""
    files = [source]
    if source.is_dir():
        kinds = {".json", ".jinja", ".model", ".txt", SAFETENSORS}
        files = sorted(each for each in source.iterdir() if each.suffix in kinds)
    return {each.name: sha256(each) for each in files if each.is_file()}


def _print_result(source: Source, result: Result, out: Path, base: str) -> None:
    config, weights, here = result.config, source.weights, Path.cwd()
    shown = out.absolute().relative_to(here) if out.absolute().is_relative_to(here) else out
    count = weights.size // 4
    unused = weights.rows - config.vocab_size
    cut = f"; {unused:,} unused rows of the embedding left out" if unused else ""
    trained = weights.params.context_length
    shorter = f" of {trained:,}; --context-length {trained} keeps all"
    ends = ", ".join(printable(source.tokenizer.piece(each)) for each in config.end_ids)
    megabytes = (out / WEIGHTS).stat().st_size / 1e6
    rows = [
        ("model", f"{source.name}: {weights.architecture}"),
        ("weights", f"{count:,}, {megabytes:,.1f} MB"),
        ("vocabulary", f"{config.vocab_size:,} tokens ({source.tokenizer.kind}){cut}"),
        ("end tokens", ends),
        (
            "context",
            f"{config.context_length:,} tokens{shorter if trained > config.context_length else ''}",
        ),
        *result.rows,
        *((("not used", f"keys {', '.join(weights.ignored)}"),) if weights.ignored else ()),
        ("license", source.licence or "unknown: ask whoever made it"),
        ("origin", ", ".join(filter(None, (source.author, source.url))) or "unknown"),
        ("written", str(shown)),
    ]
    print_table(("", ""), rows)
    print("\nNext:")
    print(f"  atlas generate --model {shown} 'Once upon a time'")
    if Path(base) == Path(MODELS) / out.name:
        print(f"  atlas preset {out.name} --apply     # start training from it")
        print("  dvc repro                     # with your text: corpus.name, corpus.files.path")
    else:
        print(f"  move it to {MODELS}/NAME of a project, import again there, or copy {OF_MODEL}")
