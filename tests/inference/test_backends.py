"""One model in three forms, which all generate the same text."""

import copy
import json

import numpy as np
import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.atlas import AtlasModel
from atlas.inference.backends.base import comes_from_elsewhere
from atlas.inference.backends.load import load_model
from atlas.inference.batch import Token, TokenSequence
from atlas.inference.generate import generate
from atlas.inference.sampling import GREEDY, Sampling
from atlas.params.runtime_support import architecture_of, class_of
from tests.export.models import SHAPES, bundle_of, store

ENGINES = {"model": "PyTorch", "mine": "transformers", "mine.gguf": "llama.cpp"}
REFUSAL = "{% if m.role != 'user' %}{{ raise_exception('users alone') }}{% endif %}"
TEMPLATE = (
    "{% for m in messages %}"
    + REFUSAL
    + "<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    + ("{% if add_generation_prompt %}<assistant>{% endif %}")
)


def write_forms(folder, tokenizer):
    source = bundle_of(folder / "model", tokenizer)
    write_gguf(folder / "mine.gguf", source, architecture_of(source.config.model_dump()), "f32")
    write_hugging_face(folder / "mine", source, class_of(source.config.model_dump()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("opened")
    store(folder / "model", SHAPES["llama"], tokenizer)
    tokenizer.save(folder / "tokenizer")
    write_forms(folder, tokenizer)
    return folder


@pytest.fixture(scope="module", params=ENGINES)
def opened(folder, request):
    torch.set_num_threads(1)
    return load_model(folder / request.param)


@pytest.fixture(scope="module")
def ours(folder):
    return load_model(folder / "model")


def written(opened, prompts, most, sampling=GREEDY, on_overflow="slide"):
    texts = [TokenSequence(opened.encode(prompt), most, sampling) for prompt in prompts]
    list(opened.run(texts, on_overflow))
    return [text.output_ids for text in texts]


def test_each_form_is_recognized_by_its_files(folder):
    for name, engine in ENGINES.items():
        opened = load_model(folder / name)
        assert (opened.engine, opened.context_length) == (engine, 96)
        assert opened.vocab_size == load_model(folder / "model").vocab_size


def test_prompts_and_texts_are_those_of_the_tokenizer(opened, tokenizer):
    for text in ("the lamp", " two  blanks\n", "é€😀 and more", "<|endoftext|>"):
        assert opened.encode(text) == tokenizer.encode(text)
        assert opened.decode(tokenizer.encode(text)) == text
    assert opened.encode("") == [tokenizer.eos]
    assert opened.end_ids == {tokenizer.eos}
    assert opened.decode([tokenizer.eos, *tokenizer.encode("é")[:1]]) == "\ufffd"


def test_each_form_of_a_model_of_whole_documents_starts_with_bos(tmp_path, tokenizer):
    store(tmp_path / "model", SHAPES["llama"] | {"add_bos_token": True}, tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    write_forms(tmp_path, tokenizer)
    for name in ENGINES:
        opened = load_model(tmp_path / name)
        assert opened.encode("the lamp") == [tokenizer.eos, *tokenizer.encode("the lamp")]
        assert opened.encode("") == [tokenizer.eos]


def test_each_form_continues_alike(opened, ours):
    prompts = ["the lamp", "one stone holds", ""]
    assert written(opened, prompts, 40) == written(ours, prompts, 40)
    sampling = Sampling(seed=5)
    assert written(opened, prompts, 20, sampling) == written(ours, prompts, 20, sampling)


def test_each_form_scores_prompts_alike(opened, ours):
    prompts = [ours.encode(text) for text in ("one stone holds the lamp", "a lamp")]
    close = 1e-2 if opened.engine == "llama.cpp" else 1e-4  # keys and values in half precision
    with torch.no_grad():
        expected = [ours.model(torch.tensor([ids]))[0].log_softmax(-1) for ids in prompts]
    texts = [TokenSequence(ids, 3, GREEDY, 2, score_prompt=True) for ids in prompts]
    plain = TokenSequence(prompts[0], 3, GREEDY)
    list(opened.run([texts[0], plain, texts[1]]))
    assert texts[0].output_ids == plain.output_ids
    for ids, logprobs, text in zip(prompts, expected, texts, strict=True):
        assert text.scored_prompt[0] == Token(ids[0])
        assert [token.id for token in text.scored_prompt] == ids
        for token, row in zip(text.scored_prompt[1:], logprobs, strict=False):
            assert token.logprob == pytest.approx(float(row[token.id]), abs=close)
            assert token.top_logprobs[0][1] == pytest.approx(float(row.max()), abs=close)


def test_each_form_continues_beyond_its_context(opened, ours):
    assert written(opened, ["a lamp"], 150) == written(ours, ["a lamp"], 150)
    (short,) = written(opened, ["a lamp"], 150, on_overflow="stop")
    assert len(short) == 96 - len(ours.encode("a lamp")) + 1


def test_the_ids_are_those_of_generate(ours):
    prompt = ours.encode("the lamp")
    assert written(ours, ["the lamp"], 30) == [list(generate(ours.model, prompt, 30, GREEDY))]


def chat(*contents):
    """A conversation that a user begins."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": each} for i, each in enumerate(contents)]


def test_a_conversation_is_one_text(opened):
    assert opened.decode(opened.encode_chat(chat("the lamp", "sees"))) == "the lampsees"
    assert opened.decode(opened.encode_chat(chat("the lamp", "sees", "one"))) == "the lampsees\none"
    system = {"role": "system", "content": ""}
    assert opened.decode(opened.encode_chat([system, *chat(" the\n\n")])) == " the\n\n"


@pytest.mark.parametrize("kind", ["plain", "bos", "questions"])
def test_each_form_encodes_a_conversation_alike(tmp_path, tokenizer, kind):
    options = {"add_bos_token": kind != "plain"}
    options |= {"separator": tokenizer.encode(".")[-1]} if kind == "questions" else {}
    store(tmp_path / "model", SHAPES["llama"] | options, tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    write_forms(tmp_path, tokenizer)
    ours, *others = (load_model(tmp_path / name) for name in ENGINES)
    texts = ("the lamp", " sees\n", "one <|endoftext|> of <b> & 'two'", "\u00e9\u20ac", "", "over.")
    for number in range(1, len(texts) + 1):
        ids = ours.encode_chat(chat(*texts[:number]))
        assert [each.encode_chat(chat(*texts[:number])) for each in others] == [ids, ids]
    assert ours.decode(ours.encode_chat(chat("one.", "two", "over."))) == (
        "over." if kind == "questions" else "one.two\nover."
    )


def test_a_template_is_used(folder, tmp_path, tokenizer):
    import shutil

    import gguf

    shutil.copytree(folder / "mine", tmp_path / "mine")
    config = tmp_path / "mine/tokenizer_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"chat_template": TEMPLATE}))
    reader = gguf.GGUFReader(folder / "mine.gguf")
    writer = gguf.GGUFWriter(tmp_path / "mine.gguf", "llama")
    replaced = ("general.architecture", "tokenizer.chat_template")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in replaced:
            writer.add_key_value(
                field.name, field.contents(), field.types[0],
                field.types[-1] if len(field.types) > 1 else None,
            )  # fmt: skip
    writer.add_chat_template(TEMPLATE)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    messages = [{"role": "user", "content": "hello"}]
    for name in ("mine", "mine.gguf"):
        opened = load_model(tmp_path / name)
        assert opened.decode(opened.encode_chat(messages)) == "<user>hello\n<assistant>"
        typed = opened.encode_chat([{"role": "user", "content": "one <|endoftext|><|pad|>"}])
        assert opened.decode(typed) == "<user>one <|endoftext|><|pad|>\n<assistant>"
        assert not {tokenizer.eos, tokenizer.pad}.intersection(typed)
        with pytest.raises(AtlasError, match="its chat template rejects this: users alone"):
            opened.encode_chat([{"role": "system", "content": "hello"}])


def test_a_model_from_elsewhere_speaks_its_tokenizer_s_template(tmp_path, tokenizer):
    other = copy.copy(tokenizer)
    other.chat_template = TEMPLATE + "{{ eos_token }}{{ bos_token }}"
    other.special_names = {"bos_token": "<|pad|>", "eos_token": "<|endoftext|>"}
    options = SHAPES["llama"] | {"end_ids": (other.eos, 7), "context_length": 5000}
    model = store(tmp_path / "model", options, tokenizer)
    scratch = AtlasModel(model.config, other, "scratch", lambda: model)
    messages = [{"role": "user", "content": "hello"}]
    assert scratch.encode_chat(messages) == tokenizer.encode("hello")
    assert scratch.context_length == 5000
    tuned = AtlasModel(model.config, other, "tuned", lambda: model, from_elsewhere=True)
    expected = [*tokenizer.encode("<user>hello\n<assistant>"), other.eos, other.pad]
    assert tuned.encode_chat(messages) == expected
    typed = "<|endoftext|> two"
    expected[:-2] = tokenizer.encode(f"<user>{typed}\n<assistant>")
    assert tuned.encode_chat([{"role": "user", "content": typed}]) == expected
    assert tuned.encode_special("") == [model.config.bos]
    assert (tuned.end_ids, tuned.context_length) == ({other.eos, 7}, 4096)
    learned = model.config.model_copy(update={"is_chat": True, "add_bos_token": True})
    chats = AtlasModel(learned, other, "chats", lambda: model)
    assert chats.encode_chat([{"role": "user", "content": typed}]) == [chats.config.bos, *expected]
    with pytest.raises(AtlasError, match="tuned: its chat template rejects this: users alone"):
        tuned.encode_chat([{"role": "system", "content": "hello"}])
    assert not comes_from_elsewhere(tmp_path / "model")
    (tmp_path / "model/base.json").write_text("{}")
    assert comes_from_elsewhere(tmp_path / "model")


def test_every_end_token_ends_a_text(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    whole = generate(model, [3, 5], 20, GREEDY)
    end = whole[10]
    model.config = model.config.model_copy(update={"end_ids": (tokenizer.eos, end)})
    assert generate(model, [3, 5], 20, GREEDY) == whole[: whole.index(end)]


def test_attention_of_the_last_token(ours, opened):
    ids = ours.encode("one stone holds the lamp")
    assert opened.has_attention == (opened.engine == "PyTorch")
    if not opened.has_attention:
        with pytest.raises(AtlasError, match="gives no attention"):
            opened.attention(ids)
        return
    maps = np.array(opened.attention(ids))
    assert maps.shape == (2, 4, len(ids))
    assert np.allclose(maps.sum(-1), 1, atol=1e-5)


def test_a_question_is_asked_alone(tokenizer):
    from atlas.model.weights import initialize, make_model
    from tests.small import small_config

    shape = {"vocab_size": tokenizer.vocab_size, "eos": tokenizer.eos}
    separator = tokenizer.encode(".")[-1]
    model = make_model(small_config(kind="encoder_decoder", separator=separator, **shape)).eval()
    initialize(model, 0)
    opened = AtlasModel(model.config, tokenizer, "questions", lambda: model)
    messages = [{"role": "user", "content": each} for each in ("one.", "two.")]
    assert opened.encode_chat(messages) == [tokenizer.eos, *tokenizer.encode("two.")]
    assert not opened.backend(1).can_slide
    assert not opened.has_attention
    with pytest.raises(AtlasError, match="the prompt is not a question"):
        opened.encode("two")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.gguf", b"GGUF but no more", "of GGUF; Atlas reads versions 2"),
        ("empty.gguf", b"", "not a GGUF file"),
        ("text.txt", b"x", "not a model; give a folder or a file that ends in .gguf"),
        ("folder/config.json", b'{"architectures": ["LlamaForCausalLM"]}', "transformers can't"),
        ("folder/config.json", b'{"architectures": ["NoSuchModel"]}', "transformers can't"),
        ("folder/config.json", b"{}", "not a model of this version"),
        ("folder/config.json", b"\xff", "not a model of this version"),
    ],
)
def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    given = path.parent if path.parent != tmp_path else path
    with pytest.raises(AtlasError, match=message) as refused:
        load_model(given)
    assert "\n" not in str(refused.value)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(AtlasError, match=r"nothing/config.json: no such file"):
        load_model(tmp_path / "nothing")
    with pytest.raises(AtlasError, match=r"x.gguf: no such file"):
        load_model(tmp_path / "x.gguf")
