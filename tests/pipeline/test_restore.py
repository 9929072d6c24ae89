"""Restored outputs of a stage that failed, and the branch after a killed experiment."""

import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from atlas.errors import AtlasError, Stopped
from atlas.pipeline import restore
from atlas.pipeline.restore import BACK, reattach_head
from atlas.pipeline.stage import run_stage
from tests.code_walk import ROOT

STAGE = {
    "cmd": "python make.py",
    "params": ["train.lr"],
    "deps": ["make.py"],
    "outs": ["data/out"],
    "metrics": [{"metrics/made.json": {"cache": False}}],
}
MAKE = """
from pathlib import Path
from atlas.pipeline.stage import run_stage

def body(run):
    folder = run.output_folder("data/out")
    (folder / "inner").mkdir()
    (folder / "inner/weights").write_text("former")
    run.write_metrics({"loss": 1.5})

run_stage("made", body)
"""


def command(*arguments, cwd):
    return subprocess.run(arguments, cwd=cwd, check=True, capture_output=True, text=True).stdout


def new_repository(root: Path) -> None:
    command("git", "init", "-qb", "main", cwd=root)
    command("git", "config", "user.name", "A Tester", cwd=root)
    command("git", "config", "user.email", "tester@example.com", cwd=root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a project whose one stage has run through DVC, committed."""
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    (root / "models/own").mkdir(parents=True)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"made": STAGE}}))
    (root / "make.py").write_text(MAKE)
    (root / ".gitignore").write_text("/data/out\n/.ckpt/\n/metrics/timing/\n")
    new_repository(root)
    command("dvc", "init", "-q", cwd=root)
    command("dvc", "repro", cwd=root)
    command("git", "add", "-A", cwd=root)
    command("git", "commit", "-qm", "A run", cwd=root)
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """Return a copy as a stage finds it when DVC starts it: without its outputs."""
    root = tmp_path / "project"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_STAGE", "made")
    monkeypatch.setattr("atlas.pipeline.processes._parent", lambda process: process)
    shutil.rmtree("data/out")
    Path("metrics/made.json").unlink()
    return root


def failure(error, capsys) -> str:
    def body(run):
        (run.output_folder("data/out") / "half").write_text("new")
        if isinstance(error, signal.Signals):
            os.kill(os.getpid(), error)
            time.sleep(5)
        raise error

    with pytest.raises(SystemExit) as end:
        run_stage("made", body)
    assert end.value.code
    return capsys.readouterr().err


def check_former_outputs(root):
    assert (root / "data/out/inner/weights").read_text() == "former"
    assert "1.5" in (root / "metrics/made.json").read_text()
    assert not list(root.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AtlasError("refused"), f"error: refused; {BACK}\n"),
        (Stopped("stopped after step 3"), f"stopped after step 3; {BACK}\n"),
        (KeyboardInterrupt(), f"stopped: nothing half-written was kept; {BACK}\n"),
        (signal.SIGTERM, f"stopped: nothing half-written was kept; {BACK}\n"),
        (signal.SIGHUP, f"stopped: nothing half-written was kept; {BACK}\n"),
        (ZeroDivisionError("x"), f"shows the traceback); {BACK}\n"),
        (OSError(errno.ENOSPC, "No space left on device"), f"and run again; {BACK}\n"),
        (SystemExit(3), ""),
    ],
)
def test_the_former_outputs_are_back(project, capsys, error, expected):
    message = failure(error, capsys)
    assert message.endswith(expected)
    assert message.count("\n") == bool(expected)
    check_former_outputs(project)
    assert command("dvc", "status", cwd=project) == "Data and pipelines are up to date.\n"


@pytest.mark.slow
def test_params_that_are_refused_cost_nothing(project, capsys):
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("lr: 4.0e-3", "lr: -1"))
    message = failure(AtlasError("not reached"), capsys)
    assert message == f"error: params.yaml: train.lr is -1: it must be greater than 0; {BACK}\n"
    check_former_outputs(project)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["HEAD", "index", "stash of dvc exp run"])
def test_metrics_come_from_git_if_dvc_has_them_not(project, capsys, version):
    cache = project / ".dvc/cache/files/md5"
    (metrics,) = (file for file in cache.rglob("*") if file.is_file() and "1.5" in read(file))
    metrics.unlink()
    if version != "HEAD":  # the run is not committed yet
        former = command("git", "rev-parse", "HEAD", cwd=project).strip()
        command("git", "rm", "-q", "--cached", "metrics/made.json", cwd=project)
        command("git", "commit", "-qm", "Before the run", cwd=project)
        if version == "index":
            command("git", "reset", "-q", former, "metrics/made.json", cwd=project)
        else:
            command("git", "update-ref", "refs/exps/exec/EXEC_MERGE", former, cwd=project)
    assert failure(AtlasError("refused"), capsys).endswith(f"{BACK}\n")
    check_former_outputs(project)


def read(file: Path) -> str:
    return file.read_text(errors="replace")


@pytest.mark.slow
def test_what_is_lost_is_named(project, capsys):
    shutil.rmtree(project / ".dvc/cache")
    message = failure(AtlasError("refused"), capsys)
    assert message == f"error: refused; {BACK}, except data/out: not in DVC's cache\n"
    (project / "dvc.lock").write_text("stages: [")
    shutil.rmtree(project / "metrics")
    message = failure(AtlasError("refused"), capsys)
    assert "the former outputs are not back" in message
    assert message.endswith("run `dvc checkout`\n")
    assert message.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["no former run", "started by hand", "copy of the project"])
def test_nothing_is_put_where_nothing_was(project, capsys, monkeypatch, reason):
    if reason == "no former run":
        (project / "dvc.lock").unlink()
    elif reason == "started by hand":
        monkeypatch.delenv("DVC_STAGE")
    else:
        monkeypatch.setattr(restore, "COPIES", str(project))
    assert failure(AtlasError("refused"), capsys) == "error: refused\n"
    assert not (project / "data/out").exists()


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """Return a repository as a killed ``dvc exp run`` leaves it."""
    new_repository(tmp_path)
    for name in ("params.yaml", "notes"):
        (tmp_path / name).write_text("old\n")
    command("git", "add", "-A", cwd=tmp_path)
    command("git", "commit", "-qm", "First", cwd=tmp_path)
    head = command("git", "rev-parse", "HEAD", cwd=tmp_path).strip()
    command("git", "checkout", "-q", head, cwd=tmp_path)
    (tmp_path / "params.yaml").write_text("new\n")
    command("git", "add", "params.yaml", cwd=tmp_path)
    (tmp_path / "notes").write_text("edited\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a commit")
    return tmp_path


def test_a_killed_experiment_returns_to_its_branch_and_keeps_edits(killed):
    reattach_head()
    assert command("git", "status", "-sb", cwd=killed) == "## main\n M notes\n M params.yaml\n"
    reattach_head()  # on a branch, nothing changes
    assert command("git", "status", "-sb", cwd=killed) == "## main\n M notes\n M params.yaml\n"


@pytest.mark.parametrize("by", ["user", "repro"])
def test_a_head_that_dvc_has_not_detached_stays(killed, monkeypatch, by):
    if by == "user":
        command("git", "switch", "-q", "main", cwd=killed)
        command("git", "switch", "-q", "--detach", "main", cwd=killed)
    else:
        monkeypatch.delenv("DVC_EXP_BASELINE_REV")
    reattach_head()
    assert command("git", "status", "-sb", cwd=killed).startswith("## HEAD (no branch)\n")
