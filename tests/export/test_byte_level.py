"""Models with byte-level tokenizers from elsewhere, in llama.cpp and transformers."""

import json

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from atlas.errors import AtlasError
from atlas.export.check.agreement import check_agreement, compare, expect
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.load import load_model
from atlas.params.runtime_support import architecture_of, class_of
from atlas.tokens.roles import Roles
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.tokenizer import Tokenizer
from tests.export.models import SHAPES, InProcess, bundle_of, store
from tests.small import text
from tests.tokens.test_byte_level import content

LLAMA_CPP, TRANSFORMERS = InProcess("llama.cpp"), InProcess("transformers")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VAL = [text(seed, sentences=6) for seed in range(3)]
MESSAGES = [
    {"role": "system", "content": "Speak of lamps."},
    {"role": "user", "content": " the lamp\n\n<|im_end|> 12'S e\u0301"},
    {"role": "assistant", "content": "sees"},
    {"role": "user", "content": "<|endoftext|>"},
]


def load(folder, pre="smollm", ends=("<stop>",), **changes):
    """A tokenizer with special tokens after the others, among them end tokens of any name."""
    spec = json.loads(content(pre, **changes))
    first = max(each["id"] for each in spec["added_tokens"])
    first = max(first, *spec["model"]["vocab"].values()) + 1
    template = spec["added_tokens"][0]
    spec["added_tokens"] += [
        template | {"id": first + number, "content": name} for number, name in enumerate(ends)
    ]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    stops = {"eos_token_id": [2, *range(first, first + len(ends))]}
    (folder / "generation_config.json").write_text(json.dumps(stops))
    return Tokenizer.load(folder)


def write(folder, tokenizer, **options):
    """A model from elsewhere with this tokenizer, in all forms."""
    roles = {"bos": tokenizer.bos, "end_ids": tuple(sorted(tokenizer.end_ids))}
    model = store(folder / "model", SHAPES["llama"] | roles | options, tokenizer)
    (folder / "model/base.json").write_text("{}")
    tokenizer.save(folder / "tokenizer")
    bundle = bundle_of(folder / "model", tokenizer)
    shape = bundle.config.model_dump()
    write_gguf(folder / "mine.gguf", bundle, architecture_of(shape), "f32")
    write_hugging_face(folder / "mine", bundle, class_of(shape))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    write(folder, load(folder / "source"))
    return folder


def test_tokens_logits_and_end_tokens_agree_in_both_runtimes(folder):
    ours = load_model(folder / "model")
    tokenizer = ours.tokenizer
    assert [tokenizer.piece(each) for each in sorted(tokenizer.end_ids)] == [
        "<|endoftext|>",
        "<|im_end|>",
        "<stop>",
    ]
    expected = expect(ours.model, tokenizer, VAL, prompts=2, greedy_tokens=20)
    for name, runtime in (("mine.gguf", LLAMA_CPP), ("mine", TRANSFORMERS)):
        agreement = compare(folder / name, expected, ours.model, 1e-4, runtime)
        check_agreement(folder / name, agreement, 1e-4, runtime)
        assert (agreement.token_mismatches, agreement.end_mismatches) == (0, 0)


def test_the_files_have_the_source_s_own_roles(folder):
    source, mine = folder / "source", folder / "mine"
    assert (mine / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    names = json.loads((mine / "tokenizer_config.json").read_text())
    assert (names["bos_token"], names["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert names["chat_template"] == TEMPLATE
    stop = json.loads((mine / "generation_config.json").read_text())["eos_token_id"]
    assert stop[:2] == [0, 2]
    assert json.loads((mine / "config.json").read_text())["eos_token_id"] == 2
    fields = GGUFReader(folder / "mine.gguf").fields
    keys = {key: fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre")}
    assert keys == {"model": "gpt2", "pre": "smollm"}
    ids = {
        key: fields[f"tokenizer.ggml.{key}_token_id"].contents() for key in ("bos", "eos", "eot")
    }
    assert ids == {"bos": 1, "eos": 2, "eot": stop[2]}
    assert "tokenizer.ggml.eom_token_id" not in fields


def test_a_conversation_has_the_same_ids_everywhere(folder):
    ours = load_model(folder / "model")
    others = [load_model(folder / name) for name in ("mine.gguf", "mine")]
    for chat in (MESSAGES[:2], MESSAGES[1:2], MESSAGES):
        ids = ours.encode_chat(chat)
        assert ids[:1] == [ours.config.bos]
        assert [each.encode_chat(chat) for each in others] == [ids, ids]
    assert {each.end_ids for each in (ours, *others)} == {ours.end_ids}
    plain = ours.encode("the <|im_end|> lamp")
    assert [each.encode("the <|im_end|> lamp") for each in others] == [plain, plain]


def test_composed_texts_are_compared_in_llama_cpp(tmp_path):
    tokenizer = load(tmp_path / "source", "qwen2", normalizer={"type": "NFC"})
    model = write(tmp_path, tokenizer)
    expected = expect(model, tokenizer, ["e\u0301 and \u0301"], prompts=1, greedy_tokens=5)
    for name, runtime in (("mine.gguf", LLAMA_CPP), ("mine", TRANSFORMERS)):
        agreement = compare(tmp_path / name, expected, model, 1e-4, runtime)
        check_agreement(tmp_path / name, agreement, 1e-4, runtime)


def test_end_tokens_that_llama_cpp_does_not_know_are_refused(tmp_path):
    tokenizer = load(tmp_path / "source", ends=("<a>", "<b>", "<c>", "<d>"))
    model = write(tmp_path, tokenizer)
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=5)
    agreement = compare(tmp_path / "mine.gguf", expected, model, 1e-4, LLAMA_CPP)
    with pytest.raises(AtlasError, match="2 end tokens don't end a text there"):
        check_agreement(tmp_path / "mine.gguf", agreement, 1e-4)


def test_a_model_whose_texts_begin_with_bos_does_so_in_transformers(tmp_path):
    tokenizer = load(tmp_path / "source")
    write(tmp_path, tokenizer, add_bos_token=True)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "mine")
    assert theirs("the lamp")["input_ids"] == [tokenizer.bos, *tokenizer.encode("the lamp")]
    again = Tokenizer.load(tmp_path / "mine")
    assert (again.bos, again.add_bos) == (tokenizer.bos, True)


@pytest.mark.slow
def test_a_sentencepiece_model_begins_texts_with_its_own_bos(tmp_path, tokenizer):
    end = "<|endoftext|>"
    roles = Roles("<|pad|>", end, None, "<unk>", (end,), add_bos=True, chat_template=TEMPLATE)
    other = SentencePieceTokenizer(tokenizer.model, roles=roles)
    model = write(tmp_path, other, add_bos_token=True)
    expected = expect(model, other, VAL, prompts=2, greedy_tokens=20)
    for name, runtime in (("mine.gguf", LLAMA_CPP), ("mine", TRANSFORMERS)):
        agreement = compare(tmp_path / name, expected, model, 1e-4, runtime)
        check_agreement(tmp_path / name, agreement, 1e-4, runtime)
    ours, *others = (load_model(tmp_path / name) for name in ("model", "mine.gguf", "mine"))
    ids = ours.encode("the lamp")
    assert ids[0] == other.bos != other.eos
    assert [each.encode("the lamp") for each in others] == [ids, ids]
    chat = [{"role": "user", "content": f"the{end}lamp"}]
    ids = ours.encode_chat(chat)
    assert other.eos not in ids  # nobody can type it
    assert [each.encode_chat(chat) for each in others] == [ids, ids]
