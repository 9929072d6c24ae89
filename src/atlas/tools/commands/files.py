"""``atlas export``, ``inspect`` and ``tokenize``: models and tokenizers as files."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from atlas.tools.commands.cli_utils import find_project, given_text


def export(
    model: Annotated[
        Path | None, typer.Argument(help="A folder that train wrote; else models/model.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(help="gguf:q8_0, gguf:q4_k_m ..., hugging_face, onnx, torch; again for more."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder to be made for the files; else NAME-export.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text it was not trained on, to check it by; the card shows its first words."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer's file or folder; else beside the model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model, and of its files.")] = None,
    author: Annotated[str, typer.Option(help="Who trained it.")] = "",
    license: Annotated[str, typer.Option(help="Of the weights, as apache-2.0.")] = "",
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    source: Annotated[str, typer.Option(help="Where it can be had.")] = "",
) -> None:
    """Write a model as GGUF and more, and check it in the runtimes that read it."""
    from atlas.export.bundle import ModelBundle
    from atlas.export.metadata import ModelMetadata
    from atlas.tools.export import export_to

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = model or find_project() / "models/model"
    called = name or ("atlas" if folder.resolve().name == "model" else folder.resolve().name)
    metadata = ModelMetadata(called, author, license, description, source)
    beside = (folder if folder.name else folder.absolute()).parent / "tokenizer"
    found = ModelBundle.load(folder, tokenizer or beside, metadata)
    export_to(out or Path(f"{called}-export"), found, to or ["gguf:q8_0"], text)


def inspect(file: Annotated[Path, typer.Argument(help="Any GGUF file.")]) -> None:
    """Print what is in a GGUF file: metadata, tokenizer, tensors."""
    from atlas.tools.inspect_gguf import print_gguf

    print_gguf(file)


def tokenize(
    text: Annotated[str, typer.Argument(help="The text to cut; - reads standard input.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer's file or folder; else models/tokenizer.")
    ] = None,
) -> None:
    """Print the pieces of a text and their ids."""
    from atlas.tokens.report import print_pieces
    from atlas.tokens.tokenizer import Tokenizer

    print_pieces(Tokenizer.load(tokenizer or find_project() / "models/tokenizer"), given_text(text))
