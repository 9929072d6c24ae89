"""Train the NumPy decoder on the arithmetic language; print accuracy and time.

    OPENBLAS_NUM_THREADS=1 python -m bench.reference

Trains on 9,000 examples such as ``Max 3 7 1 = 7`` and tests on 1,000 others. Only the answer is
trained on, since the digits of a question are random. The matrices are small, so one thread is as
fast as two, and much faster on a busy machine.
"""

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atlas.corpora.arithmetic import DIGITS, LENGTHS, NAME, OPERATIONS, VOCABULARY, write_arithmetic
from atlas.reference.decoder import generate, initialize
from atlas.reference.layers import Array, Parameters
from atlas.reference.options import Options
from atlas.reference.training import IGNORED, AdamW, Batch, train, warmup_cosine

EXAMPLES = 10_000
HELD_OUT = 1_000
STEPS = 4_000
BATCH_SIZE = 64
LR, WARMUP_STEPS, MIN_LR_RATIO = 3e-3, 50, 0.02
OPTIONS = Options(
    vocab_size=len(VOCABULARY), context_length=2 + LENGTHS[-1], positions="learned",
    d_model=48, n_layer=2, n_head=4, n_kv_head=4, d_ff=128,
)  # fmt: skip


class Examples(NamedTuple):
    """N examples, questions padded on the left so that all answers line up.

    Attributes:
        questions: (N, T) ids.
        mask: (N, T), True at tokens and False at padding.
        answers: (N,) ids.
        operations: (N,) names.
    """

    questions: Array
    mask: Array
    answers: Array
    operations: Array

    def pick(self, indices: Array | slice) -> "Examples":
        """Select examples by index."""
        return Examples(*(column[indices] for column in self))


def main() -> None:
    """Parse the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="of the examples and of training")
    options = parser.parse_args()
    learn(options.steps, options.seed)


def learn(steps: int = STEPS, seed: int = 0) -> float:
    """Train, print six rows of a table, and return the accuracy on held-out questions."""
    examples = read_examples(seed)
    training, held_out = examples.pick(slice(HELD_OUT, None)), examples.pick(slice(HELD_OUT))
    generator = np.random.default_rng(seed)

    def get_batch(_step: int) -> Batch:
        return answers_batch(training.pick(generator.choice(len(training.answers), BATCH_SIZE)))

    def get_lr(step: int) -> float:
        return LR * warmup_cosine(step, steps, WARMUP_STEPS, MIN_LR_RATIO)

    parameters = initialize(OPTIONS, seed)
    count = sum(array.size for array in parameters.values())
    print(f"{count:,} weights; accuracy on {HELD_OUT:,} held-out questions:")
    print("  step  seconds   loss    all  " + " ".join(f"{name:>10}" for name in OPERATIONS))
    optimizer = AdamW(beta2=0.98, weight_decay=0.5)
    losses, accuracy, started = [], 0.0, time.perf_counter()
    step_losses = train(parameters, OPTIONS, get_batch, optimizer, get_lr, steps)
    for step, loss in enumerate(step_losses, start=1):
        losses.append(loss)
        if step % math.ceil(steps / 6) == 0 or step == steps:
            correct = correct_answers(parameters, held_out)
            accuracy = float(correct.mean())
            shares = " ".join(
                f"{correct[held_out.operations == name].mean():10.3f}" for name in OPERATIONS
            )
            seconds = time.perf_counter() - started
            print(f"{step:6} {seconds:8.0f} {np.mean(losses):6.3f} {accuracy:6.3f}  {shares}")
            losses.clear()
    return accuracy


def read_examples(seed: int) -> Examples:
    """Generate the examples of a seed as ids, one id per word."""
    with tempfile.TemporaryDirectory() as folder:
        write_arithmetic(Path(folder), EXAMPLES, seed)
        lines = (Path(folder) / NAME).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    width = OPTIONS.context_length
    questions = np.full((len(records), width), ids[DIGITS[0]])  # (N, T), the mask hides padding
    mask = np.zeros((len(records), width), bool)
    answers = np.empty(len(records), int)
    for row, record in enumerate(records):
        *question, answer = (ids[word] for word in record["text"].split())
        questions[row, width - len(question) :] = question
        mask[row, width - len(question) :] = True
        answers[row] = answer
    return Examples(questions, mask, answers, np.array([record["source"] for record in records]))


def answers_batch(examples: Examples) -> Batch:
    """Return a batch whose only targets are the answers, cut to its longest question."""
    longest = examples.mask.sum(1).max()
    ids, mask = examples.questions[:, -longest:], examples.mask[:, -longest:]
    targets = np.full_like(ids, IGNORED)  # (B, T)
    targets[:, -1] = examples.answers
    return Batch(ids, targets, mask)


def correct_answers(parameters: Parameters, examples: Examples) -> Array:
    """Return (N,), True where the most likely token after a question is its answer."""
    predicted = generate(parameters, OPTIONS, examples.questions, 1, examples.mask)  # (N, 1)
    correct: Array = predicted[:, 0] == examples.answers
    return correct


if __name__ == "__main__":
    main()
