"""Write the model card (README.md) and Ollama's Modelfile next to exported files."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atlas.errors import one_line
from atlas.export.bundle import ModelBundle, ModelMetadata
from atlas.inference.generate import generate
from atlas.inference.sampling import DEFAULT_SAMPLING
from atlas.params.runtime_support import HUGGING_FACE, UNQUANTIZED, gguf_formats
from atlas.pipeline.files import write_text
from atlas.pipeline.processes import threads

TEMPLATES = Path(__file__).parent / "templates"
CARD, MODELFILE = "README.md", "Modelfile"
SAMPLE_TOKENS = 100


@dataclass(frozen=True)
class FileRow:
    """A row of the table of files: the PyTorch model, or a GGUF file."""

    file: str
    format: str  # GGUF format, or ``pytorch``
    bytes: int
    bits_per_weight: float
    perplexity: float  # in the file's own runtime
    kl_divergence: float  # from the F32 file's predictions, nats per token
    top_1_agreement: float  # share of the positions where both find the same token most likely
    types: str  # of the matrices, most common first


def write_card(
    bundle: ModelBundle,
    *,
    formats: Sequence[str],
    files: Sequence[FileRow],
    metrics: Mapping[str, Any],
    speeds: Mapping[str, float],
    prompt: list[int],
    perplexity_data: str,
    folder: Path,
) -> None:
    """Write the card, a copy for the Hugging Face folder, and a Modelfile for GGUF files.

    ``files`` are the PyTorch model, then the GGUF files; ``speeds`` of these may be empty. The card
    has a sample that begins with ``prompt`` and names the text that perplexities are computed over,
    ``perplexity_data``.
    """
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        keep_trailing_newline=True,
    )
    metadata = bundle.metadata
    if bundle.config.separator in prompt:  # keep the question alone
        prompt = prompt[: prompt.index(bundle.config.separator) + 1]
    continuation = generate(bundle.model, prompt, SAMPLE_TOKENS, DEFAULT_SAMPLING)
    prompt_text = bundle.tokenizer.decode(prompt)
    text = bundle.tokenizer.decode([*prompt, *continuation])
    render_card = partial(
        templates.get_template("card.md.j2").render,
        metadata=metadata,
        config=bundle.config,
        parameters=bundle.model.parameter_count(),
        perplexity_data=perplexity_data,
        metrics=metrics,
        speeds=speeds,
        threads=threads(),
        sampling=DEFAULT_SAMPLING,
        chats=bundle.chats,
        prompt=prompt_text,
        shell_prompt=_shell_words(prompt_text),
        continuation=text.removeprefix(prompt_text),
        fence="~" * max(4, 1 + max(map(len, re.findall("~+", text)), default=0)),
    )
    pytorch, *gguf = files
    recommended = _recommended(gguf).file if gguf else None
    hugging_face = f"{metadata.name}-{HUGGING_FACE}"
    cards = {folder: (files, formats, hugging_face)}
    if HUGGING_FACE in formats:
        cards[folder / hugging_face] = ([pytorch], [HUGGING_FACE], ".")
    for target, (rows, included, load_path) in cards.items():
        card = render_card(
            files=rows,
            front_matter=_front_matter(metadata, included),
            formats=included,
            gguf=recommended if gguf_formats(included) else None,
            load_path=load_path,
        )
        write_text(target / CARD, card)
        for licence in sorted(bundle.folder.glob("LICENSE*")):  # of the base
            shutil.copyfile(licence, target / licence.name)
    if recommended:
        modelfile = templates.get_template("Modelfile.j2").render(
            metadata=metadata,
            file=recommended,
            context_length=bundle.config.context_length,
            sampling=DEFAULT_SAMPLING,
            ends=[bundle.tokenizer.piece(each) for each in sorted(bundle.tokenizer.end_ids)],
            chats=bundle.chats,
        )
        write_text(folder / MODELFILE, modelfile)


def _recommended(files: Sequence[FileRow]) -> FileRow:
    """The file to run: the largest quantized one, or the smallest if none is quantized."""
    size = attrgetter("bytes")
    quantized = [row for row in files if row.format not in UNQUANTIZED]
    return max(quantized, key=size) if quantized else min(files, key=size)


def _front_matter(metadata: ModelMetadata, formats: Sequence[str]) -> str:
    """YAML for the Hugging Face Hub, which writes licences in lower case."""
    values = {
        "pipeline_tag": "text-generation",
        "library_name": "transformers" if HUGGING_FACE in formats else None,
        "license": metadata.license and metadata.license.lower(),
        "tags": ["atlas", "text-generation"],
    }
    stated = {key: value for key, value in values.items() if value}
    return str(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True))


def _shell_words(prompt: str) -> str:
    """The beginning of a prompt, reduced to characters that are safe in quotes in any shell."""
    return re.sub(r"[^\w .,:+*/=-]", "", one_line(prompt))[:40].strip() or "The"
