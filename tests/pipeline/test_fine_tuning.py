"""A run that starts from a base model: reruns, queued experiments, kills, and a changed base."""

import re
import shutil
import time

import pytest
import safetensors.torch

from tests.pipeline.checkout import Checkout, stages_run
from tests.pipeline.kills import COMMAND, wait_for_training

pytestmark = pytest.mark.very_slow
AFTER_TRAIN = ["train", "evaluate", "export"]


@pytest.fixture(scope="module")
def tuned(finished, tmp_path_factory) -> Checkout:
    """A checkout in which LoRA has changed the model of the finished run, committed."""
    checkout = finished.copy(tmp_path_factory.mktemp("tuned") / "project")
    base = checkout.root / "models/base"
    shutil.copytree(checkout.root / "models/model", base)
    shutil.copytree(checkout.root / "models/tokenizer", base / "tokenizer")
    changes = {
        "train.start": "models/base",
        "tokenizer.path": "models/base/tokenizer",
        "train.lora.rank": 4,
        "train.steps": 40,
        "train.eval_every": 20,
        "export.formats": [],
    }
    checkout.set(**changes)
    assert stages_run(checkout.dvc("repro")) == ["train_tokenizer", *AFTER_TRAIN]
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "A fine-tuned model")
    return checkout


def test_queued_ranks_rerun_train_evaluate_and_export_alone(tuned):
    metrics = tuned.json("metrics/train.json")
    assert metrics["start"] == "base"
    assert metrics["trained_parameters"] < 0.2 * metrics["parameters"]
    copied = ("-C", "models/base", "-C", "data/own")  # git does not track them
    tuned.dvc("exp", "run", "-S", "train.lora.rank=2,8", "--queue", *copied)
    tuned.dvc("queue", "start")
    deadline = time.monotonic() + 240
    while "Queued" in (status := tuned.dvc("queue", "status")) or "Running" in status:
        assert time.monotonic() < deadline, status
        time.sleep(1)
    names = re.findall(r"^\w+ +([\w-]+) .* Success$", status, re.MULTILINE)
    assert len(names) == 2, status
    for name in names:
        assert stages_run(tuned.dvc("queue", "logs", name)) == AFTER_TRAIN


def test_a_killed_run_ends_the_same_and_a_changed_base_starts_over(tuned, tmp_path):
    checkout = tuned.copy(tmp_path / "project")
    outputs = [*(checkout.root / "models/model").iterdir(), checkout.root / "metrics/train.json"]
    expected = {path: path.read_bytes() for path in outputs}
    process = checkout.start(*COMMAND, ATLAS_CHECKPOINT_SECONDS="0")
    wait_for_training(checkout, process, 0)
    process.kill()
    process.communicate()
    path = checkout.root / "models/base/model.safetensors"
    weights = path.read_bytes()
    safetensors.torch.save_file(
        {name: 1.1 * each for name, each in safetensors.torch.load(weights).items()}, path
    )
    assert "continuing from step" not in checkout.run(*COMMAND)
    (model,) = (path for path in outputs if path.name == "model.safetensors")
    assert model.read_bytes() != expected[model]
    path.write_bytes(weights)
    assert "continuing from step" in checkout.run(*COMMAND)
    assert {path: path.read_bytes() for path in outputs} == expected
