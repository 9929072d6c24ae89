"""Study files, and the runs they define."""

import re
import subprocess

import pytest
import yaml

from atlas.errors import AtlasError
from atlas.model.counts import count
from atlas.params.overrides import leaves
from atlas.tools.studies.study import Snapshot, Study, available, load_study
from tests.code_walk import ROOT
from tests.small import small_config

SPEC = {
    "question": "Which learning rate?",
    "set": {"train.steps": 600},
    "vary": {"train.lr": [1e-3, 4e-3]},
    "seeds": [1, 2],
    "measures": ["evaluate.val_loss"],
    "scale": "log",
}
REQUIRED = {
    *("positions", "heads", "depth", "width", "feed-forward", "norm", "lr", "weight-decay"),
    *("batch", "context", "data-size", "tokenizer"),
}


def load(project, name="lr", **changes) -> Study:
    text = yaml.safe_dump(SPEC | changes, sort_keys=False)
    (project / f"studies/{name}.yaml").write_text(text)
    return load_study(project, name)


def refusal(project, **changes) -> str:
    with pytest.raises(AtlasError) as refused:
        load(project, **changes)
    return str(refused.value)


def test_every_value_runs_with_every_seed(project):
    study = load(project)
    assert [run.name[:-8] for run in study.runs] == [
        "lr_0.001_s1_",
        "lr_0.004_s1_",
        "lr_0.001_s2_",
        "lr_0.004_s2_",
    ]
    assert len({run.name[-8:] for run in study.runs}) == 4
    assert study.runs[3].overrides == ("train.steps=600", "train.lr=0.004", "train.seed=2")
    assert study.runs[3].params.train.lr == 4e-3
    assert study.label(1) == "0.004"


def test_rows_vary_several_keys(project):
    rows = [
        {"model.n_layer": 2, "model.d_model": 64, "label": "few & wide"},
        {"model.n_layer": 4, "model.d_model": 32},
    ]
    message = refusal(project, vary=rows)
    assert message.startswith("studies/lr.yaml: vary.0.label is 'few & wide': use only letters")
    rows[0]["label"] = "few wide"
    study = load(project, vary=rows)
    assert [study.label(row) for row in (0, 1)] == ["few wide", "4 32"]
    assert study.runs[0].name.startswith("lr_few-wide_s1_")
    assert study.runs[1].name.startswith("lr_4-32_s1_")
    assert study.value(1, "model.d_model") == 32


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vari": {}}, "vari is not a known key: did you mean vary?"),
        ({"question": ""}, "question is ''"),
        ({"scale": "cubic"}, "scale is 'cubic': it must be 'linear', 'log' or 'category'"),
        ({"seeds": []}, "seeds is []"),
        ({"seeds": [1, 1]}, "seeds has a duplicate: 1, 1"),
        ({"seeds": [-1]}, "seeds.0 is -1"),
        ({"vary": {"train.lr": 1e-3}}, "one key with a list of its values, or a list of rows"),
        ({"vary": []}, "vary is []"),
        ({"vary": [{"train.lr": 1.0}, {"train.steps": 2}]}, "vary: give every row the same keys"),
        ({"vary": {"train.steps": [1, 2]}}, "train.steps is in both set and vary: remove it"),
        ({"set": {"train.seed": 1}}, "train.seed comes from seeds"),
        (
            {"vary": {"train.lr": [1e-3, 0.0]}},
            "scale is log: train.lr needs numbers above 0; otherwise",
        ),
        ({"vary": {"model.positions": ["rope"]}}, "scale is log: model.positions needs numbers"),
        ({"measures": ["val_loss"]}, "measures.0 is 'val_loss'"),
        (
            {"measures": ["evaluated.val_loss"]},
            "no stage writes metrics/evaluated.json, the file of",
        ),
        ({"vary": {"train.lr": [0.001, 0.001]}}, "two rows are named lr_0.001_s1; give them"),
        ({"set": {"train.step": 2}}, "train.step is not a key of params.yaml: did you mean"),
        ({"set": {"train": {}}}, "train is not a key of params.yaml"),
        ({"presets": ["smal"]}, "preset smal: no such preset: did you mean small?"),
        ({"vary": {"train.lr": [1e-3, -1]}, "scale": "linear"}, "train.lr=-1: train.lr is -1"),
        ({"set": {"train.warmup_share": 2}}, "train.lr=0.001: train.warmup_share is 2"),
    ],
)
def test_an_invalid_study_is_rejected_in_one_line(project, changes, expected):
    message = refusal(project, **changes)
    assert expected in message
    assert "\n" not in message
    assert message.startswith(("studies/lr.yaml", "preset smal"))


def test_an_unknown_study_lists_the_known_ones(project):
    load(project)
    with pytest.raises(AtlasError, match="study lrr: no such study: did you mean lr"):
        load_study(project, "lrr")
    (project / "studies/lr.yaml").write_text("- lr\n")
    with pytest.raises(AtlasError, match="it has no keys"):
        load_study(project, "lr")
    with pytest.raises(AtlasError, match="use only lower-case letters"):
        load(project, name="L_R")


def test_a_name_changes_with_the_inputs_and_nothing_else(project):
    def names():
        return {run.name for run in load_study(project, "lr").runs}

    before = {run.name for run in load(project).runs}
    assert names() == before
    (project / "README.md").write_text("new")
    (project / "src/atlas/pipeline/stage.py").write_text("# affects no output")
    assert names() == before
    code = project / "src/atlas/model/layers.py"
    original = code.read_text()
    code.write_text(original + "\n")
    assert not names() & before
    code.write_text(original)
    (project / "params.yaml").write_text(
        re.sub("beta1: 0.9 ", "beta1: 0.8 ", (project / "params.yaml").read_text())
    )
    assert not names() & before


def test_files_missing_from_git_are_rejected(project):
    (project / "data/own/mine.txt").write_text("text")
    load(project)  # does not read it
    files = {"corpus.name": "files"}
    assert "data/own: git does not track all of it" in refusal(project, set=files)
    load(project, set=files | {"corpus.files.path": str(project / "data/own")})
    before = load_study(project, "lr").runs[0].name
    (project / "data/own/mine.txt").write_text("another text")
    assert load_study(project, "lr").runs[0].name != before
    new = project / "src/atlas/model/layers.py"
    subprocess.run(["git", "rm", "-q", "--cached", str(new)], cwd=project, check=True)
    assert "src/atlas/model/layers.py: git does not track all of it" in refusal(project)


def test_the_required_studies_exist():
    assert set(available(ROOT)) >= REQUIRED


@pytest.fixture(scope="module")
def shipped():
    snapshot = Snapshot(ROOT)
    return {name: load_study(ROOT, name, snapshot) for name in available(ROOT)}


@pytest.mark.parametrize("name", available(ROOT))
def test_each_study_is_valid_and_has_its_page(shipped, name):
    study = shipped[name]
    assert len(study.spec.vary) >= 4
    assert len(study.spec.seeds) >= 2
    assert all(run.params.export.formats == () for run in study.runs)
    assert (ROOT / f"docs/studies/{name}.md").is_file()
    first = dict(leaves(study.runs[0].params.model_dump()))
    differing = {
        key for run in study.runs for key, value in leaves(run.params.model_dump())
        if value != first[key]
    }  # fmt: skip
    assert differing == {*study.spec.keys, "train.seed"}


@pytest.mark.parametrize("name", ["heads", "depth", "feed-forward-kind"])
def test_models_have_equal_size(shipped, name):
    sizes = [
        count(small_config(**run.params.model.model_dump(), vocab_size=2048)).total_parameters
        for run in shipped[name].runs
    ]
    assert max(sizes) / min(sizes) < 1.01, sizes


@pytest.mark.parametrize("name", ["batch", "context"])
def test_runs_train_on_the_same_number_of_tokens(shipped, name):
    tokens = {
        run.params.train.steps * run.params.train.batch_size * run.params.model.context_length
        for run in shipped[name].runs
    }
    assert tokens == {614_400}


@pytest.mark.parametrize("text", ["", "train: [", "- a list"])
@pytest.mark.parametrize("name", ["params.yaml", "presets/char.yaml"])
def test_a_broken_file_is_named_in_the_error(project, name, text):
    (project / name).write_text(text)
    assert f"{name}: " in refusal(project, presets=["char"])
