"""Conversations: rendered as transformers does, and only the model's own words are learned."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.params.schema import ChatParams
from atlas.tokens import conversations
from atlas.tokens.conversations import ConversationEncoder, marks
from atlas.tokens.train_tokenizer import make_tokenizer, train_tokenizer, with_template
from tests.code_walk import ROOT
from tests.small import small_params, text

NAMES = ("chatml", "llama3", "zephyr", "plain")
KINDS = {"bpe": 420, "unigram": 90, "byte_bpe": 360}  # and the size of its vocabulary
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}
TYPED = ["<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|endoftext|>", "<|pad|>", "<|user|>", "</s>"]
PART = st.one_of(
    st.sampled_from([*TYPED, "<|im_", "end|>", " ", "\n", "|", "<", "Assistant:"]),
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=4),
    st.sampled_from(text(1).split()),
)
CONTENT = st.lists(PART, max_size=8).map("".join)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": CONTENT}
)
CONVERSATION = st.lists(MESSAGE, max_size=6)


@pytest.fixture(autouse=True, scope="module")
def _in_the_project():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def template_named(name):
    return ChatParams(template=name).read()


@pytest.fixture(scope="module")
def encoders(_in_the_project):
    """An encoder of each template, with a tokenizer of each kind trained for it."""
    lines = [f"{text(seed)}\n" for seed in range(60)]
    found = {}
    for name in NAMES:
        for kind, size in KINDS.items():
            changes = {"tokenizer.kind": kind, "tokenizer.vocab_size": size}
            params = small_params(**changes).tokenizer
            tokenizer = train_tokenizer(lines, params, template_named(name))
            found[name, kind] = ConversationEncoder(tokenizer, tokenizer.chat_template)
    return found


def encode(encoder, *conversations):
    documents = [Document("d", "s", "", messages=list(each)) for each in conversations]
    return list(encoder.encode(documents))


def in_transformers(encoder, tmp_path):
    tokenizer = encoder._tokenizer
    tokenizer.save(tmp_path / "saved")
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "saved/tokenizer.json"), **tokenizer.special_names
    )
    fast.chat_template = tokenizer.chat_template
    return fast


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(messages=CONVERSATION)
def test_only_answers_and_their_end_are_learned(encoders, name, messages):
    for kind in KINDS:
        encoder = encoders[name, kind]
        tokenizer = encoder._tokenizer
        (encoded,) = encode(encoder, messages)
        end = tokenizer.special_ids[ENDS.get(name, "<|endoftext|>")]
        learned = encoded.ids[~encoded.given].tolist()
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        assert learned.count(end) == len(answers)
        assert not {*learned} & ({*tokenizer.special_ids.values()} - {end})
        expected: list[int] = []
        for answer in answers:
            answer = answer.strip() if name == "llama3" else answer
            expected += [*tokenizer.encode(f" {answer}" if name == "plain" else answer), end]
        assert learned == expected


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(messages=CONVERSATION)
def test_special_tokens_that_a_user_types_stay_text(encoders, name, messages):
    for kind in KINDS:
        encoder = encoders[name, kind]
        special = {*encoder._tokenizer.special_ids.values()}
        (encoded,) = encode(encoder, messages)
        (bare,) = encode(encoder, [message | {"content": "a"} for message in messages])
        specials = [
            [each for each in ids.tolist() if each in special] for ids, _ in (encoded, bare)
        ]
        assert specials[0] == specials[1]


@pytest.mark.parametrize("name", NAMES)
def test_texts_and_tokens_are_those_of_transformers(encoders, name, tmp_path):
    encoder = encoders[name, "byte_bpe"]
    fast = in_transformers(encoder, tmp_path)

    @settings(max_examples=60)
    @given(CONVERSATION.filter(bool))  # transformers refuses an empty one
    def check(messages):
        shown = "".join(part.text for part in encoder.parts(messages))
        assert shown == fast.apply_chat_template(messages, tokenize=False)
        if not any(typed in message["content"] for message in messages for typed in TYPED):
            (encoded,) = encode(encoder, messages)
            theirs = fast.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True
            )
            assert fast.decode(theirs["input_ids"]) == fast.decode(encoded.ids.tolist())

    check()


def test_documents_come_back_in_order(encoders):
    encoder = encoders["chatml", "bpe"]
    hello = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes."}]
    documents = [
        Document("a", "s", text(1)),
        Document("b", "s", "", messages=hello),
        Document("c", "s", "", messages=[]),
        Document("d", "s", ""),
        Document("e", "s", "", messages=hello * 2),
    ]
    encoded = list(encoder.encode(documents))
    tokenizer = encoder._tokenizer
    assert encoded[0].ids.tolist() == tokenizer.encode(text(1))
    assert not encoded[0].given.any()
    assert [len(each.ids) for each in encoded[2:4]] == [0, 0]
    assert encoded[4].ids.tolist() == encoded[1].ids.tolist() * 2
    assert tokenizer.decode(encoded[1].ids[~encoded[1].given]) == "Yes."


def test_all_of_a_conversation_is_learned_without_tags(encoders, caplog):
    tokenizer = encoders["chatml", "bpe"]._tokenizer
    template = conversations.without_tags(tokenizer.chat_template)
    encoder = ConversationEncoder(tokenizer, template)
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes."}]
    (learned,) = encode(encoder, messages)
    (given,) = encode(encoders["chatml", "bpe"], messages)
    assert learned.ids.tolist() == given.ids.tolist()
    assert not learned.given.any()
    conversations.warn_of_learning_all(tokenizer.chat_template)
    assert not caplog.records
    conversations.warn_of_learning_all(template)
    assert "has no {% generation %}, so all of each conversation is learned" in caplog.text


def test_the_marks_of_a_template_are_found():
    assert marks(template_named("chatml")) == ("<|im_start|>", "<|im_end|>")
    assert marks(template_named("plain")) == ()
    assert marks("{{ '[INST] ' + x + ' [/INST]' }}<s>a < b > c</s>") == (
        "[INST]",
        "[/INST]",
        "<s>",
        "</s>",
    )


def test_what_is_wrong_with_a_template_is_named(tmp_path, monkeypatch):
    lines = [f"{text(seed)}\n" for seed in range(60)]
    tokenizer = train_tokenizer(lines, small_params(**{"tokenizer.vocab_size": 420}).tokenizer)
    for damaged, message in (("{% for x in y %}\n{{ x", r"line 2: "), ("{% x %}", "line 1: ")):
        with pytest.raises(AtlasError, match=rf"chat\.template: {message}"):
            with_template(tokenizer, damaged)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat_templates").mkdir()
    (tmp_path / "chat_templates/mine.jinja").write_bytes(b"\xff")
    with pytest.raises(AtlasError, match=r"chat\.template: mine\.jinja is not a text \("):
        ChatParams(template="mine").read()
    with pytest.raises(AtlasError, match=r"its mark <\|im_start\|> is no special token"):
        with_template(tokenizer, "{{ '<|im_start|>' }}")
    with pytest.raises(AtlasError, match="no special token ends an answer"):
        with_template(tokenizer, "{% for m in messages %}{{ m.content }}{% endfor %}")


def test_a_tokenizer_keeps_its_template(encoders, tmp_path):
    for (name, kind), encoder in encoders.items():
        folder = tmp_path / name / kind
        folder.parent.mkdir(exist_ok=True)
        tokenizer = encoder._tokenizer
        tokenizer.save(folder)
        again = make_tokenizer(tmp_path, small_params(**{"tokenizer.path": str(folder)}).tokenizer)
        assert again.sha256 == tokenizer.sha256
        assert again.chat_template == tokenizer.chat_template == template_named(name)
        assert again.end_ids == tokenizer.end_ids
        assert again.end_ids >= {again.eos, encoder.end_of_turn()}
