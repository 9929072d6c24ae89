"""The interface of a loaded model of any format."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from jinja2 import Template

from atlas.errors import AtlasError
from atlas.inference.batch import InferenceBackend, Overflow, RunningBatch, TokenSequence
from atlas.inference.text_stream import UNKNOWN, TextStream
from atlas.model.config import ModelConfig
from atlas.tokens.chat_template import ChatTemplate, protect
from atlas.tokens.tokenizer import Tokenizer

MAX_CONTEXT_LENGTH = 4096  # of models from elsewhere, to bound the memory of each slot
Message = Mapping[str, str]  # role and content
# The chat template of a model that only continues text. A conversation is one text: each message is
# a new line, except that an answer continues the line before it. Exported files contain it, because
# llama.cpp puts messages into ChatML if a file has no template.
PLAIN_CHAT = (
    "{% for message in messages if message['content'] %}"
    "{% if not loop.first and message['role'] != 'assistant' %}{{ '\\n' }}{% endif %}"
    "{{ message['content'] }}{% endfor %}"
)
# A question-answering model sees only the last message. llama.cpp puts a system message whose
# content the template never reads in front of the user's, so the condition reads all of them.
QUESTION_CHAT = (
    "{% for message in messages %}{% if message['content'] and loop.last %}"
    "{{ message['content'] }}{% endif %}{% endfor %}"
)
BOS = "{{ bos_token }}"


TUNED_FROM = "base.json"
ORIGINS = ("origin.json", TUNED_FROM)  # of an imported model, and of one trained from it


def comes_from_elsewhere(folder: Path) -> bool:
    """True if the first weights of a model's training were those of a model from elsewhere."""
    return any((folder / name).is_file() for name in ORIGINS)


def chat_template(config: ModelConfig, tokenizer: Tokenizer, *, from_elsewhere: bool) -> str:
    """The chat template of a model in Atlas's own format.

    A model that was trained here from scratch, and not on conversations, has not learned the marks
    of its tokenizer's template, so it only continues text.
    """
    if (from_elsewhere or config.is_chat) and tokenizer.chat_template:
        return tokenizer.chat_template
    plain = PLAIN_CHAT if config.separator is None else QUESTION_CHAT
    return BOS + plain if config.add_bos_token else plain


class LoadedModel(ABC):
    """A model and its tokenizer."""

    name: str  # shown to people and in the server's API
    engine: str  # PyTorch, llama.cpp or transformers
    context_length: int
    vocab_size: int
    end_ids: frozenset[int]  # end a text
    has_attention: bool = False  # ``attention`` is available
    chat_template: str = PLAIN_CHAT  # of conversations, in Jinja
    special_tokens: Mapping[str, str]  # as a chat template names them: bos_token, eos_token ...
    special_names: Collection[str]  # of all special tokens

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids that the model reads for a prompt, at least one."""

    def check_prompt(self, ids: Sequence[int]) -> None:  # noqa: B027
        """Reject ids that the model can't continue."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: special tokens are left out, incomplete characters become U+FFFD."""

    def piece(self, token: int) -> str:
        """A readable form of one id, even if it is only part of a character."""
        return self.decode([token])

    def piece_bytes(self, token: int) -> bytes | None:
        """The UTF-8 bytes of one id, possibly part of a character; None if unknown."""
        text = self.decode([token])
        return None if UNKNOWN in text else text.encode()

    @abstractmethod
    def backend(self, slots: int) -> InferenceBackend:
        """A backend with room for this many texts at once."""

    @abstractmethod
    def encode_special(self, text: str, mark: str = "") -> list[int]:
        """The ids of a text in which the names of special tokens stand for these, at least one.

        Names that ``mark`` breaks are text, without it.
        """

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation so that the model's next message can follow.

        The bos token of a plain template is empty here, because ``encode`` adds it.
        """
        if self.chat_template.removeprefix(BOS) in (PLAIN_CHAT, QUESTION_CHAT):
            return self.encode(Template(self.chat_template).render(messages=messages))
        protected, mark = protect(messages, self.special_names)
        try:
            text = self._template.render(protected)
        except AtlasError as error:
            raise AtlasError(f"{self.name}: {error}") from None
        return self.encode_special(text, mark)

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.chat_template, self.special_tokens)

    def attention(self, ids: Sequence[int]) -> list[list[list[float]]]:  # noqa: ARG002
        """Attention weights of the last of the ids, by layer, head and id."""
        raise AtlasError(f"{self.name}: {self.engine} gives no attention weights for this model")

    def batch(self, slots: int, on_overflow: Overflow = "slide") -> RunningBatch:
        """An empty batch with room for this many sequences."""
        return RunningBatch(self.backend(slots), self.end_ids, on_overflow)

    def run(
        self, sequences: Sequence[TokenSequence], on_overflow: Overflow = "slide"
    ) -> Iterator[TokenSequence]:
        """Generate all sequences together; yield each sequence after each of its tokens."""
        return self.batch(max(1, len(sequences)), on_overflow).run(sequences)

    def stream(
        self, sequence: TokenSequence, stops: Sequence[str] = (), on_overflow: Overflow = "slide"
    ) -> Iterator[str]:
        """Yield the continuation as it is generated, up to the first stop string."""
        shown = TextStream(self.decode, sequence.prompt, stops)
        for each in self.run([sequence], on_overflow):
            each.raise_if_failed()
            if each.last_token is not None:
                yield shown.feed(each.last_token.id)
            if shown.found_stop:
                sequence.finish_reason = "stop"
                return
        yield shown.flush()


class ForeignModel(LoadedModel):
    """A model from elsewhere, with a tokenizer and perhaps a chat template of its own."""

    bos: int | None  # begins a text

    @abstractmethod
    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The ids of a text.

        With ``add_special`` the tokenizer puts its special tokens first; with ``parse_special`` the
        names of special tokens in the text stand for these, else they are ordinary text.
        """

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, at least the beginning of a text."""
        return self._at_least_bos(self.tokenize(text, add_special=True, parse_special=False))

    def encode_special(self, text: str, mark: str = "") -> list[int]:
        """The ids of a conversation that the model's chat template has written.

        If ``mark`` breaks a name, what stands between special tokens is encoded part by part.
        """
        ids: list[int] = []
        for part in self._special_pattern.split(text) if mark and mark in text else [text]:
            special = not mark or mark not in text or part in self.special_names
            ids += self.tokenize(part.replace(mark, ""), add_special=False, parse_special=special)
        return self._at_least_bos(ids)

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        names = sorted(filter(None, self.special_names), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, names)) or '(?!)'})")

    def _at_least_bos(self, ids: list[int]) -> list[int]:
        if ids:
            return ids
        if self.bos is None:
            raise AtlasError(
                f"{self.name}: the prompt is empty, but this model needs one to start from"
            )
        return [self.bos]
