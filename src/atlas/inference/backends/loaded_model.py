"""What generation, chat and the server know of a model, wherever it came from."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from jinja2 import TemplateError

from atlas.errors import AtlasError, one_line
from atlas.inference.batch import Batch, Beyond, Text
from atlas.inference.generate import refuse_failed
from atlas.inference.slots import Slots
from atlas.inference.text_stream import UNKNOWN, TextStream

MOST_CONTEXT = 4096  # tokens that a slot gets of a model that was made for more; they cost memory
Message = Mapping[str, str]  # role and content


class OpenedModel(ABC):
    """A model and its tokenizer.

    Attributes:
        name: of it, for people.
        form: what it was stored as, for people.
        context_length: the most tokens that it sees at once.
        vocab_size: V.
        ends: ids that end a text.
        tells_attention: whether ``attention`` can say something.
    """

    name: str
    form: str
    context_length: int
    vocab_size: int
    ends: frozenset[int]
    tells_attention: bool = False

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids that the model reads of a prompt, at least one.

        Raises:
            AtlasError: it can't be a prompt of this model.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones give nothing, parts of characters U+FFFD."""

    def piece(self, identity: int) -> str:
        """The text of one id, for people, also where it is but a part of a character."""
        return self.decode([identity])

    def piece_bytes(self, identity: int) -> bytes | None:
        """The bytes of one id in UTF-8, which may be a part of a character; None if unknown."""
        text = self.decode([identity])
        return None if UNKNOWN in text else text.encode()

    @abstractmethod
    def slots(self, count: int) -> Slots:
        """Places in which to continue so many texts at once."""

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """The ids that the model reads of a conversation, to add what is said next.

        A model without a template of its own follows no instructions: the conversation is one
        text, in which an answer goes on where the message before it ends, as it was written.
        """
        text = ""
        for message in messages:
            begins = not text or message["role"] == "assistant"
            text += message["content"] if begins else f"\n{message['content']}"
        return self.encode(text)

    def beyond(self, wanted: Beyond) -> Beyond:
        """What happens where the context ends, if the model can do that."""
        return wanted

    def attention(self, ids: Sequence[int]) -> list[list[list[float]]]:
        """How much the last of some ids looks at each: by layer, head and id.

        Raises:
            AtlasError: such a model does not tell.
        """
        raise AtlasError(f"{self.name}: {len(ids)} ids, and {self.form} models tell no attention")

    def batch(self, count: int, beyond: Beyond = "slide") -> Batch:
        """So many texts that grow together."""
        return Batch(self.slots(count), self.ends, self.beyond(beyond))

    def continue_all(self, texts: Iterable[Text], beyond: Beyond = "slide") -> Iterator[Text]:
        """Grows texts side by side; yields each of them whenever it has a new token or ended."""
        waiting = list(texts)
        return self.batch(max(1, len(waiting)), beyond).grow(waiting)

    def stream(
        self, text: Text, stops: Sequence[str] = (), beyond: Beyond = "slide"
    ) -> Iterator[str]:
        """Yields what continues a text as it comes, up to the first of some strings.

        Raises:
            AtlasError: the model computes no numbers.
        """
        shown = TextStream(self.decode, text.prompt, stops)
        for each in self.continue_all([text], beyond):
            refuse_failed(each)
            if each.newest is not None:
                yield shown.feed(each.newest.id)
            if shown.stopped:
                text.ended = "stop"
                return
        yield shown.end()


@contextmanager
def template_of(name: str) -> Iterator[None]:
    """Says in a line what a chat template refuses, as some do of certain roles.

    Raises:
        AtlasError: the template refused the conversation, or is broken.
    """
    try:
        yield
    except TemplateError as error:
        raise AtlasError(f"{name}: its chat template refuses this: {one_line(error)}") from None


def refuse_no_beginning(name: str, ids: list[int], begin: int | None) -> list[int]:
    """Ids, or the one that begins a text where there are none.

    Raises:
        AtlasError: there is none either.
    """
    if not ids and begin is None:
        raise AtlasError(f"{name}: the prompt is empty, and nothing else begins a text: give one")
    return ids or [begin if begin is not None else 0]
