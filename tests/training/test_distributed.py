"""Two processes train as one, with DDP and FSDP2 over gloo; ``ATLAS_NPROC`` starts them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from atlas.errors import AtlasError
from atlas.params.settings import settings
from atlas.tokens.windows import NO_TARGET, TokenBatch
from atlas.training import distributed
from atlas.training.distributed import DistributedContext, distributed_context, launch
from tests.code_walk import ROOT
from tests.training.conftest import CPU


def train(tokens, run, processes=1, strategy="ddp", stop_at=0, rank=0):
    """Run tests.training.processes; return its log, or None if it was stopped."""
    run.mkdir(exist_ok=True)
    (run / "result.json").unlink(missing_ok=True)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    program = ["-m", "tests.training.processes", str(tokens), str(run), str(stop_at), str(rank)]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), *program],
        cwd=ROOT,
        env=os.environ
        | {"ATLAS_STRATEGY": strategy, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    result = run / "result.json"
    return json.loads(result.read_text()) if result.exists() else None


def assert_equal(found, expected):
    for key in ("losses", "norms", "val"):
        assert found[key] == pytest.approx(expected[key], abs=1e-5)
    assert found["weights"] == pytest.approx(expected["weights"], abs=1e-3)


@pytest.fixture(scope="session")
def alone(token_folder, tmp_path_factory):
    result = train(token_folder, tmp_path_factory.mktemp("alone"))
    assert len(result["losses"]) == 50
    assert result["losses"][-1] < result["losses"][0] - 1
    return result


@pytest.mark.slow
def test_ddp_learns_as_one_process(token_folder, tmp_path, alone):
    assert_equal(train(token_folder, tmp_path / "whole", 2, "ddp"), alone)


@pytest.mark.very_slow
def test_ddp_resumes_in_one_process(token_folder, tmp_path, alone):
    run = tmp_path / "stopped"
    assert train(token_folder, run, 2, "ddp", stop_at=23) is None
    assert (run / "step-00000023").is_dir()
    assert_equal(train(token_folder, run), alone)


@pytest.mark.very_slow
def test_fsdp_learns_as_one_process_from_end_to_end(token_folder, tmp_path, alone):
    assert_equal(train(token_folder, tmp_path / "whole", 2, "fsdp"), alone)


@pytest.mark.very_slow
def test_fsdp_trains_like_one_process_and_resumes_in_any_number(token_folder, tmp_path, alone):
    run = tmp_path / "run"
    assert train(token_folder, run, 1, stop_at=11) is None
    assert train(token_folder, run, 2, "fsdp", stop_at=23) is None
    assert (run / "step-00000023/sharded").is_dir()
    assert train(token_folder, run, 1, stop_at=31) is None
    assert_equal(train(token_folder, run, 2, "fsdp"), alone)


@pytest.mark.very_slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_lora_learns_as_in_one_process_and_resumes(token_folder, tmp_path, strategy):
    expected = train(token_folder, tmp_path / "alone", rank=4)
    assert expected["losses"][-1] < expected["losses"][0]
    run = tmp_path / "run"
    assert train(token_folder, run, 2, strategy, stop_at=23, rank=4) is None
    assert_equal(train(token_folder, run, 2, strategy, rank=4), expected)


def test_the_rows_of_a_batch_are_shared_out():
    contexts = [DistributedContext(CPU, rank, 3) for rank in range(3)]
    assert [list(range(12))[context.local_rows(12)] for context in contexts] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]
    ]  # fmt: skip
    with pytest.raises(
        AtlasError, match=r"train.batch_size \(10\) is not divisible by the 3 proc.*12"
    ):
        contexts[0].local_rows(10)
    numbers = np.arange(8).reshape(4, 2)
    batches = [TokenBatch(numbers, numbers, numbers >= 0), TokenBatch(*(numbers[:1],) * 3)]
    shares = [list(context.split_batches(batches)) for context in contexts]
    assert [[int(row[0]) for row in first.inputs] for first, _ in shares] == [[0, 6], [2], [4]]
    assert [second.num_targets() for _, second in shares] == [2, 0, 0]
    assert (shares[1][1].targets == NO_TARGET).all()


def test_one_process_needs_no_communication():
    context = DistributedContext(CPU)
    assert context.sum(2, 3.5) == [2, 3.5]
    assert context.any(True)
    assert not context.is_sharded
    model = torch.nn.Linear(2, 2)
    assert context.wrap(model, model, []) is model


def test_an_unknown_strategy_is_named(monkeypatch):
    monkeypatch.setenv("ATLAS_STRATEGY", "magic")
    with (
        pytest.raises(AtlasError, match="ATLAS_STRATEGY=magic: must be ddp or fsdp"),
        distributed_context(CPU),
    ):
        pass


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5", ""])
def test_a_wrong_number_is_named(monkeypatch, value, capsys):
    monkeypatch.setenv("ATLAS_NPROC", value)
    with pytest.raises(SystemExit, match="1"):
        launch("stages.train", lambda: None)
    assert f"error: ATLAS_NPROC={value}: must be a number of processes" in capsys.readouterr().err


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
