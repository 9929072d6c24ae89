"""Writes README.md, the model card, and Ollama's Modelfile beside exported files."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atlas.errors import one_line
from atlas.export.about import About
from atlas.export.check.agreement import Expected
from atlas.export.exported import Exported, FileRow
from atlas.export.source import Source
from atlas.inference.generate import generate
from atlas.inference.sampling import USUAL
from atlas.model.config import ModelConfig
from atlas.params.runtime_support import HUGGING_FACE, ONNX, TORCH, WHOLE, gguf_formats
from atlas.pipeline.files import write_text

CARD, MODELFILE = "README.md", "Modelfile"
SAMPLE_TOKENS = 100
RUNTIMES = {
    "f32": "llama.cpp",
    HUGGING_FACE: "transformers",
    ONNX: "onnxruntime",
    TORCH: "torch.export",
}


def write_card(
    source: Source,
    expected: Expected,
    exported: Exported,
    formats: Sequence[str],
    over: str,
    folder: Path,
) -> None:
    """Writes what goes with the files of an export.

    Args:
        source: the model.
        expected: of it; its first prompt begins the sample.
        exported: what was found while exporting.
        formats: of the files.
        over: what perplexities are over.
        folder: receives the card; a Hugging Face folder in it does as well.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        keep_trailing_newline=True,
    )
    about = source.about
    prompt = _question(source.config, expected.prompts[0][0])
    continuation = list(generate(source.model, prompt, SAMPLE_TOKENS, USUAL))
    whole, given = (source.tokenizer.decode(ids) for ids in ([*prompt, *continuation], prompt))
    card = partial(
        templates.get_template("card.md.j2").render,
        about=about,
        shape=_shape(source.config, source.model.parameter_count()),
        over=over,
        agreements=list(_agreements(exported)),
        sampling=(
            f"Sampled with temperature {USUAL.temperature}, top-k {USUAL.top_k}, top-p "
            f"{USUAL.top_p}, seed {USUAL.seed}"
        ),
        prompt=given,
        continuation=whole.removeprefix(given),
        fence=_fence(whole),
    )
    itself, *gguf = exported.files
    usual = _usual(gguf).file if gguf else None
    folders = {folder: (exported.files, formats, f"{about.name}-{HUGGING_FACE}")}
    if HUGGING_FACE in formats:
        folders[folder / f"{about.name}-{HUGGING_FACE}"] = ([itself], [HUGGING_FACE], ".")
    for there, (files, named, loaded) in folders.items():
        ways = list(_ways(about.name, _words(given), named, usual, loaded))
        front_matter = _front_matter(about, named)
        write_text(there / CARD, card(files=files, ways=ways, front_matter=front_matter))
    if gguf:
        modelfile = templates.get_template("Modelfile.j2").render(
            about=about,
            file=usual,
            context_length=source.config.context_length,
            sampling=USUAL,
            end=source.tokenizer.piece(source.tokenizer.eos),
        )
        write_text(folder / MODELFILE, modelfile)


def _usual(files: Sequence[FileRow]) -> FileRow:
    """The file to run: the finest quantised one, or the smallest."""
    size = attrgetter("bytes")
    quantised = [row for row in files if row.format not in WHOLE]
    return max(quantised, key=size) if quantised else min(files, key=size)


def _fence(text: str) -> str:
    """More of the marks that end a block of text than stand together in it."""
    return "~" * max(4, 1 + max(map(len, re.findall("~+", text)), default=0))


def _front_matter(about: About, formats: Sequence[str]) -> str:
    """What the Hugging Face Hub reads; its names of licences have small letters."""
    values: dict[str, Any] = {"pipeline_tag": "text-generation"}
    if HUGGING_FACE in formats:
        values["library_name"] = "transformers"
    if about.licence:
        values["license"] = about.licence.lower()
    values["tags"] = ["atlas", "text-generation"]
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text


def _shape(config: ModelConfig, parameters: int) -> dict[str, str]:
    """The hyperparameters in words."""
    heads = f"{config.n_head} of {config.head_size} channels, {config.n_kv_head} for keys"
    yes_or_no = {True: "yes", False: "no"}
    return {
        "parameters": f"{parameters:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.context_length:,} tokens",
        "blocks": str(config.n_layer),
        "width": str(config.d_model),
        "heads": heads,
        "feed-forward": f"{config.feed_forward}, {config.d_ff} channels",
        "positions": config.positions,
        "norm": f"{config.norm}, {config.norm_position}",
        "norm of queries and keys": config.qk_norm,
        "biases": yes_or_no[config.bias],
        "tied head": yes_or_no[config.tied_head],
    }


def _agreements(exported: Exported) -> Iterator[str]:
    """How near each runtime comes to PyTorch."""
    for name, runtime in RUNTIMES.items():
        key = "logit_difference" if name == "f32" else f"{name}_logit_difference"
        if key in exported.metrics:
            above = 1.05 * float(exported.metrics[key])  # so that rounding never goes below it
            yield f"logits of {runtime} differ from PyTorch's by at most {above:.1e}"


def _question(config: ModelConfig, ids: list[int]) -> list[int]:
    """What is asked, of a model that answers questions; else all."""
    if config.separator in ids:
        return ids[: ids.index(config.separator) + 1]
    return ids


def _words(prompt: str) -> str:
    """As much of a prompt as stands between quotes in any shell."""
    return re.sub(r"[^\w .,:+*/=-]", "", one_line(prompt))[:40].strip() or "The"


def _ways(
    name: str, prompt: str, formats: Sequence[str], gguf: str | None, loaded: str
) -> Iterator[tuple[str, str, str]]:
    """How to run the files: a title, the language of the lines, and the lines."""
    if gguf and gguf_formats(formats):
        told = "llama.cpp (`llama-cli` in builds before 2026)"
        yield told, "sh", f'llama-completion -no-cnv -m {gguf} -p "{prompt}"'
        yield "Ollama", "sh", f"ollama create {name} -f Modelfile && ollama run {name}"
    if HUGGING_FACE in formats:
        yield (
            "transformers",
            "python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{loaded}")\n'
            f'model = AutoModelForCausalLM.from_pretrained("{loaded}")\n'
            f'ids = tokenizer("{prompt}", return_tensors="pt")\n'
            "print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))",
        )
    if ONNX in formats:
        yield (
            "onnxruntime, whose inputs and outputs docs/export.md of Atlas describes",
            "python",
            f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{name}.onnx")',
        )
    if TORCH in formats:
        yield (
            "PyTorch, without the code of the model",
            "python",
            f'import torch\n\nmodule = torch.export.load("{name}.pt2").module()',
        )
