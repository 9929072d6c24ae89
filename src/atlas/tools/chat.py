"""``atlas chat``: a conversation on the terminal, and the options it shares with generate."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from atlas.errors import AtlasError, escape_controls, one_line
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import DEFAULT_SAMPLING, Sampling
from atlas.tools.console import printable, show_text

logger = logging.getLogger(__name__)


def option_name(field: str, prefix: str) -> str:
    """The option for a field of ``Sampling``: ``--top-p``, or ``/top-p`` in a chat."""
    return prefix + field.replace("_", "-")


SETTINGS = {  # fields with one number, by option
    option_name(field, "/"): field for field in Sampling.model_fields if field != "logit_bias"
}


def update_sampling(
    values: dict[str, Any], base: Sampling = DEFAULT_SAMPLING, prefix: str = "--"
) -> Sampling:
    """Change the sampling options that are not None; errors name the option with its prefix."""
    changes = {name: value for name, value in values.items() if value is not None}
    try:
        return Sampling.model_validate(base.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        name, allowed = str(first["loc"][0]), first["msg"].removeprefix("Input should be ")
        raise AtlasError(
            f"{option_name(name, prefix)} is {first['input']}: it must be {allowed}"
        ) from None


def warn_if_truncated(model: LoadedModel, ids: Sequence[int]) -> None:
    """Warn if a prompt is longer than the context."""
    if len(ids) > model.context_length:
        logger.warning(
            "the prompt has %d tokens; the model sees the last %d", len(ids), model.context_length
        )


class Chat:
    """A conversation with a model; each answer increases the seed of the sampling."""

    def __init__(self, model: LoadedModel, sampling: Sampling, max_tokens: int) -> None:
        self.messages: list[dict[str, str]] = []  # with role and content
        self.sampling, self.max_tokens, self._model = sampling, max_tokens, model
        self.commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/help": ("list the commands", self._print_help),
            "/reset": ("forget the conversation", self._reset),
            "/retry": ("answer the last message again, with the next seed", self._retry),
            "/undo": ("forget the last message and its answer", self._undo),
            "/history": ("print the conversation", self._print_history),
            "/system": ("set the system message of the chat template", self._set_system),
            "/tokens": ("limit the length of an answer to this number of tokens", self._set_tokens),
            "/options": ("print the sampling options", self._print_options),
        }

    def run(self, lines: Iterator[str]) -> None:
        """Handle lines until ``/quit`` or the end of input; print errors and continue."""
        for line in lines:
            if line.strip() == "/quit":
                return
            try:
                self.handle(line)
            except AtlasError as error:
                print(escape_controls(one_line(error)), file=sys.stderr)

    def handle(self, line: str) -> None:
        """Run a command, or answer a message."""
        name, _, argument = line.strip().partition(" ")
        if not name:
            return
        if not line.startswith("/"):
            self._answer([*self.messages, {"role": "user", "content": line}])
        elif name in self.commands:
            self.commands[name][1](argument.strip())
        elif name in SETTINGS:
            self._set_option(name, argument.strip())
        else:
            raise AtlasError(f"{printable(name)}: no such command; /help lists them")

    def _answer(self, messages: list[dict[str, str]]) -> None:
        """Print an answer and add it to the conversation; after Ctrl+C, the part printed so far.

        An error leaves the conversation as it was.
        """
        ids = self._model.encode_chat(messages)
        warn_if_truncated(self._model, ids)
        parts: list[str] = []
        try:
            for part in self._model.stream(TokenSequence(ids, self.max_tokens, self.sampling)):
                parts.append(part)
                show_text(part, end="")
            print()
        except KeyboardInterrupt:
            print(" [stopped]")
        self.messages = [*messages, {"role": "assistant", "content": "".join(parts)}]
        self.sampling = self.sampling.model_copy(update={"seed": self.sampling.seed + 1})

    def _print_help(self, _argument: str) -> None:
        for name, (meaning, _) in self.commands.items():
            print(f"{name:<10}{meaning}")
        print("/quit     end the chat (also Ctrl+D); Ctrl+C ends an answer")
        print(f"{' '.join(SETTINGS)}: print or set, such as /temperature 0.5")

    def _reset(self, _: str) -> None:
        self.messages = [each for each in self.messages if each["role"] == "system"]

    def _undo(self, _: str) -> None:
        self._check_answered("/undo")
        del self.messages[-2:]

    def _retry(self, _: str) -> None:
        self._check_answered("/retry")
        self._answer(self.messages[:-1])

    def _check_answered(self, command: str) -> None:
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise AtlasError(f"{command}: there is no answer yet")

    def _print_history(self, _: str) -> None:
        for message in self.messages:
            show_text(f"{message['role']}: {message['content']}")

    def _set_system(self, content: str) -> None:
        self.messages = [each for each in self.messages if each["role"] != "system"]
        if content:
            self.messages.insert(0, {"role": "system", "content": content})

    def _set_tokens(self, value: str) -> None:
        if not value.isdecimal() or not int(value):
            raise AtlasError(f"/tokens {printable(value)}: must be a whole number, 1 or more")
        self.max_tokens = int(value)

    def _set_option(self, option: str, value: str) -> None:
        """Set an option, or print it if there is no value."""
        field = SETTINGS[option]
        if value:
            self.sampling = update_sampling({field: printable(value)}, self.sampling, prefix="/")
        else:
            now = getattr(self.sampling, field)
            print(option, now if isinstance(now, int) else f"{now:g}")

    def _print_options(self, _: str) -> None:
        for option in SETTINGS:
            self._set_option(option, "")
        print(f"/tokens {self.max_tokens}")


def read_lines() -> Iterator[str]:
    """Lines from the terminal, with a prompt and a history, or from a pipe."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401 - gives input() arrow keys and a history

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl+D ends the chat)")
