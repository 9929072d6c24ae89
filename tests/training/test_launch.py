"""``ATLAS_NPROC``: training in several processes on this machine."""

import pytest
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from atlas.params.settings import settings
from atlas.training import distributed
from atlas.training.distributed import launch


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_wrong_number_is_named(monkeypatch, value, capsys):
    monkeypatch.setenv("ATLAS_NPROC", value)
    with pytest.raises(SystemExit, match="1"):
        launch("stages.train", lambda: None)
    assert f"error: ATLAS_NPROC={value}: give a number of processes" in capsys.readouterr().err


def test_one_process_is_this_one(monkeypatch):
    ran = []
    launch("stages.train", lambda: ran.append("alone"))
    monkeypatch.setenv("ATLAS_NPROC", "4")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "started by torchrun")
    launch("stages.train", lambda: ran.append("one of four"))
    assert settings().nproc == 4
    assert ran == ["alone", "one of four"]


def failed(*codes):
    failures = {}
    for rank, code in enumerate(codes):
        failures[rank] = ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="none")
    return ChildFailedError("stages.train", failures)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (failed(1), 1),
        (failed(1, -15), 1),
        (failed(-15, 130), 130),
        (failed(130, 130), 130),
        (failed(-9), 1),
        (SignalException("stopped", 15), 130),
    ],
)
def test_the_launcher_ends_as_the_processes_did(monkeypatch, error, code):
    def elastic_launch(config, entrypoint):
        assert config.max_nodes * config.nproc_per_node == 2
        assert config.max_restarts == 0

        def run(*arguments):
            assert arguments == ("-m", "stages.train")
            raise error

        return run

    monkeypatch.setenv("ATLAS_NPROC", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(distributed, "elastic_launch", elastic_launch)
    monkeypatch.setattr(distributed.logging, "disable", lambda _: None)
    with pytest.raises(SystemExit) as end:
        launch("stages.train", lambda: None)
    assert end.value.code == code
