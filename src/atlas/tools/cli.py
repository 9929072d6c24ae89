"""The command line: ``atlas generate``, ``chat``, ``export``, ``show`` and more."""

import io
import sys

import typer

from atlas.errors import one_line_errors
from atlas.tools.commands import files, project, study, use

app = typer.Typer(
    help="Your own small language model: generate text, choose presets, show results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    use.generate,
    use.chat,
    use.serve,
    files.export,
    files.inspect,
    files.tokenize,
    project.model,
    project.overfit_batch,
    project.overfit_examples,
    project.gradients,
    project.preset,
    study.study,
    project.show,
    project.report,
    project.offline_plots,
):
    app.command()(command)


def run() -> None:
    """The console command."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack letters of a text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with one_line_errors():
            app()
    except SystemExit as end:
        if end.code and sys.argv[1:2] == ["preset"] and not sys.stdout.isatty():
            # Inside $(...) the exit code is lost: make the command around it fail as well.
            print("the-preset-was-refused")  # which DVC takes for a target, and does not find
        raise
    except BrokenPipeError:  # as of `| head`: nobody reads on
        sys.stderr.close()
