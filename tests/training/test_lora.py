"""LoRA against peft, and in training: what is trained, written and merged."""

import copy
import json

import pytest
import safetensors.torch
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

from atlas.errors import Stopped
from atlas.model.loss import cross_entropy_sum
from atlas.model.transformer import Decoder
from atlas.model.weights import load_model, weights_of
from atlas.params.schema import LoraParams
from atlas.pipeline.files import sha256
from atlas.training.checkpoint import full_weights
from atlas.training.lora import add_lora, merge
from tests.model.family import config_of, decoder, ids_of, trained
from tests.small import small_config
from tests.training.conftest import ALONE, CPU
from tests.training.runs import logs, same_weights, stop_after

TARGETS = ("query", "key", "value", "output", "gate", "up", "down")
SHAPES = {
    "llama": {},
    "gpt2": {"positions": "learned", "norm": "layernorm", "feed_forward": "gelu", "bias": True},
    "qwen3": {"qk_norm": "head", "n_kv_head": 1, "tied_head": False},
}


def lora(rank=4, alpha=16.0, targets=TARGETS):
    return LoraParams(rank=rank, alpha=alpha, targets=targets)


def randomize(model):
    """Give A and B values as after training, in peft's model as in ours."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def with_peft(model, params):
    """Return a copy of a model with peft's LoRA."""
    config = LoraConfig(
        r=params.rank, lora_alpha=params.alpha, target_modules=list(params.targets), bias="none"
    )
    return inject_adapter_in_model(config, copy.deepcopy(model))


def our_name(name):
    return (
        name.replace(".base_layer", "")
        .replace(".lora_A.default.weight", ".lora_a")
        .replace(".lora_B.default.weight", ".lora_b")
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "params", [lora(), lora(rank=1, alpha=3.0, targets=("query", "down")), lora(8, 0.5)]
)
def test_outputs_gradients_and_merged_weights_are_those_of_peft(shape, params):
    targets = params.targets if shape != "gpt2" else [t for t in params.targets if t != "gate"]
    params = params.model_copy(update={"targets": tuple(targets)})
    ours = decoder(**SHAPES[shape])
    theirs = with_peft(ours, params)
    add_lora(ours, params, seed=1)
    randomize(theirs)
    peft_weights = {our_name(name): value for name, value in theirs.named_parameters()}
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(peft_weights[name])
    ids = ids_of(3, 12)
    logits, expected = ours(ids), theirs(ids)
    assert torch.allclose(logits, expected, atol=1e-6)
    for model_logits in (logits, expected):
        (cross_entropy_sum(model_logits[:, :-1], ids[:, 1:]) / ids.numel()).backward()
    compared = 0
    for name, parameter in ours.named_parameters():
        assert parameter.requires_grad == name.endswith((".lora_a", ".lora_b"))
        gradient = peft_weights[name].grad
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            assert torch.allclose(parameter.grad, gradient, atol=1e-6)
            compared += 1
    assert compared == 2 * 2 * len(targets)
    for module in theirs.modules():
        if isinstance(module, LoraLayer):
            module.merge()
    merged = merge(weights_of(ours), params)
    plain = decoder(**SHAPES[shape])
    assert merged.keys() == weights_of(plain).keys()
    for name, weight in theirs.named_parameters():
        if "lora_" not in name:
            assert torch.allclose(merged[our_name(name)], weight, atol=1e-6)
    plain.load_state_dict(merged, strict=False)
    assert torch.allclose(plain(ids), logits, atol=1e-5)


def test_it_starts_as_peft_does():
    ours = decoder()
    before = ours(ids_of(2, 8))
    add_lora(ours, lora(rank=8), seed=3)
    assert torch.equal(ours(ids_of(2, 8)), before)
    again, other = decoder(), decoder()
    add_lora(again, lora(rank=8), seed=3)
    add_lora(other, lora(rank=8), seed=4)
    theirs = with_peft(decoder(), lora(rank=8))
    for name, parameter in theirs.named_parameters():
        if "lora_A" not in name:
            continue
        first = ours.get_parameter(our_name(name))
        bound = first.shape[1] ** -0.5
        for matrix in (first, parameter):
            assert matrix.abs().max() <= bound
            assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.2)
        assert torch.equal(first, again.get_parameter(our_name(name)))
        assert not torch.equal(first, other.get_parameter(our_name(name)))


def test_an_encoder_decoder_learns_in_all_its_attention():
    model = trained(config_of(kind="encoder_decoder", separator=5))
    add_lora(model, lora(targets=("query",)), seed=1)
    changed = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "decoder.1.cross_attention.query.lora_a" in changed
    assert len(changed) == 2 * 2 * 3


@pytest.fixture
def lora_trainer(new_trainer, tmp_path):
    """Create a trainer of 30 steps of LoRA in its own folder."""

    def make(folder="run", rank=4, **changes):
        run = new_trainer(folder, **changes)
        adapted = lora(rank)
        train = run.params.train.model_copy(update={"lora": adapted, "start": str(tmp_path)})
        run.params = run.params.model_copy(update={"train": train})
        add_lora(run.model, adapted, seed=1)
        return run

    return make


def written(run, folder):
    """Write the model of a finished run; return its files by name."""
    folder.mkdir()
    last = full_weights(run.model, ALONE)
    run.checkpoints.write_model(folder, run.model.config, last, run.params.train)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_change_is_trained_and_written(lora_trainer, new_trainer, tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"the base")
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0")
    run = lora_trainer(steps=20, lr=0.02, dropout=0.0)
    before = {name: weight.clone() for name, weight in weights_of(run.model).items()}
    state = run.fit()
    assert state.best_loss < state.val_rows[0]["loss"] - 0.05
    after = weights_of(run.model)
    is_same = {name: torch.equal(after[name], weight) for name, weight in before.items()}
    assert {name for name, same in is_same.items() if not same} == {
        name for name in before if "lora" in name
    }
    for path in (run.checkpoints.best, run.checkpoints.newest_first()[0] / "model.safetensors"):
        assert all("lora" in name for name in safetensors.torch.load_file(path))
    files = written(run, tmp_path / "model")
    assert sorted(files) == [
        "adapter.json", "adapter.safetensors", "base.json", "config.json", "last.safetensors",
        "model.safetensors",
    ]  # fmt: skip
    assert json.loads(files["adapter.json"]) == {
        "rank": 4,
        "alpha": 16.0,
        "targets": list(TARGETS),
        "base": str(tmp_path),
        "base_sha256": sha256(tmp_path / "model.safetensors"),
    }
    adapter = safetensors.torch.load_file(tmp_path / "model/adapter.safetensors")
    best = load_model(tmp_path / "model", CPU)
    name = "blocks.1.feed_forward.down"
    change = 16 / 4 * adapter[f"{name}.lora_b"] @ adapter[f"{name}.lora_a"]
    assert torch.allclose(
        best.get_parameter(f"{name}.weight"), before[f"{name}.weight"] + change, atol=1e-6
    )
    ids = ids_of(2, 16)
    last = load_model(tmp_path / "model", CPU, "last")
    assert torch.allclose(last(ids), run.model.eval()(ids), atol=1e-4)


def test_a_change_that_was_read_is_merged_on_the_device_of_the_matrix():
    matrix = torch.empty(4, 3, device="meta")  # in place of a GPU
    weights = {"x.weight": matrix, "x.lora_a": torch.ones(2, 3), "x.lora_b": torch.ones(4, 2)}
    assert merge(weights, LoraParams(rank=2, alpha=4, targets=("up",)))["x.weight"].is_meta


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16", "grad_accum_steps": 2}])
def test_a_stopped_run_ends_with_the_same_bytes(lora_trainer, tmp_path, monkeypatch, changes):
    (tmp_path / "model.safetensors").write_bytes(b"the base")
    changes = {"steps": 14} | changes
    whole = lora_trainer("whole", **changes)
    expected = whole.fit()
    first = lora_trainer("stopped", **changes)
    stop_after(monkeypatch, first, 11)
    with pytest.raises(Stopped):
        first.fit()
    second = lora_trainer("stopped", **changes)
    assert logs(second.fit()) == logs(expected)
    assert written(second, tmp_path / "a") == written(whole, tmp_path / "b")


def test_activation_checkpointing_trains_the_same(lora_trainer):
    runs = [
        lora_trainer(str(again), steps=6, activation_checkpointing=again) for again in (False, True)
    ]
    for run in runs:
        run.fit()
    assert same_weights(*(run.model for run in runs))


@pytest.mark.very_slow
def test_a_compiled_model_learns_the_same(lora_trainer, monkeypatch):
    plain = lora_trainer("plain", dropout=0.0, steps=12, options={"n_layer": 1}).fit()
    monkeypatch.setenv("ATLAS_COMPILE", "1")
    run = lora_trainer("compiled", dropout=0.0, steps=12, options={"n_layer": 1})
    for ours, theirs in zip(run.fit().train_rows, plain.train_rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)


def test_a_decoder_is_still_one():
    model = Decoder(small_config())
    add_lora(model, lora(rank=None), seed=1)
    assert all(parameter.requires_grad for parameter in model.parameters())
