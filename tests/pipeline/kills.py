"""Ends one training many times, at random moments, and compares it with one that nobody touched.

    python -m tests.pipeline.kills --times 20
    python -m tests.pipeline.kills --times 20 --signal TERM

The weights, the curves and the metrics must have the same hashes. The test does it three times.
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
STEPS_A_TIME = 450  # more than a run gets on before it is ended
LONGEST = 0.5  # seconds from a checkpoint to the end
OUTPUTS = ("models/model", "metrics/train.csv", "metrics/val.csv", "metrics/train.json")


def disturb(checkout: Checkout, times: int, seed: int, number: signal.Signals) -> list[int]:
    """Starts the training again and again and ends it in the middle; the steps where it was."""
    generator = random.Random(seed)
    reached = []
    for time_number in range(1, times + 1):
        process = checkout.start(*COMMAND, ATLAS_CHECKPOINT_SECONDS="0.3")
        before = newest(checkout)
        wait_for_training(checkout, process, before)
        time.sleep(generator.uniform(0, LONGEST))
        assert process.poll() is None, f"it ended before it was ended {time_number} times"
        process.send_signal(number)
        process.wait(timeout=60)
        process.stdout.close()
        reached.append(newest(checkout))
    return reached


def wait_for_training(checkout: Checkout, process: subprocess.Popen, before: int) -> None:
    """Until the start of the program is over and a first checkpoint was written."""
    deadline = time.monotonic() + 60
    while newest(checkout) <= before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def newest(checkout: Checkout) -> int:
    """The step of the newest checkpoint; 0 without one."""
    folders = (checkout.root / ".ckpt/train").glob("*/step-*")
    return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)


def results(checkout: Checkout) -> dict[str, str]:
    """The hashes of what training gave."""
    hashes = checkout.hashes()
    return {path: hashes[path] for path in OUTPUTS}


def main() -> None:
    """Makes a small project, trains it with and without disturbance, compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = Checkout.create(Path(folder) / "whole")
        whole.set(**{"train.steps": STEPS_A_TIME * options.times, "train.eval_every": 200})
        whole.dvc("repro", "tokenize")
        disturbed = whole.copy(Path(folder) / "disturbed")
        whole.dvc("repro", "train")
        number = signal.Signals[f"SIG{options.signal}"]
        reached = disturb(disturbed, options.times, options.seed, number)
        print(f"{options.times} times SIG{options.signal}, newest checkpoints then: {reached}")
        disturbed.dvc("repro", "train")
        expected, found = results(whole), results(disturbed)
        for path in OUTPUTS:
            print(f"{'same' if found[path] == expected[path] else 'DIFFERENT'}  {path}")
        assert found == expected


if __name__ == "__main__":
    main()
