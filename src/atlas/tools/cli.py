"""The command line. ``atlas --help`` lists the commands.

Each command imports what it needs when it runs, so that help and errors appear immediately.
"""

import functools
import inspect
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option, Typer

from atlas.errors import AtlasError, one_line_errors

if TYPE_CHECKING:
    from atlas.inference.backends.base import LoadedModel
    from atlas.inference.backends.load import Engine
    from atlas.params.schema import Params

PRESET_REFUSED = "the-preset-was-refused"
SAMPLING_OPTIONS: dict[str, tuple[type, str]] = {  # fields of Sampling, with their defaults
    "temperature": (float, "0 picks the most likely token. [0.8]"),
    "top_k": (int, "Sample among the k most likely tokens; 0 = all. [50]"),
    "top_p": (float, "Sample among the fewest tokens that reach probability p; 1 = all. [0.95]"),
    "min_p": (float, "Sample among tokens p times as likely as the best; 0 = all. [0]"),
    "repetition_penalty": (float, "Above 1: make tokens already in the text less likely. [1]"),
    "seed": (int, "The same seed gives the same text. [1]"),
}
MODEL, TOKENIZER, BASE = "models/model", "models/tokenizer", "models/base"  # in the project
ModelPath = Annotated[
    Path | None,
    Option(help="Folder that train wrote, Hugging Face folder or GGUF file.", show_default=MODEL),
]
TokenizerPath = Annotated[Path | None, Option(help="Default: next to the model's folder.")]
EngineName = Annotated[
    Literal["auto", "llama.cpp", "torch"],
    Option(help="auto: llama.cpp if the model's exported F32 file is current, else PyTorch."),
]
OnOverflow = Annotated[
    Literal["slide", "stop"],
    Option(help="When the context is full: drop its older half and go on, or stop."),
]
MaxTokens = Annotated[int, Option(min=1, help="Max tokens to generate.")]
MaxSteps = Annotated[int, Option("--steps", min=1, help="Max optimizer steps.")]

app = Typer(
    help="Train, inspect and run your own small language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the console command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack characters of a text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            with one_line_errors():
                app()
        except SystemExit as end:
            if end.code and sys.argv[1:2] == ["preset"] and not sys.stdout.isatty():
                # `dvc exp run $(atlas preset ...)` ignores the exit code but fails on this target.
                print(PRESET_REFUSED)
            raise
        finally:
            sys.stdout.flush()  # here, so that a closed pipe is noticed
    except BrokenPipeError:  # the reader has closed the pipe, such as `| head`
        sys.stderr.close()


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter ``sampling`` of a command by one option per sampling field."""
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    sampling = parameters.pop("sampling")
    types: dict[str, Any] = {
        name: Annotated[kind | None, Option(help=text)]
        for name, (kind, text) in SAMPLING_OPTIONS.items()
    }
    options = [sampling.replace(name=n, default=None, annotation=t) for n, t in types.items()]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        from atlas.tools.chat import update_sampling

        sampling = update_sampling({name: values.pop(name) for name in SAMPLING_OPTIONS})
        command(**values, sampling=sampling)

    signature = inspect.Signature([*options, *parameters.values()])
    vars(with_options)["__signature__"] = signature
    with_options.__annotations__ = {n: each.annotation for n, each in signature.parameters.items()}
    return with_options


# Run a model


@app.command()
@sampling_options
def generate(
    sampling: Any,
    prompt: Annotated[str | None, Argument(help="Text; - or none reads standard input.")] = None,
    file: Annotated[Path | None, Option(help="File with the text to continue.")] = None,
    tokens: MaxTokens = 200,
    stop: Annotated[
        list[str] | None,
        Option(help="Text to stop before; \\n is a line end. Repeatable."),
    ] = None,
    count: Annotated[int, Option(min=1, help="Number of texts, with consecutive seeds.")] = 1,
    on_overflow: OnOverflow = "slide",
    as_json: Annotated[bool, Option("--json", help="Print a JSON line per text.")] = False,
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Continue a prompt with the trained model or another one."""
    from atlas.inference.batch import TokenSequence
    from atlas.tools.chat import warn_if_truncated
    from atlas.tools.console import show_text

    text = _read_prompt(prompt, file)
    stops = [_unescape(each) for each in stop or ()]
    loaded = _load_model(model, tokenizer, engine)
    ids = loaded.encode(text)
    warn_if_truncated(loaded, ids)
    for seed in range(sampling.seed, sampling.seed + count):
        sequence = TokenSequence(ids, tokens, sampling.model_copy(update={"seed": seed}))
        parts = loaded.stream(sequence, stops, on_overflow)
        if as_json:
            result = {
                "prompt": text,
                "text": "".join(parts),
                "tokens": len(sequence.output_ids),
                "finish_reason": sequence.finish_reason,
                "seed": seed,
            }
            show_text(json.dumps(result, ensure_ascii=False))
            continue
        show_text(f"--- seed {seed}\n{text}" if count > 1 else text, end="")
        for part in parts:
            show_text(part, end="")
        print()


@app.command()
@sampling_options
def chat(
    sampling: Any,
    tokens: MaxTokens = 200,
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Chat with a model, line by line; /help lists the commands."""
    from atlas.tools.chat import Chat, read_lines
    from atlas.tools.console import printable

    loaded = _load_model(model, tokenizer, engine)
    name = printable(loaded.name)
    print(f"{name} ({loaded.engine}); /help lists commands, Ctrl+D ends", file=sys.stderr)
    Chat(loaded, sampling, tokens).run(read_lines())


@app.command()
def serve(
    host: Annotated[str, Option(help="127.0.0.1 is this machine only.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 picks a free port.")] = 8000,
    key: Annotated[
        str | None, Option(help="API key that clients must send.", envvar="ATLAS_API_KEY")
    ] = None,
    slots: Annotated[int, Option(min=1, help="Sequences generated at once.")] = 16,
    queue_size: Annotated[int, Option(min=0, help="Sequences that may wait.")] = 64,
    max_tokens: Annotated[int, Option(min=1, help="Largest max_tokens of a request.")] = 4096,
    timeout: Annotated[float, Option(min=0.1, help="Max seconds per sequence.")] = 120,
    on_overflow: OnOverflow = "slide",
    engine: EngineName = "auto",
    model: ModelPath = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Serve a model: a web page and an OpenAI-compatible API."""
    from atlas.tools.serve.app import serve as serve_model
    from atlas.tools.serve.engine import ServerOptions
    from atlas.tools.serve.project import example_prompts, find_training_project

    if key is not None and not key.strip():
        raise AtlasError("--key is empty; give a key, or omit the option")
    if key and not (key.isascii() and key.strip().isprintable()):
        raise AtlasError("--key: use ASCII letters, digits and signs; HTTP headers hold no others")
    loaded = _load_model(model, tokenizer, engine)
    project = find_training_project(model or find_project() / MODEL)
    options = ServerOptions(
        key=key,
        metrics_folder=project and project / "metrics",
        examples=example_prompts(project, loaded) if project else (),
        on_overflow=on_overflow,
        slots=slots,
        queue_size=queue_size,
        generation_timeout=timeout,
        max_tokens=max_tokens,
    )
    serve_model(loaded, host, port, options)


# Models and tokenizers as files


@app.command("import")
def import_base(
    source: Annotated[
        Path, Argument(help="Hugging Face folder, GGUF file, or folder that train wrote.")
    ],
    out: Annotated[Path | None, Option(help="Folder of the base model.", show_default=BASE)] = None,
    context_length: Annotated[
        int | None,
        Option(min=2, help="At most as trained.", show_default="as trained, at most 8192"),
    ] = None,
    tokenizer: Annotated[
        Path | None, Option(help="Tokenizer file or folder, if it is not in SOURCE.")
    ] = None,
) -> None:
    """Turn a model from elsewhere into a base model to fine-tune, checked in its own runtime.

    It replaces an earlier base model. `atlas preset base --apply` then starts training from it.
    """
    from atlas.tools.importing import import_model

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = find_project()
    target = out or root / BASE
    import_model(source, target, root, tokenizer=tokenizer, context_length=context_length)


@app.command()
def export(
    model: Annotated[
        Path | None,
        Argument(
            help="Folder that train wrote, Hugging Face folder or GGUF file.", show_default=MODEL
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        Option(help="gguf:q8_0, gguf:q4_k_m, ..., hugging_face, onnx, torch. Repeatable."),
    ] = None,
    out: Annotated[Path | None, Option(help="New folder.", show_default="NAME-export")] = None,
    text: Annotated[Path | None, Option(help="Text for the check, unseen in training.")] = None,
    tokenizer: TokenizerPath = None,
    name: Annotated[str | None, Option(help="Name of the model and its files.")] = None,
    author: Annotated[str, Option(help="Who trained it.")] = "",
    license: Annotated[str, Option(help="License of the weights, such as mit.")] = "",
    description: Annotated[str, Option(help="One sentence about the model.")] = "",
    source: Annotated[str, Option(help="URL of the model.")] = "",
) -> None:
    """Export a model to GGUF and other formats, and check each in its runtime."""
    from atlas.tools.export import export_source

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    values = {
        "name": name or "",
        "author": author,
        "license": license,
        "description": description,
        "source": source,
    }
    path = model or _model_path(None)
    export_source(path, out, to or ["gguf:q8_0"], text, tokenizer, values)


@app.command("inspect")
def inspect_file(file: Annotated[Path, Argument(help="Any GGUF file.")]) -> None:
    """Print the contents of a GGUF file: metadata, tokenizer, tensors."""
    from atlas.tools.inspection import print_gguf

    print_gguf(file)


@app.command()
def tokenize(
    text: Annotated[str, Argument(help="Text to encode; - reads standard input.")],
    tokenizer: Annotated[
        Path | None, Option(help="Tokenizer file or folder.", show_default=TOKENIZER)
    ] = None,
) -> None:
    """Print the tokens of a text with their ids."""
    from atlas.tokens.report import print_pieces
    from atlas.tokens.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer or find_project() / TOKENIZER)
    print_pieces(loaded, _read_text(text))


# The project


@app.command()
def model(
    presets: Annotated[
        list[str] | None, Argument(help="Presets to apply on top of params.yaml.")
    ] = None,
) -> None:
    """Print weights, operations and memory of the model that params.yaml describes."""
    from atlas.tools.inspection import print_summary

    print_summary(find_project(), presets or [])


@app.command()
def overfit_batch(steps: MaxSteps = 500) -> None:
    """Check that a new model can memorize one batch."""
    from atlas.tools.sanity import overfit

    params, tokens = _load_training_data()
    overfit(params, tokens, params.train.batch_size, steps)


@app.command()
def overfit_examples(
    count: Annotated[int, Argument(min=1, help="Number of windows.")] = 10,
    steps: MaxSteps = 1000,
) -> None:
    """Check that a new model can memorize a few windows of the training text."""
    from atlas.tools.sanity import overfit

    overfit(*_load_training_data(), count, steps)


@app.command()
def gradients() -> None:
    """Print the gradient of each weight of a new model, and warn about unusual ones."""
    from atlas.tools.sanity import gradient_flow, print_flow

    print_flow(gradient_flow(*_load_training_data()))


@app.command()
def preset(
    names: Annotated[
        list[str] | None, Argument(help="One or more; later ones win. Omit to list them.")
    ] = None,
    apply: Annotated[bool, Option("--apply", help="Write into params.yaml.")] = False,
    quoted: Annotated[
        bool, Option("--quoted", help='For eval "dvc exp run $(atlas preset --quoted ...)".')
    ] = False,
) -> None:
    """Print presets as flags for `dvc exp run`, or write them into params.yaml.

    dvc exp run $(atlas preset small) -S train.lr=3e-4

    They start from the committed params.yaml; what else was changed is set back, and named.
    """
    from atlas.params import presets
    from atlas.pipeline.files import write_text
    from atlas.tools.console import print_table

    root = find_project()
    if not names:
        print_table(("preset", "what it is"), presets.described(root))
        return
    changes = presets.changes(root, names)
    values = {change.key: change.new for change in changes}
    if apply:
        if changes:
            write_text(root / presets.PARAMS, presets.apply(root, values))
        print("\n".join(map(str, changes)) or f"{presets.PARAMS}: no change")
        return
    print(presets.as_flags(values, quoted=quoted))
    for change in changes:
        if change.is_edited:
            print(change, file=sys.stderr)


@app.command()
def study(
    name: Annotated[
        str | None, Argument(help="A file in studies/, without .yaml. Omit to list them.")
    ] = None,
    table: Annotated[
        bool, Option("--table", help="Run nothing; only write the results so far.")
    ] = False,
) -> None:
    """Run the missing experiments of a study; write its table and plot to docs/studies/."""
    from atlas.tools.studies.run import list_studies, run_study, write_study

    root = find_project()
    os.chdir(root)
    if name is None:
        list_studies(root)
    elif table:
        write_study(root, name)
    else:
        run_study(root, name)


@app.command()
def show(
    everything: Annotated[bool, Option("--all", help="Print every metric and sample.")] = False,
) -> None:
    """Print the main metrics of the last run, samples, and what to try next."""
    from atlas.tools.report.tables import print_results, print_summary

    root = find_project()
    if everything:
        print_results(root)
    else:
        print_summary(root)


@app.command()
def report() -> None:
    """Write metrics/report.html, an offline page about the last run."""
    from atlas.tools.report.page import write_report

    print(write_report(find_project()).as_uri())


@app.command()
def offline_plots() -> None:
    """Make `dvc plots` work without a network in this clone."""
    from atlas.tools.report.page import write_offline_plots

    print(write_offline_plots(find_project()))


def find_project() -> Path:
    """The project around the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise AtlasError(f"{here}: not inside an Atlas project (no params.yaml and dvc.yaml above it)")


def _load_model(path: Path | None, tokenizer: Path | None, engine: "Engine") -> "LoadedModel":
    from atlas.inference.backends.load import load_model

    return load_model(_model_path(path, "--model "), tokenizer, engine)


def _model_path(path: Path | None, option: str = "") -> Path:
    """The path the user gave, or that of the project's model."""
    found = path or find_project() / MODEL
    if not found.exists():
        reason = "no such file or folder" if path else "no model yet; run `dvc repro`"
        raise AtlasError(f"{option if path else ''}{path or MODEL}: {reason}")
    return found


def _load_training_data() -> "tuple[Params, Path]":
    """The params of the project and the folder with its tokens."""
    from atlas.params.schema import load_params

    root = find_project()
    return load_params(root / "params.yaml"), root / "data/tokens"


def _unescape(stop: str) -> str:
    r"""Unescape a stop string: shells pass ``\n`` as two characters."""
    if not stop:
        raise AtlasError("--stop is empty; give the text to stop before")
    parts = [part.replace("\\n", "\n").replace("\\t", "\t") for part in stop.split("\\\\")]
    return "\\".join(parts)


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from the argument, a file or standard input."""
    if file is not None:
        if prompt is not None:
            raise AtlasError(f"--file {file}: there is also a prompt; use only one of them")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise AtlasError(f"--file {file}: {error.strerror}") from None
        return data.decode("utf-8", errors="replace").removesuffix("\n")
    if prompt is None and sys.stdin.isatty():
        raise AtlasError("there is no prompt; pass one, --file, or text on standard input")
    if prompt in (None, "-"):
        return _read_text("-").removesuffix("\n")  # ends the last line, not the prompt
    return _read_text(prompt)


def _read_text(argument: str) -> str:
    """A text from an argument, or from standard input for ``-``; invalid UTF-8 becomes U+FFFD."""
    data = sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
    return data.decode("utf-8", errors="replace")
