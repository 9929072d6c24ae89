"""Text of a model or a file can't control the terminal; a pipe gets it as it is."""

import io
import logging
from contextlib import redirect_stdout

import pytest

from atlas.errors import AtlasError, configure_logging, escape_controls, one_line_errors
from atlas.tools.chat import Chat
from atlas.tools.console import print_table, show_text

CONTROLS = "\x1b]0;title\x07 \x9b31m \u202eback \u2066 \u200f \r \x08 \x7f \x00"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "pipe"])
def stdout(request):
    return request.param()


def test_controls_are_escaped_and_text_is_kept():
    escaped = escape_controls(f"é\n\t😀 👨\u200d👩 \ud800{CONTROLS}")
    assert escaped.startswith("é\n\t😀 👨\u200d👩 \\ud800\\x1b]0;title\\x07 \\x9b31m \\u202eback")
    assert all(each.isprintable() or each in "\n\t\u200d" for each in escaped)


def test_each_part_of_a_stream_is_escaped_on_a_terminal_alone(stdout):
    parts = ["one\n\t\x1b", "]0;x\x07", "\u202e two"]
    with redirect_stdout(stdout):
        for part in parts:
            show_text(part, end="")
    expected = "one\n\t\\x1b]0;x\\x07\\u202e two" if stdout.isatty() else "".join(parts)
    assert stdout.getvalue() == expected


class Hostile:
    """A model that answers with control characters."""

    context_length = 100

    def encode_chat(self, _messages):
        return [1]

    def stream(self, _sequence):
        yield from ("hello \x1b", "]0;x\x07", "\x9b2J")


def test_answers_and_the_history_of_a_chat_are_escaped(stdout):
    chat = Chat(Hostile(), sampling=_Seed(), max_tokens=4)
    with redirect_stdout(stdout):
        chat.handle("hi")
        chat.handle("/history")
    printed = stdout.getvalue()
    assert ("\x1b" in printed) == (not stdout.isatty())
    assert ("hello \\x1b]0;x\\x07\\x9b2J" in printed) == stdout.isatty()
    assert chat.messages[-1]["content"] == "hello \x1b]0;x\x07\x9b2J"


class _Seed:
    seed = 1

    def model_copy(self, update):
        return self


def test_tables_never_hold_controls(stdout):
    with redirect_stdout(stdout):
        print_table(("name",), [[CONTROLS]])
    assert "\\x1b]0;title\\x07" in stdout.getvalue()
    assert not set(stdout.getvalue()) & set("\x07\x9b\u202e\x08\x00")


def test_errors_and_warnings_are_escaped(capsys):
    configure_logging()
    logging.getLogger("atlas.test").warning("%s", CONTROLS)
    with pytest.raises(SystemExit), one_line_errors():
        raise AtlasError(f"{CONTROLS}: damaged")
    error = capsys.readouterr().err
    assert "\\x1b]0;title\\x07" in error
    assert not set(error) & set("\x1b\x07\x9b\u202e\x08\x00\r")
