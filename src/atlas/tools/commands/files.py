"""``atlas export``, ``inspect`` and ``tokenize``: models and tokenizers as files."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from atlas.tools.commands.cli_utils import find_project, given_text


def export(
    model: Annotated[
        Path | None, typer.Argument(help="A model folder; default: models/model.")
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(help="gguf:q8_0, gguf:q4_k_m ..., hugging_face, onnx, torch; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to create for the files; default: NAME-export.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="Text to check the model on, not from its training data."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer file or folder; default: next to the model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model and its files.")] = None,
    author: Annotated[str, typer.Option(help="Who trained it.")] = "",
    license: Annotated[str, typer.Option(help="License of the weights, such as apache-2.0.")] = "",
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    source: Annotated[str, typer.Option(help="URL of the model or its source.")] = "",
) -> None:
    """Export a model to GGUF and other formats, and check each in its runtime."""
    from atlas.export.bundle import ModelBundle
    from atlas.export.metadata import ModelMetadata
    from atlas.tools.export import export_to

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = model or find_project() / "models/model"
    stem = name or ("atlas" if folder.resolve().name == "model" else folder.resolve().name)
    metadata = ModelMetadata(stem, author, license, description, source)
    beside = (folder if folder.name else folder.absolute()).parent / "tokenizer"
    bundle = ModelBundle.load(folder, tokenizer or beside, metadata)
    export_to(out or Path(f"{stem}-export"), bundle, to or ["gguf:q8_0"], text)


def inspect(file: Annotated[Path, typer.Argument(help="Any GGUF file.")]) -> None:
    """Print the contents of a GGUF file: metadata, tokenizer, tensors."""
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
