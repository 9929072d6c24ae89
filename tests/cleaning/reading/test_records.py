from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.pieces import Rejection
from atlas.cleaning.reading.records import (
    MISSING,
    Template,
    conversation,
    cut_text,
    lookup,
    missing_field,
    record_documents,
)
from tests.cleaning.reading.raw_files import cleaning


def documents(record, **changes):
    return record_documents(record, "a:1", "a", cleaning(**changes), Counter())


def text(record, field="text"):
    (item,) = documents(record, text_field=field)
    return item.text if isinstance(item, Document) else f"{item.reason}: {item.detail}"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", {"b": "one", "c.d": "two"}),
        ("a.b", "one"),
        ("a.c.d", "two"),
        ("e.f", "literal"),
        ("list.0.text", "x"),
        ("list.1.text", "y"),
        ("list.text", ["x", "y"]),
        ("list.9", MISSING),
        ("list.none", MISSING),
        ("a.b.c", MISSING),
        ("none", MISSING),
        ("null", None),
    ],
)
def test_paths_lead_into_records(path, value):
    record = {
        "a": {"b": "one", "c.d": "two"},
        "e.f": "literal",
        "e": {"f": "nested"},
        "list": [{"text": "x"}, {"text": "y"}],
        "null": None,
    }
    assert lookup(record, path) == value or lookup(record, path) is value


def test_the_first_candidate_found_counts():
    candidates = ["text", "data.text", "{title}: {body}"]
    assert text({"data": {"text": "b"}, "text": "a"}, candidates) == "a"
    assert text({"data": {"text": "b"}, "text": None}, candidates) == "b"
    assert text({"title": "t", "body": "c"}, candidates) == "t: c"


@pytest.mark.parametrize(
    ("template", "record", "expected"),
    [
        ("{a}\\n\\n{b}", {"a": "1", "b": "2"}, "1\n\n2"),
        ("{a}\n\n{x.y}", {"a": "1", "x": {"y": "2"}}, "1\n\n2"),
        ("{{{a}}}", {"a": "1"}, "{1}"),
        ("{a} {n} {t}", {"a": "1", "n": 2.5, "t": ["3", "4"]}, "1 2.5 3\n\n4"),
        ("{a}\n\n{b}\n\n{c}", {"a": "1", "b": "", "c": "3"}, "1\n\n3"),
        ("{a}\n\n{b}\n\n{c}", {"a": "1", "b": None, "c": "3"}, "1\n\n3"),
        ("{a}\n{b}\n{c}", {"a": "1", "c": "3"}, "1\n3"),
        ("A: {a}\n\nInput:\n{b}\n\nC: {c}", {"a": "1", "b": " ", "c": "3"}, "A: 1\n\nC: 3"),
        ("{dc:title}!", {"dc:title": "x"}, "x!"),
        ("{a}", {"a": {"b": 1}}, 'no_text: "a" holds an object, not text; name one of its keys, '
         "as in a.KEY"),
    ],
)  # fmt: skip
def test_templates(template, record, expected):
    assert text(record, template) == expected


@given(st.text(alphabet="ab{}\n", max_size=20))
def test_a_template_without_fields_is_itself(literal):
    template = Template.parse(literal.replace("{", "{{").replace("}", "}}") + "{x}")
    assert template.fields() == ["x"]
    filled = template.fill({"x": "!"})
    assert filled == literal + "!"


@given(st.text(alphabet="ab \n", max_size=50), st.integers(1, 20))
def test_cutting_loses_nothing(content, size):
    parts = list(cut_text(content, size))
    assert "".join(parts) == content
    assert all(len(part) <= size for part in parts)


def test_lists_of_texts():
    record = {"text": ["one", None, ["two", ""]]}
    assert text(record) == "one\n\ntwo"
    items = documents(record, text_lists="documents")
    assert items == [Document("a:1#1", "a", "one"), Document("a:1#2", "a", "two")]
    assert text({"text": ["one", 2]}) == (
        'no_text: "text" holds a list with a number in it, not only text'
    )


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (1, '"text" holds a number, not text'),
        (True, '"text" holds true or false, not text'),
        ({"a": 1}, '"text" holds an object, not text'),
        (None, "text is null"),
    ],
)
def test_other_types_are_rejected(value, detail):
    assert documents({"text": value}) == [Rejection("a:1", "no_text", detail)]


def test_missing_keys_are_explained():
    found = missing_field([{"ID": 1, "Text": "x", "body": "longer"}], cleaning())
    assert found.endswith("keys found: ID, Text, body; did you mean Text?")
    found = missing_field([{"n": 1, "titel": "x", "b": "longer"}], cleaning(text_field="{title}"))
    assert found.startswith('no key "title" (clean.text_field)')
    assert found.endswith("did you mean titel?")
    found = missing_field([{str(n): n for n in range(50)}], cleaning())
    assert found.endswith("18, 19 and 30 more")


USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
ANYTHING = {"role": "user", "content": "Hi\n\nmore"}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": [USER, ASSISTANT]}, [USER, ASSISTANT]),
        ({"messages": [SYSTEM, USER, ASSISTANT], "id": 1}, [SYSTEM, USER, ASSISTANT]),
        ({"conversations": SHAREGPT}, [USER, ASSISTANT]),
        ({"system": "Be kind.", "conversations": SHAREGPT}, [SYSTEM, USER, ASSISTANT]),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, [USER, ASSISTANT]),
        ({"instruction": "Hi", "input": "more", "output": "Hello"}, [ANYTHING, ASSISTANT]),
        ({"instruction": "Hi", "context": "more", "response": "Hello"}, [ANYTHING, ASSISTANT]),
        ({"Question": "Hi", "Answer": "Hello"}, [USER, ASSISTANT]),
        ({"prompt": "Hi", "completion": "Hello"}, [USER, ASSISTANT]),
        ({"prompt": [USER], "completion": [ASSISTANT]}, [USER, ASSISTANT]),
        (
            {"instruction": "Hi", "output": "Hello", "history": [["Hi", "Hello"]]},
            [USER, ASSISTANT, USER, ASSISTANT],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            [USER],
        ),
        ({"messages": [{"role": "model", "text": "Hello"}]}, [ASSISTANT]),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
            [{"role": "assistant", "content": '{"name": "f", "arguments": "{}"}'}],
        ),
        ({"messages": "text"}, None),
        ({"messages": ["text"]}, None),
        ({"messages": []}, None),
        ({"question": "Hi", "answer": {"text": ["Hello"]}}, None),
        ({"prompt": "Hi"}, None),
    ],
)  # fmt: skip
def test_conversations_are_recognized(record, messages):
    assert conversation(record) == messages


def test_conversations_become_documents_with_messages():
    (item,) = documents({"messages": [USER, ASSISTANT]})
    assert item == Document("a:1", "a", "User: Hi\n\nAssistant: Hello", messages=[USER, ASSISTANT])
    assert Document.from_line(item.to_line()) == item
    assert b"messages" not in Document("a", "b", "c").to_line()
    assert text({"instruction": "Hi", "output": "Hello"}, "{instruction} {output}") == "Hi Hello"
    assert text({"text": "one", "messages": [USER]}) == "one"


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ({"role": "narrator", "content": "x"}, 'message 1 has the role "narrator"'),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part of type image_url"),
        ({"role": "user", "content": 5}, "a part of type int"),
    ],
)
def test_conversations_with_more_than_text_are_rejected(message, detail):
    (item,) = documents({"messages": [message]})
    assert detail in item.detail
