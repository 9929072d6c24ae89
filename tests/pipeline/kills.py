"""Kill one training run many times at random moments; compare it with an undisturbed run.

    python -m tests.pipeline.kills --times 20
    python -m tests.pipeline.kills --times 20 --signal TERM

Weights, curves and metrics must have the same hashes. The test kills it three times.
"""

import argparse
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.pipeline.checkout import Checkout

COMMAND = ("python", "-m", "stages.train")
STEPS_PER_KILL = 450  # more than a run makes before it is killed
MAX_DELAY = 0.5  # seconds from a checkpoint to the kill
OUTPUTS = ("models/model", "metrics/train.csv", "metrics/val.csv", "metrics/train.json")


def disturb(checkout: Checkout, times: int, seed: int, number: signal.Signals) -> list[int]:
    """Start the training and kill it, many times; return the last checkpoint of each run."""
    generator = random.Random(seed)
    reached = []
    for time_number in range(1, times + 1):
        process = checkout.start(*COMMAND, ATLAS_CHECKPOINT_SECONDS="0.3")
        before = newest(checkout)
        wait_for_training(checkout, process, before)
        time.sleep(generator.uniform(0, MAX_DELAY))
        assert process.poll() is None, f"training finished before kill {time_number}"
        process.send_signal(number)
        process.wait(timeout=60)
        process.stdout.close()
        reached.append(newest(checkout))
    return reached


def wait_for_training(checkout: Checkout, process: subprocess.Popen, before: int) -> None:
    """Wait until the training has written a checkpoint."""
    deadline = time.monotonic() + 60
    while newest(checkout) <= before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def newest(checkout: Checkout) -> int:
    """Return the step of the newest checkpoint, 0 without one."""
    folders = (checkout.root / ".ckpt/train").glob("*/step-*")
    return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)


def results(checkout: Checkout) -> dict[str, str]:
    """Return the hashes of the outputs of train."""
    hashes = checkout.hashes()
    return {path: hashes[path] for path in OUTPUTS}


def main() -> None:
    """Train a small project with and without kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = Checkout.create(Path(folder) / "whole")
        whole.set(**{"train.steps": STEPS_PER_KILL * options.times, "train.eval_every": 200})
        whole.dvc("repro", "tokenize")
        disturbed = whole.copy(Path(folder) / "disturbed")
        whole.dvc("repro", "train")
        number = signal.Signals[f"SIG{options.signal}"]
        reached = disturb(disturbed, options.times, options.seed, number)
        print(f"{options.times} times SIG{options.signal}, newest checkpoints: {reached}")
        disturbed.dvc("repro", "train")
        expected, found = results(whole), results(disturbed)
        for path in OUTPUTS:
            print(f"{'same' if found[path] == expected[path] else 'DIFFERENT'}  {path}")
        assert found == expected


if __name__ == "__main__":
    main()
