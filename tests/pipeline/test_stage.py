"""The stage runner, in a project with one artificial stage."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from atlas.errors import AtlasError
from atlas.pipeline import stage
from atlas.pipeline.stage import StageSpec, project_root, resolve_user_path, run_stage
from tests.code_walk import ROOT

STAGE = {
    "cmd": "none",
    "params": ["train.lr", "train.steps"],
    "deps": ["data/in", "code.py", "${corpus.files.path}"],
    "outs": ["data/out", {"metrics/rows.csv": {"cache": False}}],
    "metrics": [{"metrics/made.json": {"cache": False}}],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"made": STAGE}}))
    (tmp_path / "data/in").mkdir(parents=True)
    (tmp_path / "data/in/a.txt").write_text("a")
    for name in ("data/own", "models/own"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "code.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(run, text="result"):
    folder = run.output("data/out")
    folder.mkdir()
    (folder / "file").write_text(text)
    run.write_metrics({"loss": 1.5})


def refused(body, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        run_stage("made", body)
    assert end.value.code != 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def left_over(project):
    return [path.name for path in project.rglob("*.partial")]


def test_outputs_appear_when_the_stage_has_succeeded(project):
    def body(run):
        write(run)
        assert not (project / "data/out").exists()
        run.timing["speed"] = 3

    run_stage("made", body)
    assert (project / "data/out/file").read_text() == "result"
    assert json.loads((project / "metrics/made.json").read_text()) == {"loss": 1.5}
    timing = json.loads((project / "metrics/timing/made.json").read_text())
    assert timing["speed"] == 3
    assert timing["seconds"] >= 0
    assert not left_over(project)


def test_metrics_with_text_of_any_script_are_text_to_dvc(project):
    def body(run):
        run.output_folder("data/out")
        run.write_metrics({"pieces": "·⏎книга日本語" * 40})

    run_stage("made", body)
    content = (project / "metrics/made.json").read_bytes()
    assert content.isascii()
    assert json.loads(content)["pieces"].endswith("日本語")


def test_a_failure_keeps_the_previous_outputs(project, capsys):
    run_stage("made", write)

    def fails(run):
        write(run, "other")
        raise AtlasError("no")

    assert refused(fails, capsys) == "error: no\n"
    assert (project / "data/out/file").read_text() == "result"
    assert not left_over(project)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("data/in/a.txt", "b"),
        ("data/in/new.txt", "x"),
        ("data/own/new.txt", "x"),
        ("code.py", "# edited"),
        ("params.yaml", None),
    ],
)
def test_a_change_during_a_run_discards_its_result(project, capsys, path, content):
    def body(run):
        write(run)
        file = project / path
        file.write_text(content or file.read_text().replace("lr: 4.0e-3", "lr: 5.0e-3"))

    assert "changed while the stage ran" in refused(body, capsys)
    assert not (project / "data/out").exists()
    assert not left_over(project)


def test_a_param_of_another_stage_may_change_meanwhile(project):
    def body(run):
        write(run)
        params = project / "params.yaml"
        params.write_text(params.read_text().replace("top_k: 50", "top_k: 40"))

    run_stage("made", body)


def test_touching_a_file_is_no_change(project):
    def body(run):
        write(run)
        os.utime(project / "data/in/a.txt", (1, 1))

    run_stage("made", body)


def test_checkpoints_belong_to_params_code_and_data(project, capsys):
    folders = []

    def body(run):
        run.checkpoints.mkdir(parents=True)
        folders.append(run.checkpoints.name)
        raise AtlasError("stop")

    def change(path, old, new):
        file = project / path
        file.write_text(file.read_text().replace(old, new))

    refused(body, capsys)
    change("params.yaml", "top_k: 50", "top_k: 40")  # of another stage
    shutil.rmtree(project / ".ckpt/made")
    refused(body, capsys)
    change("params.yaml", "lr: 4.0e-3", "lr: 5.0e-3")
    refused(body, capsys)
    change("data/in/a.txt", "a", "b")
    refused(body, capsys)
    (project / "code.py").write_text("# other")
    refused(body, capsys)
    assert folders[0] == folders[1]
    assert len(set(folders[1:])) == 4


def test_checkpoints_are_removed_when_the_stage_has_succeeded(project):
    def body(run):
        run.checkpoints.mkdir()
        write(run)

    run_stage("made", body)
    assert not list((project / ".ckpt").rglob("*/*"))


def test_a_missing_input_is_named(project, capsys):
    (project / "code.py").unlink()
    assert refused(write, capsys).startswith("error: code.py: missing; `dvc repro` creates")


def test_an_undeclared_output_is_refused(project, capsys):
    assert "declares no output data/other" in refused(lambda run: run.output("data/other"), capsys)


def test_a_metric_that_is_not_a_number_is_refused(project, capsys):
    error = refused(lambda run: run.write_metrics({"loss": float("nan")}), capsys)
    assert "metric loss is nan" in error
    assert not left_over(project)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line_that_names_the_output(project, capsys):
    def body(run):
        run.output("data/out")
        with Path("/dev/full").open("w") as full:
            full.write("x")

    error = refused(body, capsys)
    assert error.startswith("error: data/out: not written (No space left on device)")
    assert not left_over(project)


def test_a_running_stage_is_not_started_twice(project, capsys, monkeypatch):
    monkeypatch.setattr(stage, "LOCK_TIMEOUT", 0.1)
    (project / ".ckpt").mkdir()
    with FileLock(project / ".ckpt/made.lock"):
        assert "this stage is already running" in refused(write, capsys)


def test_the_entry_in_dvc_yaml_is_read(project):
    spec = StageSpec.from_dvc_yaml("made", {"corpus.files.path": "data/own"})
    assert [str(path) for path in spec.deps] == ["data/in", "code.py", "data/own"]
    assert [str(path) for path in spec.outs] == [
        "data/out",
        "metrics/rows.csv",
        "metrics/made.json",
    ]


def test_the_root_of_a_temporary_experiment_is_the_project(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", f"{tmp_path}/.dvc/tmp/exps/tmpabc")
    assert project_root() == tmp_path
    assert resolve_user_path("../mirror") == tmp_path / "../mirror"
    assert str(resolve_user_path("/mirror")) == "/mirror"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path
