"""What a study's file may say, and the runs that it means."""

import re
import subprocess

import pytest
import yaml

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.params.schema import leaves
from atlas.tools.studies.plan import available
from atlas.tools.studies.snapshot import Snapshot
from atlas.tools.studies.study import Study, belongs, load_study
from tests.code_walk import ROOT

PLAN = {
    "question": "Which learning rate?",
    "set": {"train.steps": 600},
    "vary": {"train.lr": [1e-3, 4e-3]},
    "seeds": [1, 2],
    "measures": ["evaluate.val_loss"],
    "scale": "log",
}
ASKED_FOR = {
    *("positions", "heads", "depth", "width", "feed-forward", "norm", "lr", "weight-decay"),
    *("batch", "context", "data-size", "tokenizer"),
}


def load(project, name="lr", **changes) -> Study:
    text = yaml.safe_dump(PLAN | changes, sort_keys=False)
    (project / f"studies/{name}.yaml").write_text(text)
    return load_study(project, name)


def refusal(project, **changes) -> str:
    with pytest.raises(AtlasError) as refused:
        load(project, **changes)
    return str(refused.value)


def test_a_run_is_a_value_with_a_seed(project):
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


def test_rows_change_several_keys(project):
    rows = [
        {"model.n_layer": 2, "model.d_model": 64, "label": "few & wide"},
        {"model.n_layer": 4, "model.d_model": 32},
    ]
    message = refusal(project, vary=rows)
    assert message.startswith("studies/lr.yaml: vary.0.label is 'few & wide': use letters")
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
        ({"seeds": [1, 1]}, "seeds names one twice: 1, 1"),
        ({"seeds": [-1]}, "seeds.0 is -1"),
        ({"vary": {"train.lr": 1e-3}}, "one key with a list of its values, or a list of rows"),
        ({"vary": []}, "vary is []"),
        ({"vary": [{"train.lr": 1.0}, {"train.steps": 2}]}, "vary: give every row the same keys"),
        ({"vary": {"train.steps": [1, 2]}}, "train.steps stands in set and in vary"),
        ({"set": {"train.seed": 1}}, "train.seed is what seeds gives"),
        ({"vary": {"train.lr": [1e-3, 0.0]}}, "scale is log: give train.lr numbers above 0"),
        ({"vary": {"model.positions": ["rope"]}}, "scale is log: give model.positions numbers"),
        ({"measures": ["val_loss"]}, "measures.0 is 'val_loss'"),
        ({"measures": ["evaluated.val_loss"]}, "would be in metrics/evaluated.json, which no"),
        ({"vary": {"train.lr": [0.001, 0.001]}}, "two rows are called lr_0.001_s1: give them"),
        ({"set": {"train.step": 2}}, "train.step is not a key of params.yaml: did you mean"),
        ({"set": {"train": {}}}, "train is not a key of params.yaml"),
        ({"presets": ["smal"]}, "preset smal: no such preset; did you mean small?"),
        ({"vary": {"train.lr": [1e-3, -1]}, "scale": "linear"}, "train.lr=-1: train.lr is -1"),
        ({"set": {"train.warmup_steps": 9000}}, "train.lr=0.001: train.warmup_steps (9000)"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(project, changes, expected):
    message = refusal(project, **changes)
    assert expected in message
    assert "\n" not in message
    assert message.startswith(("studies/lr.yaml", "preset smal"))


def test_a_study_that_is_not_there_names_those_that_are(project):
    load(project)
    with pytest.raises(AtlasError, match="study lrr: no such study; did you mean lr"):
        load_study(project, "lrr")
    (project / "studies/lr.yaml").write_text("- lr\n")
    with pytest.raises(AtlasError, match="it has no keys"):
        load_study(project, "lr")
    with pytest.raises(AtlasError, match="name it with small letters"):
        load(project, name="L_R")


def test_a_name_changes_with_what_decides_a_result_and_with_nothing_else(project):
    def names():
        return {run.name for run in load_study(project, "lr").runs}

    before = {run.name for run in load(project).runs}
    assert names() == before
    (project / "README.md").write_text("new")
    (project / "src/atlas/pipeline/stage.py").write_text("# it shapes no output")
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


def test_what_a_copy_of_the_project_would_lack_is_refused(project):
    (project / "data/own/mine.txt").write_text("text")
    load(project)  # which does not read it
    files = {"corpus.name": "files"}
    assert "data/own: git does not know all of it" in refusal(project, set=files)
    load(project, set=files | {"corpus.files.path": str(project / "data/own")})
    before = load_study(project, "lr").runs[0].name
    (project / "data/own/mine.txt").write_text("another text")
    assert load_study(project, "lr").runs[0].name != before
    new = project / "src/atlas/model/layers.py"
    subprocess.run(["git", "rm", "-q", "--cached", str(new)], cwd=project, check=True)
    assert "src/atlas/model/layers.py: git does not know it" in refusal(project)


def test_runs_belong_to_their_study():
    assert belongs("lr_0.001_s1_8cf6eca7", "lr")
    assert not belongs("lr_0.001_s1_8cf6eca7", "l")
    assert not belongs("lr-decay_0.001_s1_8cf6eca7", "lr")
    assert not belongs("lr_0.001_s1", "lr")
    assert not belongs("", "lr")


def test_the_studies_asked_for_are_there():
    assert set(available(ROOT)) >= ASKED_FOR


@pytest.fixture(scope="module")
def shipped():
    snapshot = Snapshot(ROOT)
    return {name: load_study(ROOT, name, snapshot) for name in available(ROOT)}


@pytest.mark.parametrize("name", available(ROOT))
def test_each_study_is_valid_and_has_its_page(shipped, name):
    study = shipped[name]
    assert len(study.plan.vary) >= 4
    assert len(study.plan.seeds) >= 2
    assert all(run.params.export.formats == () for run in study.runs)
    assert (ROOT / f"docs/studies/{name}.md").is_file()
    differing = {
        key for run in study.runs for key, value in leaves(run.params.model_dump())
        if value != dict(leaves(study.runs[0].params.model_dump()))[key]
    }  # fmt: skip
    assert differing == {*study.plan.keys, "train.seed"}


@pytest.mark.parametrize("name", ["heads", "depth", "feed-forward-kind"])
def test_these_compare_models_of_equal_size(shipped, name):
    sizes = [
        count(
            ModelConfig(
                **run.params.model.model_dump(),
                vocab_size=2048,
                eos=1,
                separator=None,
                add_bos_token=False,
                tokenizer_sha256="",
                learned_tokens=0,
            )
        ).total_parameters
        for run in shipped[name].runs
    ]
    assert max(sizes) / min(sizes) < 1.01, sizes


@pytest.mark.parametrize("name", ["batch", "context"])
def test_these_train_on_equally_many_tokens(shipped, name):
    tokens = {
        run.params.train.steps * run.params.train.batch_size * run.params.model.context_length
        for run in shipped[name].runs
    }
    assert tokens == {614_400}


@pytest.mark.parametrize("text", ["", "train: [", "- a list"])
@pytest.mark.parametrize("name", ["params.yaml", "presets/char.yaml"])
def test_a_broken_file_is_named(project, name, text):
    (project / name).write_text(text)
    assert f"{name}: " in refusal(project, presets=["char"])
