"""Chat templates are programs from elsewhere: they have limits, and their errors are one line."""

import time

import pytest

from atlas.errors import AtlasError
from atlas.tokens import chat_template
from atlas.tokens.chat_template import ChatTemplate

HELLO = [{"role": "user", "content": "hello"}]
GOOD = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def process():
    """One process for all templates, as its start takes a second."""
    template = ChatTemplate(GOOD, {"bos_token": "<s>"})
    yield template
    template.close()


def render(process, template, messages=HELLO):
    process._template = template
    return process.render(messages)


def test_a_conversation_is_rendered(process):
    assert render(process, GOOD) == "<s><user>hello<assistant>"
    assert render(process, "{{ messages | tojson }}") == '[{"role": "user", "content": "hello"}]'
    odd = [{"role": "user", "content": "é\n\u2028\ud800\x00"}]
    assert render(process, "{{ messages[0].content }}", odd) == odd[0]["content"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('users\nalone') }}", "rejects this: users alone"),
        ("{% for m in messages %}", "rejects this: Unexpected end of template"),
        ("{{ messages[7].content.x }}", "rejects this: "),
        ("{{ 1 // 0 }}", "rejects this: integer division or modulo by zero"),
        ("{% for i in range(10**9) %}x{% endfor %}", "rejects this: Range too big"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "rejects this: maximum recursion"),
        ("{{ ''.__class__.__mro__ }}", "rejects this: .*unsafe"),
        ("{{ messages.append(1) }}", "rejects this: .*(unsafe|not safely callable)"),
        ("{{ cycler.__init__.__globals__.os.system('x') }}", "rejects this: .*"),
        ("{{ lipsum(n=100000) }}", "characters for this conversation|takes more than"),
        ("{{ 'x' * 10**7 }}", "writes 10,000,000 characters"),
        ("{{ 'x' * 10**10 }}", "rejects this: MemoryError"),
        ("{{ ('x' * 10**6) | list | map('upper') | list | join('y' * 10**4) }}", "rejects|takes"),
        ("{{ 'a'.join(['b' * 10**8] * 100) }}", "rejects this: MemoryError|takes more than"),
        ("(" * 3000 + "{{" + "(" * 3000 + ")" * 3000 + "}}", "rejects this|takes more than"),
    ],
)
def test_errors_are_one_line(process, template, message):
    with pytest.raises(AtlasError, match=message) as refused:
        render(process, template)
    assert "\n" not in str(refused.value)
    assert render(process, GOOD) == "<s><user>hello<assistant>"


def test_an_endless_template_is_ended_and_the_next_one_works(process):
    loop = "{% for i in range(99999) %}" * 4 + "{% set x = i * i %}" + "{% endfor %}" * 4
    started = time.monotonic()
    for template in (loop, "{{ (3 ** (3 ** 17)) % 7 }}"):
        with pytest.raises(AtlasError, match=r"takes more than 2 s or 512 MB"):
            render(process, template)
        assert render(process, GOOD) == "<s><user>hello<assistant>"
    assert time.monotonic() - started < 30 * chat_template.SECONDS
