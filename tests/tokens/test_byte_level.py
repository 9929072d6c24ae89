"""Byte-level BPE from elsewhere: the ids of tokenizers, transformers and llama.cpp for any text."""

import contextlib
import functools
import gzip
import json
import random
from pathlib import Path
from unicodedata import category

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.inference.backends.gguf import load_gguf
from atlas.tokens import tokenizer as tokenizer_module
from atlas.tokens.byte_level import ByteLevelTokenizer, GigatokenEncoder, TokenType, byte_letters
from atlas.tokens.pre_tokenizers import ANY_CASE, CONTRACTIONS, PRE_TOKENIZERS
from atlas.tokens.roles import Roles
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.small import small_params, text

LINES = [
    "I'll say it's 12 o'clock, 1234\u2026 they'Re 3.14!\n\n  \u00e9t\u00e9 \u0416\u0443\u043a\n",
    "def f(x):\n    return x**2  # \u00bd \u0663\u0664\r\n\tpass \u65e5\u672c\u8a9e\u3002x\n",
    " <|endoftext|> and <|im_end|>, e\u0301 \u0939\u093f\u0928\u094d\u0926\u0940 (a|b)\n",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SIGNS = " \n\t\r.,'!?(|\u3001\u3002\u00a0\u0301\u0939\u093f\x00\x04\x85\u2028\u017f\u212a"
WORDS = ["'s", "'LL", "'\u017f", "the", " 1", "12", "345", "\u0663", "\u00bd", "  ", "\n\n"]
TEXT = st.lists(
    st.one_of(
        st.sampled_from([*SIGNS, *WORDS, *SPECIAL, *text(1).split()]),
        st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=3),
    ),
    max_size=25,
).map("".join)


def content(pre="gpt-2", lines=(), vocab_size=700, **changes):
    """A tokenizer.json as Hugging Face writes it, trained on a few lines."""
    entry = PRE_TOKENIZERS[pre]
    fast = tokenizers.Tokenizer(models.BPE(ignore_merges=entry.ignore_merges))
    steps = json.dumps(entry.steps())
    spec = json.loads(fast.to_str()) | {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": json.loads(steps)}
    }
    fast = tokenizers.Tokenizer.from_str(json.dumps(spec))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    fast.train_from_iterator([*LINES * 20, *(text(seed) for seed in range(20)), *lines], trainer)
    return json.dumps(json.loads(fast.to_str()) | changes).encode()


def write_vocabulary(path, tokenizer, pre, **keys):
    """A GGUF file of a model with one tiny layer and this vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 32), (writer.add_embedding_length, 32),
        (writer.add_block_count, 1), (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 1), (writer.add_rope_dimension_count, 32),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_tokenizer_model, "gpt2"),
        (writer.add_tokenizer_pre, pre), (writer.add_token_list, tokenizer.tokens()),
        (writer.add_token_types, tokenizer.token_types()),
        (writer.add_token_merges, tokenizer.merges()),
        (writer.add_bos_token_id, tokenizer.bos), (writer.add_eos_token_id, tokenizer.eos),
        (writer.add_add_bos_token, tokenizer.add_bos),
    ):  # fmt: skip
        add(value)
    for key, value in keys.items():
        getattr(writer, f"add_{key}")(value)
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_gate", "ffn_down")
    for name in matrices:
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((32, 32), np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(32, np.float32))
    writer.add_tensor("token_embd.weight", np.zeros((tokenizer.vocab_size, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """The tokenizer of a GGUF file in llama.cpp."""

    def __init__(self, path):
        self.model = load_gguf(path)  # the vocabulary doesn't keep it alive
        self.vocabulary = self.model.get_vocab()

    def encode(self, string, *, is_chat=False):
        return list(self.vocabulary.tokenize(string, add_special=False, parse_special=is_chat))


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    """Each way to split: Atlas, transformers and llama.cpp with the same vocabulary."""
    folder = tmp_path_factory.mktemp("byte-level")
    found = {}
    for pre in PRE_TOKENIZERS:
        (folder / pre).mkdir()
        (folder / pre / "tokenizer.json").write_bytes(content(pre))
        ours = Tokenizer.load(folder / pre)
        write_vocabulary(folder / f"{pre}.gguf", ours, pre)
        theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / pre / "tokenizer.json"))
        found[pre] = ours, theirs, LlamaCpp(folder / f"{pre}.gguf")
    return found


def assert_equal(runtimes, strings):
    for ours, theirs, llama_cpp in runtimes.values():
        expected = [
            theirs.encode(each, add_special_tokens=False, split_special_tokens=True)
            for each in strings
        ]
        assert [ours.encode(each) for each in strings] == expected
        assert [ids.tolist() for ids in ours.encode_stream(strings)] == expected
        assert [llama_cpp.encode(each) for each in strings] == expected
        assert [ours.decode(ids) for ids in expected] == strings


def test_nasty_strings_have_the_same_ids_everywhere(runtimes):
    assert_equal(runtimes, [*NASTY_STRINGS, *LINES])


@settings(max_examples=60)
@given(st.lists(TEXT, min_size=5, max_size=5))
def test_any_strings_have_the_same_ids_everywhere(runtimes, strings):
    assert_equal(runtimes, strings)


@pytest.mark.very_slow
def test_real_text_has_the_same_ids_everywhere(tmp_path, corpora):
    """A vocabulary of 8,192 pieces, as Atlas trains it on novels."""
    novels = sorted((corpora / "novels").glob("*.gz"))[:8]
    documents = [Document(each.name, each.name, decoded(each)) for each in novels]
    params = small_params(**{"tokenizer.kind": "byte_bpe", "tokenizer.vocab_size": 8192}).tokenizer
    ours = train_tokenizer(lines_of(documents), params)
    ours.save(tmp_path / "t")
    write_vocabulary(tmp_path / "m.gguf", ours, ours.pre.name)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "t/tokenizer.json"))
    trio = {"trained": (ours, theirs, LlamaCpp(tmp_path / "m.gguf"))}
    assert_equal(trio, [*NASTY_STRINGS, *odd_strings(40_000)])
    for path in filter(Path.is_file, corpora.rglob("*")):
        assert_equal(trio, [decoded(path)])


def decoded(path):
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode(errors="replace")


def odd_strings(count):
    """Strings of signs, words, special tokens and characters of any script.

    Only assigned characters: which of the others are letters depends on the Unicode version, and
    llama.cpp does not know those of Unicode 16.
    """
    generator = random.Random(7)
    parts = [*SIGNS, *WORDS, *SPECIAL, "<s>", "</s>", "\u200d", "\ufeff", "\u3000", "\U0001f469"]
    assigned = (each for each in map(chr, range(0x110000)) if category(each) not in ("Cn", "Cs"))
    characters = list(assigned)
    for _ in range(count):
        pools = generator.choices([parts, characters[:0x3000], characters], k=20)
        yield "".join(map(generator.choice, pools[: generator.randint(1, 20)]))


def test_a_conversation_has_the_same_special_tokens_everywhere(runtimes):
    chat = "<|im_start|>user\nHello <|im_end|>\n<|im_start|>"
    for ours, theirs, llama_cpp in runtimes.values():
        ids = ours.encode_chat(chat)
        assert ids == theirs.encode(chat, add_special_tokens=False)
        assert ids == llama_cpp.encode(chat, is_chat=True)
        assert ids[0] == ids[-1] == ours.tokens().index("<|im_start|>")
        assert not ours.end_ids.intersection(ours.encode(chat))


def test_the_end_tokens_are_those_of_llama_cpp(runtimes):
    for ours, _, llama_cpp in runtimes.values():
        ids = range(ours.vocab_size)
        assert ours.end_ids == {each for each in ids if llama_cpp.vocabulary.is_eog(each)}
        assert ours.end_ids == {0, 2}


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_gguf_file_gives_back_its_tokenizer(tmp_path, runtimes, pre):
    ours = runtimes[pre][0]
    write_vocabulary(tmp_path / "m.gguf", ours, pre, eot_token_id=1, chat_template="{{ messages }}")
    read = Tokenizer.load(tmp_path / "m.gguf")
    assert (read.pre, read.tokens(), read.token_types()) == (
        ours.pre,
        ours.tokens(),
        ours.token_types(),
    )
    assert (read.merges(), read.chat_template) == (ours.merges(), "{{ messages }}")
    assert (read.eos, read.end_ids, read.add_bos) == (0, {0, 1, 2}, False)
    for string in LINES:
        assert read.encode(string) == ours.encode(string)
        assert read.encode_chat(string) == ours.encode_chat(string)


def test_a_long_text_has_the_same_ids_in_parts(runtimes, monkeypatch):
    long = "".join(LINES) * 3 + text(1)
    expected = {pre: ours.encode(long) for pre, (ours, *_) in runtimes.items()}
    monkeypatch.setattr(tokenizer_module, "BLOCK", 40)
    for pre, (ours, *_) in runtimes.items():
        assert len(list(ours.blocks([long]))) > 5
        assert ours.encode(long) == expected[pre]


def test_which_splits_gigatoken_encodes(runtimes):
    fast = {
        pre
        for pre, (ours, *_) in runtimes.items()
        if isinstance(ours.bulk_encoder, GigatokenEncoder)
    }
    assert fast == {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35"}


@given(TEXT)
def test_spellings_of_other_files(string):
    """Composed characters, the other spelling of contractions, and tokens that are not special."""
    for tokenizer, fast in others():
        expected = fast.encode(string, add_special_tokens=False).ids
        assert tokenizer.encode(string) == expected
        assert next(tokenizer.encode_stream([string])).tolist() == expected


@functools.cache
def others():
    """Pairs of our tokenizer and that of the library."""
    plain = json.loads(content("qwen2"))
    any_case = json.loads(content("qwen2").decode().replace(CONTRACTIONS, ANY_CASE))
    composing = {"normalizer": {"type": "NFC"}}
    found = []
    for spec in (
        plain | composing,
        any_case | composing,
        with_tokens(plain, *(" " * size for size in (2, 3, 4))),
        with_tokens(plain, "the lamp"),
    ):
        data = json.dumps(spec).encode()
        fast = tokenizers.Tokenizer.from_buffer(data)
        fast.encode_special_tokens = True
        found.append((ByteLevelTokenizer(data, ROLES), fast))
    return found


def with_tokens(spec, *words):
    """Add tokens that are not special."""
    rules = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    first = len(spec["model"]["vocab"])
    added = [{"id": first + number, "content": word} | rules for number, word in enumerate(words)]
    return spec | {"added_tokens": [*spec["added_tokens"], *added]}


ROLES = Roles("<|im_start|>", "<|im_end|>", None, None, ("<|endoftext|>", "<|im_end|>"), False)


def saved(folder, **files):
    (folder / "tokenizer.json").write_bytes(content())
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return Tokenizer.load(folder / "tokenizer.json")


def test_roles_come_from_the_files_beside_it(tmp_path):
    tokenizer = saved(
        tmp_path,
        tokenizer_config={
            "bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>",
            "add_bos_token": True, "chat_template": [{"name": "default", "template": "{{ x }}"}],
        },
        special_tokens_map={"pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        generation_config={"eos_token_id": [2, 1]},
        config={"eos_token_id": 300},  # an ordinary piece
    )  # fmt: skip
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk) == (1, 0, 0, None)
    assert (tokenizer.end_ids, tokenizer.add_bos) == ({0, 1, 2}, True)
    assert tokenizer.chat_template == "{{ x }}"
    assert tokenizer.special_names == {
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
    }  # fmt: skip
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    for key in (
        "sha256",
        "bos",
        "eos",
        "pad",
        "end_ids",
        "add_bos",
        "special_names",
        "chat_template",
    ):
        assert getattr(again, key) == getattr(tokenizer, key)
    assert (tmp_path / "saved/tokenizer.json").read_bytes() == content()


def test_without_such_files_the_names_tell(tmp_path):
    tokenizer = saved(tmp_path)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.add_bos) == (0, 0, 0, False)
    name = "<|im_start|>"
    parts = [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {
        "type": "TemplateProcessing", "single": parts, "pair": [],
        "special_tokens": {name: {"id": name, "ids": [1], "tokens": [name]}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_bytes(content(post_processor=template))
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos, tokenizer.add_bos) == (1, True)
    assert tokenizer.encode("the") == tokenizer.encode_chat("the")  # bos is added by the windows


@pytest.mark.parametrize("template", [[1], [{"name": "default", "template": {}}], {}])
def test_a_template_that_is_no_text_is_none(tmp_path, template):
    assert saved(tmp_path, tokenizer_config={"chat_template": template}).chat_template is None


def test_ends_that_are_no_names_are_left_out(tmp_path):
    config = {"eos_token": "<|im_end|>", "end_tokens": [{}, "<|endoftext|>"]}
    assert saved(tmp_path, tokenizer_config=config).end_ids == {0, 2}


def test_an_end_of_text_that_documents_could_hold_is_refused(tmp_path):
    spec = with_tokens(json.loads(content()), "<end>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    with pytest.raises(AtlasError, match="the text '<end>' encodes to the special token"):
        Tokenizer.load(tmp_path)


def test_pieces_are_readable(tmp_path):
    tokenizer = saved(tmp_path)
    assert tokenizer.piece(tokenizer.encode(" the")[0]) == " the"
    assert tokenizer.piece(0) == "<|endoftext|>"
    assert tokenizer.piece_bytes(0) == b""
    part = tokenizer.encode("\u2603")[0]
    assert (tokenizer.piece(part), tokenizer.piece_bytes(part)) == ("<0xE2>", b"\xe2")
    assert not any(map(tokenizer.is_text, (0, part, tokenizer.encode("\x01")[0])))
    assert tokenizer.is_text(tokenizer.encode("\n")[0])
    assert tokenizer.token_types()[:4] == [TokenType.CONTROL] * 3 + [TokenType.NORMAL]


def without_bytes(*letters):
    spec = json.loads(content(lines=["....\n"] * 99))
    for letter in letters:
        del spec["model"]["vocab"][letter]
    spec["model"]["merges"] = [
        m for m in spec["model"]["merges"] if not {*letters} & {*m[0], *m[1]}
    ]
    ids = {old: new for new, old in enumerate(sorted(spec["model"]["vocab"].values()))}
    spec["model"]["vocab"] = {token: ids[old] for token, old in spec["model"]["vocab"].items()}
    return json.dumps(spec).encode()


def test_bytes_without_a_piece_are_left_out(tmp_path):
    """As in the vocabulary of SmolLM2, from tokenizers' point of view and from llama.cpp's."""
    ours = ByteLevelTokenizer(without_bytes("\u0104", "\u00f1"), ROLES)
    fast = tokenizers.Tokenizer.from_buffer(ours.content)
    write_vocabulary(tmp_path / "m.gguf", ours, "gpt-2")
    from_gguf, llama_cpp = Tokenizer.load(tmp_path / "m.gguf"), LlamaCpp(tmp_path / "m.gguf")
    theirs = tokenizers.Tokenizer.from_buffer(from_gguf.content)
    for string in ("..\x04..", "\x04", "the lamp", "t\U00040000he", "\x04..\x04\x04"):
        expected = fast.encode(string).ids
        assert ours.encode(string) == next(ours.encode_stream([string])).tolist() == expected
        expected = llama_cpp.encode(string)
        assert theirs.encode(string).ids == expected
        assert (
            from_gguf.encode(string) == next(from_gguf.encode_stream([string])).tolist() == expected
        )
    assert ours.decode(ours.encode("..\x04..")) == "...."
    assert ours.encode("..\x04..") != from_gguf.encode("..\x04..")


def bad(**changes):
    spec = json.loads(content())
    for path, value in changes.items():
        *parents, key = path.split("__")
        place = spec
        for each in parents:
            place = place[each]
        place[key] = value
    return json.dumps(spec).encode()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__type": "WordPiece"}, "its model is WordPiece, not BPE"),
        ({"model__vocab": [["a", 0.5]]}, "no vocabulary of byte-pair encoding"),
        ({"model__dropout": 0.1}, r"its model has dropout=0\.1"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer .*Lowercase.* is neither NFC nor"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "a step Whitespace with .*supported.*gpt-2"),
        ({"pre_tokenizer": None}, r"no known step \(null\)"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated"},
                BYTE_LEVEL,
            ]}},
            r'splits by \["\[aeiou\]"\], which is none of those that llama.cpp calls gpt-2',
        ),
        ({"model__ignore_merges": True}, "splits as gpt-2, but with ignore_merges=true"),
        (
            {"added_tokens": [{"id": 9, "content": "x", "special": False, "lstrip": True}]},
            "its token 'x' has the rule lstrip",
        ),
        ({"model__vocab__zz": 1 << 31}, "its ids have too many gaps"),
    ],
)  # fmt: skip
def test_what_llama_cpp_could_not_follow_is_refused(changes, message):
    with pytest.raises(AtlasError, match=message) as refused:
        ByteLevelTokenizer(bad(**changes), ROLES, "own.json")
    assert str(refused.value).startswith("own.json: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"model": 1}'])
def test_any_other_file_is_refused(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(AtlasError, match=r"tokenizer\.json: "):
        Tokenizer.load(tmp_path)


def test_damage_is_refused_or_harmless():
    data, generator = content(), random.Random(1)
    for _ in range(30):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        with contextlib.suppress(AtlasError):
            assert isinstance(ByteLevelTokenizer(bytes(damaged), ROLES).encode("the lamp"), list)


def test_without_an_end_the_tokenizer_is_refused(tmp_path):
    spec = json.loads(content())
    for token in spec["added_tokens"]:
        token["content"] = f"[{token['id']}]"
    spec["model"]["vocab"] = {
        f"[{i}]" if i < 3 else token: i for token, i in spec["model"]["vocab"].items()
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(AtlasError, match=r"no token ends a text: name one in tokenizer_config"):
        Tokenizer.load(tmp_path)


def test_an_unknown_name_in_a_gguf_file_is_refused(tmp_path, runtimes):
    write_vocabulary(tmp_path / "m.gguf", runtimes["gpt-2"][0], "tekken")
    with pytest.raises(AtlasError, match=r"pre-tokenizer 'tekken' is not supported; .*gpt-2"):
        Tokenizer.load(tmp_path / "m.gguf")


def test_byte_letters_are_those_of_gpt_2():
    letters = byte_letters()
    assert len(letters) == len(set(letters.values())) == 256
    assert b"".join(map(letters.__getitem__, "Ġlamp!Ċĉ\u0143é")) == b" lamp!\n\t\xad\xe9"
