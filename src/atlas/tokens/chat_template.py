"""Render a chat template in a process of its own.

A template is a program. jinja2's sandbox keeps it from files and Python's internals, but not from
an endless loop or a text of gigabytes, so it runs in a process with limits on time and memory. The
process stays for the next conversation, and is started again if a template ended it::

    python -m atlas.tokens.chat_template

It reads a line of JSON per conversation from stdin, and writes a line of JSON to stdout.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import atlas
from atlas.errors import AtlasError, one_line

SECONDS = 2.0  # of processor time for a conversation
MEMORY = 1 << 29  # bytes, on top of those of the process at rest
MAX_CHARACTERS = 1 << 22  # of a conversation as text
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


Messages = Sequence[Mapping[str, str]]  # each with role and content


def protect(messages: Messages, special: Iterable[str]) -> tuple[list[dict[str, str]], str]:
    """Break the names of special tokens that messages hold, so that they stay text.

    Returns the messages, and the character for private use that breaks each name.
    """
    used = set("".join(message["content"] for message in messages))
    mark = next(each for each in map(chr, range(0xF0000, 0xFFFFE)) if each not in used)
    names = "|".join(map(re.escape, filter(None, special))) or r"(?!)"
    typed = re.compile(f"(?={names})(.)", re.DOTALL)  # the first character of each
    return [
        {**message, "content": typed.sub(rf"\1{mark}", message["content"])} for message in messages
    ], mark


class RenderedChat(NamedTuple):
    """A conversation as a template writes it."""

    text: str
    answers: list[tuple[int, int]]  # where what the model writes begins and ends, in characters


class ChatTemplate:
    """A template and the process that renders it."""

    def __init__(self, template: str, special_tokens: Mapping[str, Any]) -> None:
        self._template, self._special_tokens = template, dict(special_tokens)
        self._process: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = Lock()

    def render(self, messages: Messages) -> str:
        """Return a conversation as text, up to the beginning of the model's next message."""
        return self._rendered(messages, is_prompt=True).text

    def render_whole(self, messages: Messages) -> RenderedChat:
        """Return a whole conversation, and what of it the model writes.

        Those are the parts between ``{% generation %}`` and ``{% endgeneration %}``.
        """
        return self._rendered(messages, is_prompt=False)

    def _rendered(self, messages: Messages, *, is_prompt: bool) -> RenderedChat:
        request = {
            "template": self._template,
            "messages": [dict(each) for each in messages],
            "special_tokens": self._special_tokens,
            "is_prompt": is_prompt,
        }
        with self._one_at_a_time:
            answer = self._ask(request)
        if "text" in answer:
            return RenderedChat(str(answer["text"]), [(a, b) for a, b in answer["answers"]])
        raise AtlasError(f"its chat template {answer['error']}")

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self._process = _start()
        stdin, stdout = self._process.stdin, self._process.stdout
        answer = b""
        if stdin and stdout:
            with suppress(BrokenPipeError):
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                answer = stdout.readline()
        if answer.endswith(b"\n"):
            found: dict[str, Any] = json.loads(answer)
            return found
        self.close()
        return {"error": f"takes more than {SECONDS:g} s or {MEMORY >> 20} MB on this conversation"}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def __del__(self) -> None:
        """End the process with the model."""
        self.close()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        env=os.environ | {"PYTHONPATH": str(Path(atlas.__file__).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl+C in a chat ends an answer, not this process
    )


def answer_requests() -> None:
    """Render conversations until stdin ends."""
    from transformers.utils.chat_template_utils import render_jinja_template  # slow

    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    limit_memory()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_time(SECONDS)
        try:
            template = request["template"]
            (text,), answers = render_jinja_template(
                conversations=[request["messages"]],
                chat_template=template,
                return_assistant_tokens_mask=bool(GENERATION.search(template)),
                add_generation_prompt=request["is_prompt"],
                **request["special_tokens"],
            )
            answer: dict[str, Any] = {"text": text, "answers": answers[0] if answers else []}
            if len(text) > MAX_CHARACTERS:
                answer = {"error": f"writes {len(text):,} characters for this conversation"}
        except Exception as error:
            answer = {
                "error": f"rejects this: {one_line(str(error) or type(error).__name__)[:200]}"
            }
        print(json.dumps(answer), file=stdout, flush=True)
        limit_time(0)


def limit_time(seconds: float) -> None:
    """End this process after some processor time; 0 is no limit."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF can't be caught by a template


def limit_memory() -> None:
    """Limit the memory of this process, where the system can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    answer_requests()
