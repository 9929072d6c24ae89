"""Conversations to ids: named chat templates, and which tokens of them the model writes itself.

A template writes the roles and marks around the messages. What stands between its tags
``{% generation %}`` and ``{% endgeneration %}``, the answers with their end marks, is learned; all
else is given.
"""

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.parser import Parser

from atlas.cleaning.documents import Document, Message
from atlas.errors import AtlasError, one_line
from atlas.tokens.chat_template import GENERATION, ChatTemplate, protect
from atlas.tokens.tokenizer import Ids, Tokenizer

logger = logging.getLogger(__name__)
MARK = re.compile(r"<\|[^<>|\s]+\|>|</?[A-Za-z_][A-Za-z0-9_]*>|\[/?[A-Z_]{3,}\]")


class _Generation(Extension):
    """Parse the tags of transformers that stand around an answer."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@cache
def marks(template: str) -> tuple[str, ...]:
    """List the marks in the text that a template writes, such as <|im_start|>, in their order."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols", _Generation])  # noqa: S701
    try:
        tree = environment.parse(template)
    except TemplateSyntaxError as error:
        raise AtlasError(
            f"chat.template: line {error.lineno}: {one_line(error.message or 'a syntax error')}"
        ) from None
    constants = (each.value for each in tree.find_all(nodes.Const) if isinstance(each.value, str))
    texts = (each.data for each in tree.find_all(nodes.TemplateData))
    found = chain.from_iterable(map(MARK.findall, chain(constants, texts)))
    return tuple(dict.fromkeys(found))


def learns_answers(template: str) -> bool:
    """True if a template says what the model writes; else all of a conversation is learned."""
    return GENERATION.search(template) is not None


def warn_of_learning_all(template: str) -> None:
    """Warn of a template that doesn't say what the model writes."""
    if not learns_answers(template):
        logger.warning(
            "the chat template has no {% generation %}, so all of each conversation is learned, "
            "not the answers alone; chat.template=chatml and others have it"
        )


def without_tags(template: str) -> str:
    """Remove the tags around answers, which only transformers reads."""
    return re.sub(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}", r"{#\1 \2#}", template)


class Encoded(NamedTuple):
    """The ids of a document, and which are given rather than learned, (T,) each."""

    ids: Ids
    given: npt.NDArray[np.bool_]


class Part(NamedTuple):
    """A stretch of a rendered conversation: text, or a special token."""

    text: str
    special: int | None
    given: bool


class ConversationEncoder:
    """Encode conversations with the chat template of a tokenizer.

    A special token is one that the template writes. Its name in a message is ordinary text, and
    stays what the user typed.
    """

    def __init__(self, tokenizer: Tokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(template, tokenizer.special_names)
        self._learns_answers = learns_answers(template)
        self._special = tokenizer.special_ids

    def encode(self, documents: Iterable[Document]) -> Iterator[Encoded]:
        """Encode any number of documents, in bounded memory; plain texts are learned whole."""
        waiting: deque[list[Part]] = deque()

        def texts() -> Iterator[str]:
            for document in documents:
                plain = [Part(document.text, None, given=False)]
                parts = plain if document.messages is None else self.parts(document.messages)
                waiting.append(parts)
                yield from (part.text for part in parts if part.special is None)

        stream = self._tokenizer.encode_stream(texts())
        ahead = next(stream, None)  # its document is in ``waiting``
        while waiting:
            ids, given = [np.empty(0, np.int32)], [np.empty(0, np.bool_)]
            for part in waiting.popleft():
                if part.special is not None:
                    ids.append(np.array([part.special], np.int32))
                elif ahead is not None:
                    ids.append(ahead)
                    ahead = next(stream, None)
                given.append(np.full(len(ids[-1]), part.given))
            yield Encoded(np.concatenate(ids), np.concatenate(given))

    def parts(self, messages: Sequence[Message]) -> list[Part]:
        """Render a conversation, and cut it at special tokens and around answers."""
        protected, mark = protect(messages, self._special)
        text, answers = self._template.render_whole(protected)
        edges = sorted({0, len(text), *chain.from_iterable(answers)})
        parts = []
        for first, last in pairwise(edges):
            is_answer = any(a <= first and last <= b for a, b in answers)
            given = self._learns_answers and not is_answer
            for piece in filter(None, self._tokenizer.special_pattern.split(text[first:last])):
                special = self._special.get(piece)
                parts.append(Part(piece.replace(mark, ""), special, given))
        return parts

    def end_of_turn(self) -> int:
        """The special token that ends an answer."""
        probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        ends = [part.special for part in self.parts(probe) if not part.given]
        if not ends or ends[-1] is None:
            raise AtlasError(
                "chat.template: no special token ends an answer, so a model would never stop; end "
                "it with a mark such as <|im_end|> or eos_token, before {% endgeneration %}"
            )
        return ends[-1]
