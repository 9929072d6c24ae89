import math
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.language_model import choose_device
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, load_model, save_weights, weights_of
from tests.small import GPT2_SHAPE, LLAMA_SHAPE, small_config

SHAPES = [
    LLAMA_SHAPE,
    LLAMA_SHAPE | {"qk_norm": "head", "tied_head": False},
    LLAMA_SHAPE | {"bias": True, "n_kv_head": 2},
    GPT2_SHAPE,
    GPT2_SHAPE | {"bias": True, "tied_head": False, "n_kv_head": 2},
    {"positions": "learned", "norm": "rmsnorm", "feed_forward": "swiglu"},
]


def make(options, seed=0) -> Decoder:
    model = Decoder(small_config(**options))
    initialize(model, seed)
    return model


DOCUMENTS = st.lists(st.integers(1, 6), min_size=1, max_size=5)  # lengths, the first id included


@pytest.mark.parametrize(
    "options",
    [
        *SHAPES,
        {"positions": "alibi"},
        {"positions": "sinusoidal", "window": 3},
        {"positions": "none"},
    ],
    ids=str,
)
@settings(max_examples=10)
@given(st.data())
def test_documents_in_a_row_are_computed_as_if_alone(options, data):
    model = make(options).double()
    vocab_size = model.config.vocab_size
    ids = st.integers(1, vocab_size - 1)
    documents = [
        [0, *data.draw(st.lists(ids, min_size=length - 1, max_size=length - 1))]
        for length in data.draw(DOCUMENTS)
    ]
    row = torch.tensor([list(chain.from_iterable(documents))])
    row = row[:, : model.config.context_length]
    targets = torch.randint(0, vocab_size, row.shape)
    together = model(row, begins=row == 0)
    model(row, targets=targets, begins=row == 0).backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    end = 0
    for document in documents:
        begin, end = end, min(end + len(document), row.shape[1])
        if begin < end:
            alone = model(row[:, begin:end])
            assert torch.allclose(together[:, begin:end], alone, rtol=0, atol=1e-9)
            model(row[:, begin:end], targets=targets[:, begin:end]).backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(gradients[name], weight.grad, rtol=0, atol=1e-9), name


def test_initial_weights_depend_on_the_seed():
    first, again, other = make(LLAMA_SHAPE), make(LLAMA_SHAPE), make(LLAMA_SHAPE, seed=1)
    for name, weight in weights_of(first).items():
        assert torch.equal(weight, weights_of(again)[name])
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_initial_weights_have_the_documented_sizes():
    model = make(GPT2_SHAPE | {"bias": True, "d_model": 128, "d_ff": 512, "n_layer": 4})
    weights = weights_of(model)
    inner = weights["blocks.1.feed_forward.up.weight"].std().item()
    assert inner == pytest.approx(math.sqrt(2 / (5 * 128)), rel=0.05)
    outer = weights["blocks.1.feed_forward.down.weight"].std().item()
    assert outer == pytest.approx(inner / math.sqrt(8), rel=0.05)
    assert weights["blocks.0.attention.query.bias"].abs().max() == 0
    assert (weights["norm.weight"] == 1).all()


@pytest.mark.parametrize(("scheme", "factor"), [("normal", 1.0), ("zero", 0.0)])
def test_layers_that_write_to_the_stream_are_initialized_as_configured(scheme, factor):
    model = Decoder(small_config(**LLAMA_SHAPE, d_model=128, d_ff=512, n_layer=4))
    initialize(model, 0, scheme)
    for name, weight in weights_of(model).items():
        expected = factor if "down" in name or "output" in name else 1.0
        if weight.dim() == 2:
            deviation = weight.std().item()
            assert deviation == pytest.approx(expected * math.sqrt(2 / (5 * 128)), rel=0.05), name


@pytest.mark.parametrize("place", ["pre", "reordered"])
def test_with_zero_outputs_every_block_starts_as_the_identity(place):
    model = Decoder(small_config(**GPT2_SHAPE, norm_position=place))
    initialize(model, 0, "zero")
    ids = torch.arange(12)[None]
    stream = model.embedding(ids) + model.positions(torch.arange(12))
    logits = model(ids)
    assert torch.allclose(logits, model.head(model.norm(stream)), atol=1e-6)
    logits.logsumexp(-1).sum().backward()
    for name, parameter in model.blocks.named_parameters():
        assert parameter.grad.abs().max() < 1e3, name


def test_the_first_loss_is_near_uniform_guessing():
    model = make(LLAMA_SHAPE)
    logits = model(torch.randint(0, 400, (4, 32)))
    loss = -logits.log_softmax(-1).mean().item()
    logits_variance = 2 / 5  # of a normed stream against SmallInit's head
    assert loss == pytest.approx(math.log(400) + logits_variance / 2, abs=0.15)


@pytest.mark.parametrize("options", SHAPES)
def test_a_stored_model_is_the_same(tmp_path, options):
    model = make(options).eval()
    model.config.write(tmp_path)
    save_weights(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path, torch.device("cpu"))
    assert loaded.config == model.config
    assert loaded.parameter_count() == model.parameter_count()
    ids = torch.randint(0, 400, (1, 9))
    assert torch.equal(loaded(ids), model(ids))


@pytest.mark.parametrize("damage", ["no config", "old config", "no weights", "cut", "other shape"])
def test_a_damaged_model_is_refused(tmp_path, damage):
    model = make(LLAMA_SHAPE)
    model.config.write(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_weights(model, weights)
    match damage:
        case "no config":
            (tmp_path / "config.json").unlink()
        case "old config":
            (tmp_path / "config.json").write_text('{"n_layer": 2}')
        case "no weights":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "other shape":
            small_config(d_ff=96).write(tmp_path)
    with pytest.raises(
        AtlasError, match=r"config\.json: no[t ]|model\.safetensors: not the weights"
    ):
        load_model(tmp_path, torch.device("cpu"))


def test_an_unwritable_file_is_named(tmp_path):
    with pytest.raises(AtlasError, match="free some space"):
        save_weights(make(LLAMA_SHAPE), tmp_path / "no-such-folder/model.safetensors")


def test_another_tokenizer_is_refused():
    config = small_config()
    check_tokenizer(config, config.tokenizer_sha256, "models/tokenizer")
    with pytest.raises(AtlasError, match="models/tokenizer: not the tokenizer"):
        check_tokenizer(config, "1" * 64, "models/tokenizer")


def test_devices(monkeypatch):
    monkeypatch.setenv("ATLAS_DEVICE", "cpu")
    assert choose_device().type == "cpu"
    for name in ("cuda:99", "abacus"):
        monkeypatch.setenv("ATLAS_DEVICE", name)
        with pytest.raises(AtlasError, match=f"ATLAS_DEVICE={name}: no such device"):
            choose_device()


def test_config_values_are_checked():
    with pytest.raises(ValueError, match="n_layer"):
        ModelConfig(**(small_config().model_dump() | {"n_layer": 0}))
