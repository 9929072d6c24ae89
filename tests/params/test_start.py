"""The params must describe the model in the folder that train.start names."""

import json

import pytest

from atlas.errors import AtlasError
from atlas.model.weights import make_model
from atlas.params.schema import Params
from atlas.params.start import freeze_conflicts, names_of
from tests.model.family import GRID, config_of
from tests.small import SMALL, params_tree, small_config


@pytest.fixture
def project(tmp_path):
    """A project whose models/base has the shape of the small params, a tokenizer and a preset."""
    base = tmp_path / "models/base"
    (base / "tokenizer").mkdir(parents=True)
    small_config().write(base)
    for name in ("model.safetensors", "preset.yaml", "tokenizer/tokenizer.model"):
        (base / name).write_bytes(b"not read")
    (tmp_path / "models/own").mkdir()
    (tmp_path / "models/own/.gitkeep").touch()
    return tmp_path


STARTED = SMALL | {"train.start": "models/base", "tokenizer.path": "models/base/tokenizer"}


def load(project, **changes):
    return Params.from_mapping(params_tree(**STARTED | changes), root=project)


def refusal(project, **changes):
    with pytest.raises(AtlasError) as error:
        load(project, **changes)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.dropout": 0.1, "model.context_length": 16},
        {"tokenizer.path": "models/base/tokenizer/tokenizer.model"},
        {"train.start": "models/own", "model.d_ff": 96, "tokenizer.path": "models/own"},
    ],
)
def test_params_that_fit_are_accepted(project, changes):
    load(project, **changes)


def test_each_key_that_differs_is_named(project):
    message = refusal(project, **{"model.d_ff": 96, "model.qk_norm": "head"})
    expected = 'model.d_ff is 96 (there 64), model.qk_norm is "head" (there null): `atlas preset ba'
    assert expected in message
    (project / "models/base/preset.yaml").unlink()
    message = refusal(project, **{"model.d_ff": 96})
    assert "set them as in models/base/config.json" in message


def test_a_context_longer_than_trained_is_refused(project):
    message = refusal(project, **{"model.context_length": 64})
    assert "context_length is 64: a context longer than models/base was trained on" in message
    assert "set it to 32 or less" in message


def test_another_tokenizer_is_refused(project):
    expected = "needs its own tokenizer; set tokenizer.path=models/base/tokenizer"
    assert expected in refusal(project, **{"tokenizer.path": "models/own"})
    assert expected in refusal(project, **{"tokenizer.path": "other.model"})
    (project / "models/base/tokenizer/tokenizer.model").unlink()
    (project / "models/base/tokenizer").rmdir()
    load(project, **{"tokenizer.path": "other.model"})  # training compares the hashes
    message = refusal(project, **{"tokenizer.path": "models/own"})
    assert "models/own, an empty folder, so a new tokenizer would be trained" in message


def test_a_folder_that_cannot_be_used_is_named(project):
    base = project / "models/base"
    assert "models/bse does not exist" in refusal(project, **{"train.start": "models/bse"})
    weights = {"train.start": "models/base/model.safetensors"}
    assert "is a file: name a folder that `atlas import` wrote" in refusal(project, **weights)
    assert "which is counted" in refusal(project, **{"model.kind": "bigram", "export.formats": []})
    config = json.loads((base / "config.json").read_text())
    del config["norm_eps"]
    for content, expected in (
        (json.dumps(config), "not of this version of Atlas (no norm_eps)"),
        ('{"hidden_size": 576}', "(no kind): convert the model with `atlas import models/base`"),
        ("{", "models/base/config.json is not readable as JSON"),
        ("[1, 2]", "config.json is not of this version of Atlas"),
        ("7", "config.json is not readable as JSON"),
        ("[" * 100_000, "config.json is not readable as JSON"),
    ):
        (base / "config.json").write_text(content)
        assert expected in refusal(project)
    for name in ("model.safetensors", "config.json"):
        (base / name).unlink()
        assert f"models/base has no {name}: `atlas import SOURCE` writes" in refusal(project)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.lora.rank": 0}, "train.lora.rank is 0: it must be greater than 0 or null"),
        ({"train.lora.alpha": 0}, "train.lora.alpha is 0: it must be greater than 0"),
        ({"train.lora.targets": ["q_proj"]}, "targets.0 is 'q_proj': it must be 'query', 'key', "),
        ({"train.lora.targets": ["q_proj"]}, "did you mean query?"),
        ({"train.lora.targets": ["up", "up"]}, "train.lora.targets lists a layer twice: up, up"),
        ({"train.lora.targets": []}, "train.lora.targets is []: "),
        ({"train.lora_rank": 8}, "did you mean train.lora.rank?"),
        (
            {"export.formats": ["gguf:adapter"]},
            "export.formats: gguf:adapter needs a model trained with LoRA: set train.lora.rank",
        ),
        (
            {"train.lora.rank": 8, "train.freeze": ["norm"]},
            "train.lora.rank is 8, and train.freeze is not empty: LoRA freezes all given weights",
        ),
        (
            {"train.lora.rank": 8, "train.optimizer": "muon"},
            "train.optimizer is muon, which is for whole matrices",
        ),
        (
            {"train.lora.rank": 8, "train.start": "models/own"},
            "train.start=models/own is empty: LoRA changes given weights a little",
        ),
        ({"train.freeze": ["hed"]}, "names hed: this model has embedding, norm, attention, feed_f"),
        ({"train.freeze": ["blocks.0-2"]}, "names blocks.2: this model has "),
        ({"train.freeze": ["blocks.1-0"]}, "feed_forward, blocks.0 to blocks.1"),
        ({"train.freeze": ["blocks.0-99999"]}, "train.freeze.0 is 'blocks.0-99999': use only"),
        ({"train.freeze": ["head"]}, "names head, which is the embedding (model.tied_head)"),
        (
            {"train.freeze": ["embedding", "blocks.0-1", "norm"]},
            "train.freeze covers all weights: leave some to train",
        ),
    ],
)
def test_what_cannot_be_trained_is_named(project, changes, expected):
    assert expected in refusal(project, **changes)


def test_a_wrong_item_of_a_list_is_one_problem(project):
    for changes in ({"train.lora.targets": ["foo"]}, {"corpus.gutenberg.books": [-1]}):
        assert refusal(project, **changes).count("params.yaml: ") == 1


def test_lora_names_the_layers_that_a_model_lacks(project):
    base = project / "models/base"
    small_config(feed_forward="gelu").write(base)
    changes = {"model.feed_forward": "gelu", "export.formats": [], "train.lora.rank": 8}
    message = refusal(project, **changes)
    assert "names gate, and model.feed_forward=gelu has none: this model has query, key" in message
    load(project, **changes, **{"train.lora.targets": ["query", "up"]})


@pytest.mark.parametrize(
    "options",
    [*GRID, {"kind": "encoder_decoder", "separator": 5}, {"kind": "two_layer", "window": 4}],
)
def test_every_weight_has_the_names_that_the_rules_know(options):
    model = make_model(config_of(**options))
    parts = model.config.model_dump()
    found = [names_of(name) for name, _ in model.named_parameters()]
    known = set().union(*found)
    for name in known:
        assert list(freeze_conflicts([name], parts)) == [], name
    (problem,) = freeze_conflicts(sorted(known), parts)
    assert "covers all weights" in problem
