"""Tokenizers from elsewhere become sentencepiece models with the same ids."""

import io
import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import models

from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.export.gguf.writer import write_gguf
from atlas.params.runtime_support import architecture_of
from atlas.tokens.sentencepiece import SentencePieceTokenizer, merges
from atlas.tokens.tokenizer import Tokenizer
from tests.export.models import SHAPES, bundle_of, store
from tests.model.foreign.test_gguf import edit, write
from tests.small import text
from tests.tokens.test_train_tokenizer import train

LINES = [text(seed) + "\n  12 caf\u00e9" for seed in range(60)]
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
LLAMA = {
    "normalizer": {
        "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, REPLACE]
    }
}  # fmt: skip
SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
GEMMA = {"normalizer": REPLACE, "pre_tokenizer": SPLIT | {"invert": False}}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "split": False}
NO_SIGN = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")
TEXT = st.one_of(st.text(NO_SIGN, max_size=20), st.text("the lam1\n  "))


def sentencepiece_model(**changes):
    """A model with <unk>, <s> and </s>, as of Llama."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type="bpe", vocab_size=400,
        byte_fallback=True, minloglevel=3, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, **changes,
    )  # fmt: skip
    return model.getvalue()


def as_json(model, steps, extra=()):
    """The model as Hugging Face converts it; ``extra`` tokens are not special."""
    spec = ModelProto.FromString(model)
    vocabulary = {piece.piece: number for number, piece in enumerate(spec.pieces)}
    fast = tokenizers.Tokenizer(
        models.BPE(vocabulary, list(merges(spec)), unk_token="<unk>", byte_fallback=True)
    )
    fast.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast.add_tokens([tokenizers.AddedToken(each, normalized=False) for each in extra])
    return json.loads(fast.to_str()) | steps


def load(folder, spec, **config):
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return Tokenizer.load(folder)


FORMS = {
    "Llama 2": (True, LLAMA, ()),
    "Metaspace": (True, {"pre_tokenizer": METASPACE | {"prepend_scheme": "first"}}, ()),
    "Gemma": (False, GEMMA, ("<start_of_turn>", "\n\n")),
    "no blank": (False, {"pre_tokenizer": METASPACE | {"prepend_scheme": "never"}}, ()),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    found = {}
    for name, (prefix, steps, extra) in FORMS.items():
        spec = as_json(sentencepiece_model(add_dummy_prefix=prefix), steps, extra)
        ours = load(tmp_path_factory.mktemp("hf"), spec, add_bos_token=True)
        fast = tokenizers.Tokenizer.from_str(json.dumps(spec))
        fast.encode_special_tokens = True
        found[name] = ours, fast
    return found


def assert_equal(converted, string):
    for name, (ours, fast) in converted.items():
        given = string.lstrip(" ") if name == "Metaspace" else string
        assert ours.encode(given) == fast.encode(given, add_special_tokens=False).ids, name


def test_nasty_strings_have_the_ids_of_the_source(converted):
    for string in (*NASTY_STRINGS, *LINES[:3], "a<start_of_turn>b\n\nc"):
        assert_equal(converted, string)


@given(TEXT)
def test_any_string_has_the_ids_of_the_source(converted, string):
    assert_equal(converted, string)


def test_roles_are_kept(converted, tmp_path):
    for name, (ours, _) in converted.items():
        assert isinstance(ours, SentencePieceTokenizer)
        assert (ours.bos, ours.eos, ours.pad, ours.unk, ours.add_bos) == (1, 2, 2, 0, True)
        assert (ours.window_start, ours.end_ids) == (1, {2})
        ours.save(tmp_path / name)
        again = Tokenizer.load(tmp_path / name)
        assert (again.sha256, again.special_names) == (ours.sha256, ours.special_names)
        assert (again.bos, again.add_bos, again.model) == (1, True, ours.model)


def test_the_model_beside_it_is_preferred(tmp_path):
    model = sentencepiece_model()
    (tmp_path / "tokenizer.model").write_bytes(model)
    assert load(tmp_path, as_json(model, LLAMA)).model == model


def test_an_end_of_text_that_documents_could_hold_is_refused(tmp_path):
    model = sentencepiece_model(user_defined_symbols=["<end>"])
    (tmp_path / "tokenizer.model").write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    with pytest.raises(AtlasError, match="its end of text '<end>' is an ordinary piece"):
        Tokenizer.load(tmp_path)


def move_a_merge(pairs):
    """Move the second merge that makes a piece to the end."""
    pieces = ["".join(pair) for pair in pairs]
    second = next(n for n, piece in enumerate(pieces) if piece in pieces[:n])
    pairs.append(pairs.pop(second))


def broken(change):
    spec = as_json(sentencepiece_model(), LLAMA)
    change(spec)
    return spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (broken(lambda spec: spec["model"]["merges"].pop()), "it lacks some merges of two pieces"),
        (
            broken(lambda spec: move_a_merge(spec["model"]["merges"])),
            "merges that make the same piece are not next to each other",
        ),
        (broken(lambda spec: spec.update(normalizer={"type": "NFKC"})), "changes a text in a way"),
        (
            {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", -1.0]]}},
            "its model is Unigram, so it can't become a sentencepiece model",
        ),
        (as_json(sentencepiece_model(), LLAMA, ["<tool>"]), "a blank after each token that is not"),
    ],
)
def test_what_sentencepiece_can_not_express_is_refused(tmp_path, spec, message):
    with pytest.raises(AtlasError, match=message) as refused:
        load(tmp_path, spec)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "size"), [("bpe", 400), ("unigram", 90)])
def test_a_gguf_file_gives_back_the_model(tmp_path, kind, size):
    ours = train(LINES, kind=kind, vocab_size=size)
    model = store(tmp_path / "model", SHAPES["llama"], ours)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(tmp_path / "m.gguf", bundle_of(tmp_path / "model", ours), architecture, "f32")
    read = Tokenizer.load(tmp_path / "m.gguf")
    assert (read.kind, read.vocab_size, read.eos, read.pad) == (kind, size, ours.eos, ours.pad)
    read_pieces, pieces = (
        [(each.piece, each.score, each.type) for each in tokenizer.spec.pieces]
        for tokenizer in (read, ours)
    )
    assert read_pieces == pieces
    for string in (*NASTY_STRINGS, *LINES[:3]):
        assert read.encode(string) == ours.encode(string)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("token_type", [9] * 400, "unknown types"),
        ("scores", ["a"] * 400, "scores that are no numbers"),
        ("precompiled_charsmap", "abc", "precompiled_charsmap is not a list of bytes"),
    ],
)
def test_a_wrong_vocabulary_in_a_gguf_file_is_refused(tmp_path, key, value, message):
    write(tmp_path, SHAPES["llama"], train(LINES, kind="bpe", vocab_size=400))
    file = edit(tmp_path / "m.gguf", {f"tokenizer.ggml.{key}": value})
    with pytest.raises(AtlasError, match=message):
        Tokenizer.load(file)


def test_a_conversation_has_control_pieces(converted):
    ours, _ = converted["Llama 2"]
    processor = SentencePieceProcessor(model_proto=ours.model)
    assert ours.encode_chat("<s>the</s>") == [1, *processor.encode("the"), 2]
