"""``atlas generate``, ``chat`` and ``serve``: text from a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from atlas.errors import AtlasError
from atlas.tools.commands.cli_utils import find_project, given_text

if TYPE_CHECKING:
    from atlas.inference.backends.base import LoadedModel
    from atlas.inference.backends.load import Engine
    from atlas.inference.sampling import Sampling

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
ModelPath = Annotated[
    Path | None,
    typer.Option(
        help="A folder that train wrote, a Hugging Face folder or a GGUF file; else models/model."
    ),
]
TokenizerPath = Annotated[
    Path | None, typer.Option(help="Of a folder that train wrote, if it is not beside it.")
]
Tokens = Annotated[int, typer.Option(min=1, help="The most tokens to add.")]
Temperature = Annotated[float | None, typer.Option(help="0 picks the likeliest token. [0.8]")]
TopK = Annotated[int | None, typer.Option(help="Among the k likeliest; 0 = all. [50]")]
TopP = Annotated[float | None, typer.Option(help="Among the fewest that reach p; 1 = all. [0.95]")]
MinP = Annotated[
    float | None, typer.Option(help="Among those p times as likely as the likeliest; 0 = all. [0]")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1: what is in the text is less likely again. [1]")
]
OnOverflow = Annotated[
    Literal["slide", "stop"],
    typer.Option(help="When the context is full: drop its older half and go on, or stop."),
]
EngineName = Annotated[
    Literal["auto", "llama.cpp", "torch"],
    typer.Option(
        help="auto: llama.cpp if the exported F32 file belongs to the model, else PyTorch."
    ),
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text. [1]")]


def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="The text to continue; - or none reads standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file with the text to continue.")] = None,
    tokens: Tokens = 200,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A text before which to end, \\n for a line end; again for more."),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="How many texts, with seeds that follow each other.")
    ] = 1,
    on_overflow: OnOverflow = "slide",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text.")] = False,
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Continue a prompt with the trained model, or with another one."""
    from atlas.tools.generate import Wanted, print_continuations

    sampling = _sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    text = _prompt(prompt, file)
    opened = _opened(model, tokenizer, engine)
    wanted = Wanted(tokens, [_unescaped(each) for each in stop or ()], count, on_overflow)
    print_continuations(opened, text, sampling, wanted, as_json=as_json)


def chat(
    tokens: Tokens = 200,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Talk with a model, line by line; /help lists what else can be typed."""
    from atlas.tools.chat import Chat, typed_lines

    sampling = _sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    opened = _opened(model, tokenizer, engine)
    print(f"{opened.name} ({opened.engine}); /help lists commands, Ctrl+D ends", file=sys.stderr)
    Chat(opened, sampling, tokens).run(typed_lines())


def serve(
    host: Annotated[str, typer.Option(help="127.0.0.1 is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    key: Annotated[
        str | None, typer.Option(help="API key that clients must send.", envvar="ATLAS_API_KEY")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Sequences generated at once.")] = 16,
    queue_size: Annotated[int, typer.Option(min=0, help="Sequences that may wait.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Limit of max_tokens in requests.")] = 4096,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one sequence.")] = 120,
    on_overflow: OnOverflow = "slide",
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Serve a model: a web page and an OpenAI-compatible API."""
    from atlas.tools.serve.app import serve as serve_model
    from atlas.tools.serve.engine import Limits

    if key == "":
        raise AtlasError("--key is empty; give a key, or omit the option")
    opened = _opened(model, tokenizer, engine)
    limits = Limits(slots, queue_size, generation_timeout=timeout, max_tokens=max_tokens)
    curves = None if model else find_project() / "metrics"
    serve_model(opened, host, port, limits, key=key, metrics_folder=curves, on_overflow=on_overflow)


def _opened(model: Path | None, tokenizer: Path | None, engine: "Engine") -> "LoadedModel":
    """The model that is named, or that of the project."""
    from atlas.inference.backends.load import load_model

    return load_model(model or find_project() / "models/model", tokenizer, engine)


def _sampling(*values: float | None) -> "Sampling":
    from atlas.tools.generate import sampling_of

    return sampling_of(dict(zip(SAMPLING, values, strict=True)))


def _unescaped(stop: str) -> str:
    """A stop string as it is typed: a shell hands a line end on as backslash and n."""
    if not stop:
        raise AtlasError("--stop is empty: give the text before which to end")
    parts = [part.replace("\\n", "\n").replace("\\t", "\t") for part in stop.split("\\\\")]
    return "\\".join(parts)


def _prompt(prompt: str | None, file: Path | None) -> str:
    """From the argument, a file or standard input; broken UTF-8 becomes U+FFFD."""
    if file is not None:
        if prompt is not None:
            raise AtlasError(f"--file {file}: there is a prompt beside it; give one of the two")
        return file.read_bytes().decode("utf-8", errors="replace").removesuffix("\n")
    if prompt is None and sys.stdin.isatty():
        raise AtlasError("there is no prompt: give one, --file, or text on standard input")
    if prompt in (None, "-"):
        return given_text("-").removesuffix("\n")  # of the last line, not of the prompt
    return given_text(prompt)
