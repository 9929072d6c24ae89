"""The interface of a loaded model of any format."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from jinja2 import TemplateError

from atlas.errors import AtlasError, one_line
from atlas.inference.batch import InferenceBackend, Overflow, RunningBatch, TokenSequence
from atlas.inference.text_stream import UNKNOWN, TextStream

MAX_CONTEXT_LENGTH = 4096  # of models from elsewhere, to bound the memory of each slot
Message = Mapping[str, str]  # role and content


class LoadedModel(ABC):
    """A model and its tokenizer."""

    name: str  # shown to people and in the server's API
    engine: str  # PyTorch, llama.cpp or transformers
    context_length: int
    vocab_size: int
    end_ids: frozenset[int]  # end a text
    has_attention: bool = False  # ``attention`` is available

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids that the model reads for a prompt, at least one."""

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

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation so that the model's next message can follow.

        A model without a chat template does not follow instructions, so the conversation is one
        text: each message is a new line, except that an answer continues the line before it.
        """
        text = ""
        for message in messages:
            continues = not text or message["role"] == "assistant"
            text += message["content"] if continues else f"\n{message['content']}"
        return self.encode(text)

    def supported_overflow(self, on_overflow: Overflow) -> Overflow:
        """``on_overflow``, or the behavior this model has instead."""
        return on_overflow

    def attention(self, ids: Sequence[int]) -> list[list[list[float]]]:  # noqa: ARG002
        """Attention weights of the last of the ids, by layer, head and id."""
        raise AtlasError(f"{self.name}: {self.engine} gives no attention weights for this model")

    def batch(self, slots: int, on_overflow: Overflow = "slide") -> RunningBatch:
        """An empty batch with room for this many sequences."""
        overflow = self.supported_overflow(on_overflow)
        return RunningBatch(self.backend(slots), self.end_ids, overflow)

    def run(
        self, sequences: Iterable[TokenSequence], on_overflow: Overflow = "slide"
    ) -> Iterator[TokenSequence]:
        """Generate all sequences together; yield each sequence after each of its tokens."""
        waiting = list(sequences)
        return self.batch(max(1, len(waiting)), on_overflow).run(waiting)

    def stream(
        self,
        sequence: TokenSequence,
        stops: Sequence[str] = (),
        on_overflow: Overflow = "slide",
    ) -> Iterator[str]:
        """Yield the continuation as it is generated, up to the first stop string."""
        shown = TextStream(self.decode, sequence.prompt, stops)
        for each in self.run([sequence], on_overflow):
            each.raise_if_failed()
            if each.last_token is not None:
                yield shown.feed(each.last_token.id)
            if shown.stopped:
                sequence.finish_reason = "stop"
                return
        yield shown.flush()


@contextmanager
def chat_template_errors(name: str) -> Iterator[None]:
    """Report in one line that a chat template is broken or rejects the conversation."""
    try:
        yield
    except TemplateError as error:
        raise AtlasError(f"{name}: its chat template rejects this: {one_line(error)}") from None


def at_least_bos(name: str, ids: list[int], bos: int | None) -> list[int]:
    """The ids, or the beginning-of-text id if there are none."""
    if ids:
        return ids
    if bos is None:
        raise AtlasError(f"{name}: the prompt is empty, but this model needs one to start from")
    return [bos]
