"""The command line: ``atlas generate``, ``tokenize``, ``export``, ``inspect``, ``show`` and more.

Heavy imports stand inside the commands, so that the light ones answer at once.
"""

import math
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from atlas.errors import AtlasError, one_line_errors

app = typer.Typer(
    help="Your own small language model: generate text, choose presets, show results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """The console command."""
    try:
        with one_line_errors():
            app()
    except SystemExit as end:
        if end.code and sys.argv[1:2] == ["preset"] and not sys.stdout.isatty():
            # Inside $(...) the exit code is lost: make the command around it fail as well.
            print("the-preset-was-refused")  # which DVC takes for a target, and does not find
        raise


def find_project() -> Path:
    """The project around the current folder.

    Raises:
        AtlasError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise AtlasError(f"{here}: not inside an Atlas project (no params.yaml and dvc.yaml above it)")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads standard input.")],
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, help="0 picks the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Among the k likeliest; 0 = all.")] = 50,
    top_p: Annotated[float, typer.Option(help="Among the fewest that reach p; 1 = all.")] = 0.95,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same text.")
    ] = 1,
    model: Annotated[
        Path | None, typer.Option(help="A folder that train wrote; else models/model.")
    ] = None,
) -> None:
    """Continue a prompt with the trained model."""
    if not 0 < top_p <= 1:
        raise AtlasError(f"--top-p is {top_p:g}: give a number above 0 and up to 1")
    if not math.isfinite(temperature):
        raise AtlasError(f"--temperature is {temperature}: give a finite number, 0 or more")
    from atlas.generation.generate import Sampling
    from atlas.generation.generate import generate as generate_ids
    from atlas.model.device import choose_device
    from atlas.model.storage import check_tokenizer, load_model
    from atlas.tokens.tokenizer import Tokenizer

    folder = model or find_project() / "models/model"
    decoder = load_model(folder, choose_device())
    tokenizer = Tokenizer.load(folder.parent / "tokenizer")
    check_tokenizer(decoder.config, tokenizer.sha256, str(folder.parent / "tokenizer"))
    ids = tokenizer.encode(_given_text(prompt))
    if len(ids) > decoder.config.context_length:
        length = decoder.config.context_length
        print(f"note: of {len(ids)} tokens the model sees the last {length}", file=sys.stderr)
    shown = ""
    sampling = Sampling(temperature, top_k, top_p, seed)
    for token in generate_ids(decoder, ids, tokens, sampling):
        ids.append(token)
        whole = tokenizer.decode(ids)
        if not whole.endswith("\ufffd"):  # a character may come in several tokens
            print(whole[len(shown) :], end="", flush=True)
            shown = whole
    print(tokenizer.decode(ids)[len(shown) :])


@app.command()
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
    licence: Annotated[str, typer.Option(help="Of the weights, as apache-2.0.")] = "",
    description: Annotated[str, typer.Option(help="One sentence.")] = "",
    source: Annotated[str, typer.Option(help="Where it can be had.")] = "",
) -> None:
    """Write a model as GGUF and more, and check it in the runtimes that read it."""
    from atlas.export.about import About
    from atlas.export.command import export_to
    from atlas.export.source import Source

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = model or find_project() / "models/model"
    called = name or ("atlas" if folder.resolve().name == "model" else folder.resolve().name)
    about = About(called, author, licence, description, source)
    found = Source.load(folder, tokenizer or folder.parent / "tokenizer", about)
    export_to(out or Path(f"{called}-export"), found, to or ["gguf:q8_0"], text)


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="Any GGUF file.")]) -> None:
    """Print what is in a GGUF file: metadata, tokenizer, tensors."""
    from atlas.export.gguf.inspect import print_gguf

    print_gguf(file)


@app.command()
def tokenize(
    text: Annotated[str, typer.Argument(help="The text to cut; - reads standard input.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer's file or folder; else models/tokenizer.")
    ] = None,
) -> None:
    """Print the pieces of a text and their ids."""
    from atlas.tokens.pieces import print_pieces
    from atlas.tokens.tokenizer import Tokenizer

    print_pieces(
        Tokenizer.load(tokenizer or find_project() / "models/tokenizer"), _given_text(text)
    )


@app.command()
def model(
    presets: Annotated[
        list[str] | None, typer.Argument(help="Presets to look at; else params.yaml as it is.")
    ] = None,
) -> None:
    """Print the size of the model that params.yaml describes: weights, operations, memory."""
    from atlas.model.summary import print_summary
    from atlas.presets import with_presets

    print_summary(with_presets(find_project(), presets or []))


@app.command()
def overfit_batch(
    steps: Annotated[int, typer.Option(min=1, help="After which it is given up.")] = 500,
) -> None:
    """Learn one batch by heart: a sound model can."""
    _overfit(None, steps)


@app.command()
def overfit_examples(
    count: Annotated[int, typer.Argument(min=1, help="How many windows.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="After which it is given up.")] = 1000,
) -> None:
    """Learn ten examples by heart, windows of the training text."""
    _overfit(count, steps)


@app.command()
def gradients() -> None:
    """Print what gradient reaches each weight of a new model, and what looks wrong."""
    from atlas.params import load_params
    from atlas.training.sanity import gradient_flow, print_flow

    root = find_project()
    print_flow(gradient_flow(load_params(root / "params.yaml"), root / "data/tokens"))


def _overfit(windows: int | None, steps: int) -> None:
    """Learns so many windows by heart, or a batch."""
    from atlas.params import load_params
    from atlas.training.sanity import overfit

    root = find_project()
    params = load_params(root / "params.yaml")
    taken = overfit(params, root / "data/tokens", windows or params.train.batch_size, steps)
    print(f"learned by heart in {taken} steps")


@app.command()
def preset(
    names: Annotated[list[str], typer.Argument(help="One or more; a later one wins.")],
    apply: Annotated[bool, typer.Option("--apply", help="Write into params.yaml.")] = False,
) -> None:
    """Print presets as flags for `dvc exp run`, or write them into params.yaml.

    dvc exp run $(atlas preset small) -S train.lr=3e-4
    """
    from atlas import presets

    root = find_project()
    values = presets.overlay(root, names)
    if not apply:
        print(presets.as_flags(values))
        return
    changes = presets.apply(root, values)
    print("\n".join(f"params.yaml: {change}" for change in changes) or "params.yaml: no change")


def _given_text(argument: str) -> str:
    """A text from the command line or from standard input; broken UTF-8 becomes U+FFFD."""
    given = sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
    return given.decode("utf-8", errors="replace")


@app.command()
def show() -> None:
    """Print the metrics of the last run and its samples."""
    from atlas.show import print_results

    os.chdir(find_project())
    print_results(Path("metrics"))
