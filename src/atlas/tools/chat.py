"""``atlas chat``: a conversation on the terminal."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from atlas.errors import AtlasError
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling
from atlas.tools.console import printable
from atlas.tools.generate import note_what_is_cut, option, print_as_it_comes, sampling_of

NUMBERS = {
    name: field
    for name, field in Sampling.model_fields.items()
    if name != "logit_bias"  # all that is set by one number
}
HELP = {
    "/help": "this list",
    "/reset": "forget the conversation",
    "/retry": "answer the last message again, with the next seed",
    "/undo": "forget the last message and its answer",
    "/history": "print the conversation",
    "/system TEXT": "how the model should behave; only a model with a chat template heeds it",
    "/tokens N": "the most tokens of an answer",
    "/options": "print how tokens are picked",
    "/quit": "end (also Ctrl+D); Ctrl+C ends an answer",
}


class Chat:
    """A conversation and how answers are written.

    Attributes:
        messages: so far, with ``role`` and ``content``.
        sampling: how tokens are picked; its seed is that of the next answer.
        most_tokens: of an answer.
    """

    def __init__(self, opened: LoadedModel, sampling: Sampling, most_tokens: int) -> None:
        self.messages: list[dict[str, str]] = []
        self.sampling = sampling
        self.most_tokens = most_tokens
        self._opened = opened
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: print(help_text()),
            "/reset": self._reset,
            "/retry": self._retry,
            "/undo": self._undo,
            "/history": self._print_history,
            "/system": self._set_system,
            "/tokens": self._set_tokens,
            "/options": self._print_options,
        }

    def run(self, lines: Iterator[str]) -> None:
        """Answers lines until they end or one says ``/quit``; errors are printed."""
        for line in lines:
            if line.strip() == "/quit":
                return
            try:
                self.take(line)
            except AtlasError as error:
                print(error, file=sys.stderr)

    def take(self, line: str) -> None:
        """Does what a line says, or answers it.

        Raises:
            AtlasError: it is no command, or can't be done.
        """
        if not line.startswith("/"):
            if line.strip():
                self._say(line)
            return
        name, _, rest = line.strip().partition(" ")
        numbers = {option(each, "/"): each for each in NUMBERS}
        if name in self._commands:
            self._commands[name](rest.strip())
        elif name in numbers:
            self._set_number(numbers[name], rest.strip())
        else:
            raise AtlasError(f"{printable(name)}: no such command; /help lists them")

    def _say(self, content: str) -> None:
        self.messages.append({"role": "user", "content": content})
        try:
            self._answer()
        except AtlasError:
            self.messages.pop()
            raise

    def _answer(self) -> None:
        """Writes an answer to the messages; what came before Ctrl+C counts."""
        ids = self._opened.encode_chat(self.messages)
        note_what_is_cut(self._opened, ids)
        text = TokenSequence(ids, self.most_tokens, self.sampling)
        came: list[str] = []
        try:
            print_as_it_comes(_kept(self._opened.stream(text), came))
        except KeyboardInterrupt:
            print(" [stopped]")
        self.messages.append({"role": "assistant", "content": "".join(came)})
        self.sampling = self.sampling.model_copy(update={"seed": self.sampling.seed + 1})

    def _reset(self, _: str) -> None:
        self.messages = [each for each in self.messages if each["role"] == "system"]

    def _undo(self, _: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise AtlasError("/undo: nothing was said yet")
        del self.messages[-2:]

    def _retry(self, _: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise AtlasError("/retry: nothing was said yet")
        before = self.messages.pop()
        try:
            self._answer()
        except AtlasError:
            self.messages.append(before)
            raise

    def _print_history(self, _: str) -> None:
        for message in self.messages:
            print(f"{message['role']}: {message['content']}")

    def _set_system(self, content: str) -> None:
        self.messages = [each for each in self.messages if each["role"] != "system"]
        if content:
            self.messages.insert(0, {"role": "system", "content": content})

    def _set_tokens(self, value: str) -> None:
        if not value.isdecimal() or not int(value):
            raise AtlasError(f"/tokens {printable(value)}: give a number, 1 or more")
        self.most_tokens = int(value)

    def _set_number(self, name: str, value: str) -> None:
        if not value:
            print(self._described(name))
            return
        given: dict[str, Any] = {name: printable(value)}
        self.sampling = sampling_of(given, self.sampling, prefix="/")

    def _print_options(self, _: str) -> None:
        for name in NUMBERS:
            print(self._described(name))
        print(f"/tokens {self.most_tokens}")

    def _described(self, name: str) -> str:
        value = getattr(self.sampling, name)
        return f"{option(name, '/')} {value if isinstance(value, int) else f'{value:g}'}"


def help_text() -> str:
    """All commands, a line each."""
    width = max(map(len, HELP)) + 2
    lines = [f"{command:<{width}}{meaning}" for command, meaning in HELP.items()]
    numbers = " ".join(option(name, "/") for name in NUMBERS)
    return "\n".join([*lines, f"{numbers}: print or set, as /temperature 0.5"])


def typed_lines() -> Iterator[str]:
    """Lines from the terminal, with a prompt and a history, or from a pipe without."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401 - input() then knows arrow keys and history

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl+D ends)")


def _kept(parts: Iterator[str], came: list[str]) -> Iterator[str]:
    for part in parts:
        came.append(part)
        yield part
