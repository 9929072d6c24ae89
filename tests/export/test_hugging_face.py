"""Tiny models of every row of the table of classes, written and run in transformers."""

import json
from dataclasses import replace
from itertools import product

import pytest
import transformers

from atlas.errors import AtlasError
from atlas.export.check.agreement import TRANSFORMERS, check_agreement, compare, expect
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.generate import generate
from atlas.inference.sampling import GREEDY
from atlas.params.runtime_support import CLASSES, class_of
from tests.export.models import SHAPES, WIDE, InProcess, bundle_of, store, store_changed
from tests.small import text

IN_PROCESS = InProcess("transformers")
VAL = [text(seed, sentences=6) for seed in range(500, 503)]
FREE = {
    "feed_forward": ("swiglu", "geglu", "gelu", "silu", "relu", "relu2"),
    "bias": (False, True, "qkv", "norm", "qkv_norm"),
    "d_head": (None, 24),
    "window": (None, 7),
    "no_rope_every": (2,),
    "rotary_share": (1.0, 0.5),
    "rope_scaling_rotations": (None,),
}
SCALING = {
    "linear": {"rope_scaling": 3.0},
    "yarn": {"rope_scaling": 3.0, "rope_scaling_context": 32},
    "llama3": {"rope_scaling": 3.0, "rope_scaling_context": 64, "rope_theta": 500.0},
}
KEYS = ("positions", "feed_forward", "bias", "d_head", "window", "rotary_share")


def allowed_by(row):
    """Values of each option that a row of the table allows."""
    allowed = {key: values or FREE[key] for key, values in {**FREE, **row.allowed}.items()}
    # Without a window, Mistral is Llama.
    return allowed | {"window": (7,)} if row.model_type == "mistral" else allowed


def usual(row):
    """A model that a row of the table supports."""
    return WIDE | {key: values[0] for key, values in allowed_by(row).items()}


def rows():
    """Each value of each option, and all feed-forward layers with all biases."""
    for row in CLASSES:
        allowed = allowed_by(row)
        varied = [usual(row) | {key: value} for key in KEYS for value in allowed[key][1:]]
        pairs = product(allowed["positions"], allowed["feed_forward"], allowed["bias"])
        varied += [usual(row) | dict(zip(KEYS, each, strict=False)) for each in pairs]
        for number, options in enumerate([usual(row), *varied]):
            more = {"tied_head": number % 2 == 0, "n_kv_head": (1, 2, 4)[number % 3]}
            if options["feed_forward"] == "geglu":
                more["tied_head"] = row.model_type == "gemma"  # with a tied head, Llama is Gemma
            kinds = allowed["rope_scaling_kind"]
            if options["positions"] == "rope" and (kind := kinds[number % len(kinds)]):
                more |= SCALING[kind] | {"rope_scaling_kind": kind}
            names = (str(options[key]) for key in KEYS)
            marks = () if number < 4 else pytest.mark.very_slow
            yield pytest.param(
                options | more, id="-".join((row.model_type, str(number), *names)), marks=marks
            )


@pytest.mark.parametrize("options", list(rows()))
def test_transformers_gives_the_same_tokens_logits_and_text(tmp_path, tokenizer, options, request):
    model = store(tmp_path / "model", options, tokenizer)
    name = request.node.callspec.id.split("-")[0]
    kind = class_of(model.config.model_dump(), name)  # as if the tokenizer were that of the class
    assert kind.model_type == name
    folder = tmp_path / "hf"
    write_hugging_face(folder, bundle_of(tmp_path / "model", tokenizer), kind)
    expected = expect(model, tokenizer, VAL, prompts=3, greedy_tokens=60)
    agreement = compare(folder, expected, model, 1e-4, IN_PROCESS)
    assert agreement.texts > 60
    if kind.pre_tokenizer:  # it would read our tokenizer as its own
        agreement = replace(agreement, token_mismatches=0)
    check_agreement(folder, agreement, 1e-4, TRANSFORMERS)
    assert (agreement.greedy_tokens, agreement.greedy_mismatches) == (180, 0)


@pytest.mark.slow
def test_the_check_takes_a_process_of_its_own_and_notices_a_wrong_weight(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=10)
    store_changed(tmp_path / "model", model)
    kind = class_of(model.config.model_dump())
    write_hugging_face(tmp_path / "hf", bundle_of(tmp_path / "model", tokenizer), kind)
    agreement = compare(tmp_path / "hf", expected, model, 1e-4, TRANSFORMERS)
    assert agreement.token_mismatches == 0
    with pytest.raises(AtlasError, match=r"hf: transformers disagrees with PyTorch: logits"):
        check_agreement(tmp_path / "hf", agreement, 1e-4, TRANSFORMERS)


def test_generate_stops_and_samples_as_the_folder_says(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    kind = class_of(model.config.model_dump())
    write_hugging_face(tmp_path / "hf", bundle_of(tmp_path / "model", tokenizer), kind)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    told = loaded.generation_config
    assert (told.do_sample, told.temperature, told.top_k, told.top_p) == (True, 0.8, 50, 0.95)
    assert told.eos_token_id == loaded.config.eos_token_id == tokenizer.eos
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert theirs.eos_token == "<|endoftext|>"
    assert theirs("<|endoftext|>")["input_ids"] == [tokenizer.eos]  # as usual in transformers
    ids = theirs("the lamp", return_tensors="pt")
    greedy = loaded.generate(**ids, do_sample=False, max_new_tokens=20)[0].tolist()
    ours = list(generate(model, tokenizer.encode("the lamp"), 20, GREEDY))
    assert greedy[len(ids["input_ids"][0]) :][: len(ours)] == ours
    longest = loaded.generate(**ids, do_sample=False)  # without a limit: up to the context
    assert longest.shape[1] == 96 or longest[0, -1] == tokenizer.eos


@pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(usual(row), id=row.model_type) for row in CLASSES),
        *(pytest.param(usual(CLASSES[i]) | {"positions": "none"}, id=f"{i}") for i in (0, 2, 7)),
        pytest.param(SHAPES["llama"] | {"add_bos_token": True}, id="bos"),
    ],
)
def test_a_padded_batch_continues_as_each_prompt_alone(tmp_path, tokenizer, options):
    model = store(tmp_path / "model", options, tokenizer)
    source = bundle_of(tmp_path / "model", tokenizer)
    write_hugging_face(tmp_path / "hf", source, class_of(model.config.model_dump()))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    prompts = ["the", "one stone holds the lamp. And", "a river\n", "\u00e9\u20ac"]
    batch = theirs(prompts, return_tensors="pt", padding=True)
    assert set(batch) == {"input_ids", "attention_mask"}
    rows = loaded.generate(**batch, do_sample=False, max_new_tokens=30).tolist()
    start = batch["input_ids"].shape[1]
    for prompt, row in zip(prompts, rows, strict=True):
        ours = generate(model, tokenizer.encode(prompt), 30, GREEDY)
        assert row[start : start + len(ours)] == ours


@pytest.mark.parametrize("rope_scaling", [1.0, 4.0])
def test_config_has_the_keys_that_other_readers_look_for(tmp_path, tokenizer, rope_scaling):
    store(tmp_path / "model", SHAPES["llama"] | {"rope_scaling": rope_scaling}, tokenizer)
    source = bundle_of(tmp_path / "model", tokenizer)
    write_hugging_face(tmp_path / "hf", source, class_of(source.config.model_dump()))
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["hidden_size"], config["head_dim"]) == (64, 16)
    assert config["rope_theta"] == source.config.rope_theta
    scaling = config["rope_scaling"]
    assert scaling is None if rope_scaling == 1 else scaling["factor"] == 4


def test_every_model_is_described_once():
    assert len({row.name for row in CLASSES}) == len(CLASSES)
