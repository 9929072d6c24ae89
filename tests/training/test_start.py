"""Training starts from the weights in a folder, or refuses them by name."""

import copy
import dataclasses
import json

import pytest
import safetensors.torch
import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.weights import initialize, load_model, make_model, save_weights, weights_of
from atlas.tokens.shards import TokenIndex
from atlas.training.start import freeze, load_start, origin_of, write_base
from atlas.training.trainer import build_model
from tests.small import SHA, small_config, small_params
from tests.training.conftest import ALONE, CPU
from tests.training.runs import same_weights, stop_after


def make_base(folder, seed=5, **options):
    """Write a model with its config, as `atlas import` and train do."""
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(small_config(**options))
    initialize(model, seed)
    model.config.write(folder)
    save_weights(model, folder / "model.safetensors")
    return model


def change(folder, edit):
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    edit(weights)
    safetensors.torch.save_file(weights, path)


def test_the_weights_are_those_of_the_folder(tmp_path):
    base = make_base(tmp_path, tied_head=False)
    model = make_model(small_config(tied_head=False, dropout=0.1))
    load_start(model, tmp_path)
    for name, weight in weights_of(base).items():
        assert torch.equal(weights_of(model)[name], weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_become_float32(tmp_path, dtype):
    base = make_base(tmp_path)
    change(tmp_path, lambda weights: weights.update({k: v.to(dtype) for k, v in weights.items()}))
    model = make_model(small_config())
    load_start(model, tmp_path)
    for name, weight in weights_of(base).items():
        assert torch.equal(weights_of(model)[name], weight.to(dtype).float())


def test_a_shorter_context_takes_the_first_learned_positions(tmp_path):
    base = make_base(tmp_path, positions="learned")
    model = make_model(small_config(positions="learned", context_length=10))
    load_start(model, tmp_path)
    assert torch.equal(model.positions.weight, base.positions.weight[:10])


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda w: w.pop("blocks.1.feed_forward.up.weight"), "lacks blocks.1.feed_forward.up.weig"),
        (lambda w: w.update(extra=torch.ones(1)), "describes a model without extra"),
        (
            lambda w: w.update({"norm.weight": torch.ones(31)}),
            r"norm.weight has shape \[31\]",
        ),
        (lambda w: w["norm.weight"].fill_(torch.inf), "norm.weight has values that are not finite"),
        (
            lambda w: w.update({"norm.weight": torch.ones(32, dtype=torch.int8)}),
            "norm.weight is of type torch.int8",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, edit, expected):
    make_base(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(AtlasError, match=expected):
        load_start(make_model(small_config()), tmp_path)


def test_a_damaged_file_and_another_tokenizer_are_named(tmp_path):
    make_base(tmp_path)
    (tmp_path / "origin.json").write_text("{}")
    with pytest.raises(AtlasError, match=r"origin\.json: not as `atlas import` writes it"):
        load_start(make_model(small_config()), tmp_path)
    (tmp_path / "origin.json").unlink()
    with pytest.raises(AtlasError, match="another tokenizer than that of data/tokens"):
        load_start(make_model(small_config(tokenizer_sha256="1" * 64)), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AtlasError, match=r"model.safetensors: not readable \(.*\); import or copy"):
        load_start(make_model(small_config()), tmp_path)


def test_a_model_starts_from_the_folder_or_from_new_weights(tmp_path, token_folder):
    base = make_base(tmp_path / "base")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/.gitkeep").touch()
    params, index = small_params(), TokenIndex.read(token_folder)
    assert index.tokenizer_sha256 == SHA
    models = []
    for name in ("base", "own"):
        train = params.train.model_copy(update={"start": str(tmp_path / name)})
        models.append(build_model(params.model_copy(update={"train": train}), index, ALONE))
    initialize(base, params.train.seed)
    assert torch.equal(models[1].norm.weight, base.norm.weight)
    assert torch.equal(models[1].embedding.weight, base.embedding.weight)
    assert not torch.equal(models[0].embedding.weight, base.embedding.weight)


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["embedding"], {"embedding.weight"}),
        (["head"], {"head.weight"}),
        (["blocks.0-1", "norm"], None),
    ],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_frozen_weights_stay_as_they_are(new_trainer, names, frozen, optimizer):
    options = {"tied_head": False}
    run = new_trainer(options=options, steps=3, optimizer=optimizer, log_layers=1)
    freeze(run.model, names)
    if frozen is None:
        frozen = {name for name, _ in run.model.named_parameters()} - {
            "embedding.weight", "head.weight"
        }  # fmt: skip
    before = {name: weight.clone() for name, weight in weights_of(run.model).items()}
    state = run.fit()
    after = weights_of(run.model)
    assert {name for name in before if torch.equal(after[name], before[name])} == frozen
    assert {row["layer"] for row in state.layer_rows} == before.keys() - frozen
    held = {id(p) for member in run.train_step.optimizers.members for p in member.state}
    assert held == {id(p) for p in run.model.parameters() if p.requires_grad}
    assert safetensors.torch.load_file(run.checkpoints.best).keys() == before.keys() - frozen


def test_a_stopped_run_with_frozen_weights_ends_with_the_same_bytes(
    new_trainer, tmp_path, monkeypatch
):
    def run(folder):
        made = new_trainer(folder, steps=8)
        freeze(made.model, ["embedding", "blocks.0"])
        return made

    whole, stopped = run("whole"), run("stopped")
    whole.fit()
    stop_after(monkeypatch, stopped, 5)
    with pytest.raises(Stopped):
        stopped.fit()
    again = run("stopped")
    again.fit()
    assert same_weights(again.model, whole.model)
    for made, name in ((again, "a"), (whole, "b")):
        (tmp_path / name).mkdir()
        made.checkpoints.write_model(
            tmp_path / name, made.model.config, weights_of(made.model), made.params.train
        )
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors"
    ).read_bytes()
    load_model(tmp_path / "a", CPU)


def test_the_model_tells_what_it_started_from(tmp_path):
    source, first, second = (tmp_path / name for name in ("source", "first", "second"))
    for folder in (source, first, second):
        folder.mkdir()
    assert origin_of(source) == {"name": "source"}
    origin = {"name": "SmolLM2-135M-Instruct", "license": "apache-2.0"}
    (source / "origin.json").write_text(json.dumps(origin))
    (source / "LICENSE").write_text("free")
    (source / "LICENSES").mkdir()
    write_base(source, first)
    write_base(first, second)  # fine-tuned again
    for folder in (first, second):
        assert json.loads((folder / "base.json").read_text()) == origin
        assert (folder / "LICENSE").read_text() == "free"
    (source / "origin.json").write_text("{}")
    with pytest.raises(AtlasError, match="not as `atlas import` writes it"):
        origin_of(source)


def test_a_model_knows_its_windows_and_the_roles_of_its_tokens(token_folder, tokenizer):
    params = small_params(**{"train.sequence_length": 16})
    index = TokenIndex.read(token_folder)
    config = build_model(params, index, ALONE).config
    assert (config.context_length, config.sequence_length) == (32, 16)
    tokenizer = copy.copy(tokenizer)
    tokenizer.bos, tokenizer.end_ids = 3, frozenset({9, 1, 4})
    config = build_model(params, index, ALONE, tokenizer).config
    assert (config.bos, config.end_ids, config.add_bos_token) == (3, (1, 4, 9), False)
    index = dataclasses.replace(index, bos=3)  # its windows begin with bos
    assert build_model(params, index, ALONE, tokenizer).config.add_bos_token
