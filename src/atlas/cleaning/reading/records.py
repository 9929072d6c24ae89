"""Documents from records: the text field, conversations, lists of texts.

A record is an object of a JSON file or a row of a table. Its text is under ``clean.text_field``. A
record without that field may be a conversation in one of the usual forms; it becomes a document
with messages.
"""

import difflib
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from atlas.cleaning.documents import Document, Message, render_messages
from atlas.cleaning.reading import streams
from atlas.cleaning.reading.pieces import Item, Rejection
from atlas.params.schema import CleanParams

SOURCE = "source"  # optional key or column
PARAM = "clean.text_field"
MISSING: Any = object()
MAX_NAMES = 20  # keys listed in an error
FIELD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")  # in a template
KINDS = {
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
}
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "question"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "chatbot", "model"), "assistant"),
    **dict.fromkeys(("ai", "answer", "bing", "bard", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython", "environment"), "tool"),
}
CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
PAIRS = (  # a prompt, and its answer
    *(("instruction", "output"), ("instruction", "response"), ("instruction", "completion")),
    *(("prompt", "completion"), ("prompt", "response"), ("prompt", "output"), ("prompt", "answer")),
    *(("question", "answer"), ("question", "response"), ("query", "response")),
    *(("query", "answer"), ("problem", "solution"), ("input", "output")),
)
CONTEXTS = ("input", "context")  # follow the prompt
SYSTEM_PROMPTS = ("system", "system_prompt")


class RecordError(Exception):
    """A record that can't become a document."""


@dataclass(frozen=True)
class Template:
    """Fields within text. A line or paragraph whose fields are all empty is left out."""

    paragraphs: tuple[tuple[tuple[str, ...], ...], ...]  # lines; literals and fields alternate

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Parse a template such as ``"{title}: {text}"``."""
        paragraphs = (part.split("\n") for part in text.split("\n\n"))
        return cls(tuple(tuple(map(_parse_line, lines)) for lines in paragraphs))

    def fields(self) -> list[str]:
        """List the paths of all fields."""
        lines = (line for paragraph in self.paragraphs for line in paragraph)
        return list(dict.fromkeys(field for line in lines for field in line[1::2]))

    def fill(self, record: Any) -> str:
        """Return the text with the values of a record."""
        values = {field: _template_value(record, field) for field in self.fields()}
        if not any(values.values()):
            return ""
        paragraphs = []
        for paragraph in self.paragraphs:
            fields = [field for line in paragraph for field in line[1::2]]
            if fields and not any(values[field] for field in fields):
                continue
            lines = []
            for line in paragraph:
                if line[1::2] and not any(values[field] for field in line[1::2]):
                    continue
                parts = (values[part] if n % 2 else part for n, part in enumerate(line))
                lines.append("".join(parts))
            paragraphs.append("\n".join(lines))
        return "\n\n".join(paragraphs)


def _parse_line(line: str) -> tuple[str, ...]:
    """Divide a line of a template into literals and fields, in turn, literals first and last."""
    parts = [""]
    end = 0
    for match in FIELD.finditer(line):
        parts[-1] += line[end : match.start()]
        if match[1] is None:
            parts[-1] += match[0][0]
        else:
            parts += [match[1].strip(), ""]
        end = match.end()
    parts[-1] += line[end:]
    return tuple(parts)


def _template_value(record: Any, field: str) -> str:
    value = lookup(record, field)
    if value is MISSING or value is None:
        return ""
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, list):
        return "\n\n".join(_strings(value, field))
    if isinstance(value, dict):
        raise RecordError(f"{_describe(value, field)}; name one of its keys, as in {field}.KEY")
    return str(value)


@functools.lru_cache
def text_fields(text_field: str | int | tuple[str | int, ...]) -> tuple[str | Template, ...]:
    """Return the candidates that ``clean.text_field`` names: paths and templates."""
    candidates = text_field if isinstance(text_field, tuple) else (text_field,)
    return tuple(
        Template.parse(each) if isinstance(each, str) and FIELD.search(each) else str(each)
        for each in candidates
    )


def paths(clean: CleanParams) -> list[str]:
    """List the paths that ``clean.text_field`` names, alone and in templates."""
    found: list[str] = []
    for candidate in text_fields(clean.text_field):
        found += candidate.fields() if isinstance(candidate, Template) else [candidate]
    return found


def lookup(record: Any, path: str) -> Any:
    """Follow a dotted path into a record; return MISSING if it leads nowhere.

    A key that contains dots comes before a path. In a list, a number is an index, and a key
    collects the values of all its objects.
    """
    if isinstance(record, dict):
        if path in record:
            return record[path]
        dot = path.find(".")
        while dot >= 0:
            if path[:dot] in record:
                found = lookup(record[path[:dot]], path[dot + 1 :])
                if found is not MISSING:
                    return found
            dot = path.find(".", dot + 1)
    elif isinstance(record, list):
        head, _, rest = path.partition(".")
        if head.isdecimal():
            if int(head) >= len(record):
                return MISSING
            item = record[int(head)]
            return lookup(item, rest) if rest else item
        values = [lookup(item, path) for item in record]
        return [value for value in values if value is not MISSING] or MISSING
    return MISSING


def record_documents(
    record: dict[str, Any], identity: str, name: str, clean: CleanParams, counts: Counter[str]
) -> list[Item]:
    """Convert a record to documents, or explain its rejection; count conversations."""
    source = record.get(SOURCE)
    source = source if isinstance(source, str) and source else name
    try:
        value = find_text(record, clean)
        if isinstance(value, str):
            return text_documents(value, identity, source)
        if value is not MISSING and value is not None:
            return _list_documents(value, identity, source, clean)
        messages = None if only_templates(clean) else conversation(record)
        if messages:
            counts["conversations"] += 1
            return [Document(identity, source, render_messages(messages), messages=messages)]
    except RecordError as error:
        return [Rejection(identity, "no_text", str(error))]
    if value is None:
        return [Rejection(identity, "no_text", f"{_wanted(clean)} is null")]
    return [Rejection(identity, "no_text", missing_field([record], clean))]


def plain_key(clean: CleanParams) -> str | None:
    """Return ``clean.text_field`` if it is one key or path, None otherwise."""
    candidates = text_fields(clean.text_field)
    only = candidates[0] if len(candidates) == 1 else None
    return only if isinstance(only, str) else None


def plain_document(
    record: dict[str, Any], key: str | None, identity: str, name: str
) -> Document | None:
    """Return the document of a record with a text under a key, None for all other records."""
    text = record.get(key) if key else None
    if type(text) is not str or len(text) > streams.MAX_BLOCK:
        return None
    source = record.get(SOURCE)
    return Document(identity, source if type(source) is str and source else name, text)


def find_text(record: Any, clean: CleanParams) -> Any:
    """Return what the first candidate of ``clean.text_field`` finds, MISSING if none does."""
    found = MISSING
    for candidate in text_fields(clean.text_field):
        if isinstance(candidate, Template):
            if any(lookup(record, field) is not MISSING for field in candidate.fields()):
                return candidate.fill(record)
        else:
            value = lookup(record, candidate)
            if value is not MISSING and value is not None:
                return value
            found = value if found is MISSING else found
    return found


def text_documents(text: str, identity: str, source: str) -> list[Item]:
    """Return a document, or several if the text is longer than a block."""
    if len(text) <= streams.MAX_BLOCK:
        return [Document(identity, source, text)]
    parts = enumerate(cut_text(text, streams.MAX_BLOCK), start=1)
    return [Document(f"{identity}#{number}", source, part) for number, part in parts]


def cut_text(text: str, size: int) -> Iterator[str]:
    """Cut a text into parts of at most ``size`` characters, after lines or spaces if it has any."""
    start = 0
    while len(text) - start > size:
        marks = (text.rfind(mark, start, start + size) for mark in ("\n", " "))
        stop = next((mark + 1 for mark in marks if mark >= 0), start + size)
        yield text[start:stop]
        start = stop
    yield text[start:]


def _list_documents(value: Any, identity: str, source: str, clean: CleanParams) -> list[Item]:
    if not isinstance(value, list):
        raise RecordError(_describe(value, _wanted(clean)))
    strings = [each for each in _strings(value, _wanted(clean)) if each.strip()]
    if clean.text_lists == "join":
        return text_documents("\n\n".join(strings), identity, source)
    return [
        item
        for number, string in enumerate(strings, start=1)
        for item in text_documents(string, f"{identity}#{number}", source)
    ] or [Rejection(identity, "empty")]


def _strings(value: list[Any], field: str) -> Iterator[str]:
    for item in value:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            yield from _strings(item, field)
        elif item is not None:
            raise RecordError(f'"{field}" holds a list with {kind_of(item)} in it, not only text')


def _describe(value: Any, field: str) -> str:
    return f'"{field}" holds {kind_of(value)}, not text'


def kind_of(value: Any) -> str:
    """Name the type of a value."""
    return KINDS.get(type(value), type(value).__name__)


def _wanted(clean: CleanParams) -> str:
    return " or ".join(paths(clean))


def is_record(value: dict[str, Any], clean: CleanParams) -> bool:
    """Return True if an object has the text field, or is a conversation."""
    if find_text(value, clean) is not MISSING:
        return True
    try:
        return not only_templates(clean) and conversation(value) is not None
    except RecordError:
        return True


def only_templates(clean: CleanParams) -> bool:
    """Return True if ``clean.text_field`` names templates and no paths."""
    return all(isinstance(each, Template) for each in text_fields(clean.text_field))


def missing_field(records: list[Any], clean: CleanParams, kind: str = "key") -> str:
    """Explain that records lack the text field; list the keys they have, and suggest one."""
    leaves: dict[str, int] = {}  # paths with the longest text at each
    for record in records:
        for path, size in _leaves(record):
            leaves[path] = max(size, leaves.get(path, 0))
    wanted = [path for path in paths(clean) if all(lookup(r, path) is MISSING for r in records)]
    names = '" or "'.join(wanted)
    if not leaves:
        return f'no {kind} "{names}" ({PARAM}); the record has no {kind}s'
    suggestion = _suggest(wanted[0], leaves, longest=not only_templates(clean))
    more = f" and {len(leaves) - MAX_NAMES} more" if len(leaves) > MAX_NAMES else ""
    listed = ", ".join(islice(leaves, MAX_NAMES)) + more
    return f'no {kind} "{names}" ({PARAM}); {kind}s found: {listed}{suggestion}'


def _leaves(record: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path of each value in a record, with the length of its text."""
    if not isinstance(record, dict):
        return
    for key, value in record.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", len(inner) if isinstance(inner, str) else 0


def _suggest(wanted: str, leaves: dict[str, int], longest: bool) -> str:
    """Suggest a key: of the same name, a similar name, or with the longest text."""
    by_name = {path.rpartition(".")[2].casefold(): path for path in reversed(leaves)}
    name = wanted.rpartition(".")[2].casefold()
    similar = difflib.get_close_matches(name, by_name, n=1, cutoff=0.7)
    best = max(leaves, key=leaves.__getitem__)
    chosen = by_name[similar[0]] if similar else best if longest and leaves[best] else None
    return f"; did you mean {chosen}?" if chosen else ""


def template_problem(records: list[Any], clean: CleanParams, kind: str = "key") -> str | None:
    """Explain which field of a template is in none of the records, if there is one."""
    if not records or not only_templates(clean):
        return None
    for candidate in text_fields(clean.text_field):
        fields = candidate.fields() if isinstance(candidate, Template) else []
        if all(any(lookup(record, field) is not MISSING for record in records) for field in fields):
            return None
    return missing_field(records, clean, kind)


def conversation(record: dict[str, Any]) -> list[Message] | None:
    """Return the messages of a record in one of the usual forms, None if it has another form.

    The forms are OpenAI's ``messages``, ShareGPT's ``conversations``, Alpaca's ``instruction``,
    ``input`` and ``output``, and pairs such as ``prompt`` and ``completion``.
    """
    record = {key.lower(): value for key, value in record.items() if isinstance(key, str)}
    messages: list[Message] = []
    for key in SYSTEM_PROMPTS:
        if isinstance(record.get(key), str) and record[key].strip():
            messages.append({"role": "system", "content": record[key]})
            break
    for key in CONVERSATIONS:
        if is_conversation(record.get(key)):
            return messages + _messages(record[key])
    for prompt, answer in PAIRS:
        if prompt in record and answer in record:
            pair = _pair(record, prompt, answer)
            return messages + pair if pair else None
    return None


def is_conversation(value: Any) -> bool:
    """Return True for a list of messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, dict)
            and ("role" in each or "from" in each)
            and not each.keys().isdisjoint(("content", "value", "text", "tool_calls"))
            for each in value
        )
    )


def _pair(record: dict[str, Any], prompt: str, answer: str) -> list[Message] | None:
    question, reply = record[prompt], record[answer]
    if is_conversation(question) and is_conversation(reply):
        return _messages(question) + _messages(reply)
    if not isinstance(question, str) or not isinstance(reply, str) or not reply.strip():
        return None
    messages: list[Message] = []
    for turn in record.get("history") or []:
        if isinstance(turn, list) and len(turn) == 2 and all(isinstance(s, str) for s in turn):
            messages += _turn(*turn)
    contexts = (record.get(key) for key in CONTEXTS if key != prompt)
    texts = [question, *(each for each in contexts if isinstance(each, str))]
    return messages + _turn("\n\n".join(each for each in texts if each.strip()), reply)


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _messages(values: list[dict[str, Any]]) -> list[Message]:
    messages: list[Message] = []
    for number, value in enumerate(values, start=1):
        named = value["role"] if "role" in value else value["from"]
        role = ROLES.get(named.lower()) if isinstance(named, str) else None
        if role is None:
            known = "system, user, assistant and tool"
            raise RecordError(f'message {number} has the role "{named}"; known are {known}')
        content = next((value[k] for k in ("content", "value", "text") if value.get(k)), "")
        messages.append({"role": role, "content": _content(content, value, number)})
    return messages


def _content(content: Any, message: dict[str, Any], number: int) -> str:
    """Return the text of a message: its content, the parts of it, and its calls of tools."""
    parts = content if isinstance(content, list) else [content]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise RecordError(f"message {number} holds a part of type {kind}, not text")
        texts.append(text)
    for call in message.get("tool_calls") or []:
        call = call.get("function", call) if isinstance(call, dict) else call
        texts.append(json.dumps(call, ensure_ascii=False, default=str))
    return "\n".join(text for text in texts if text)
