"""Workers that end before the runs do, with a queue that is played."""

from contextlib import contextmanager

import pytest

from atlas.errors import AtlasError
from atlas.tools.studies import session
from atlas.tools.studies.plan import Plan
from atlas.tools.studies.results import Result
from atlas.tools.studies.session import run_missing
from atlas.tools.studies.study import Run, Study
from tests.small import small_params

RUNS = tuple(Run(f"lr_{row}_s1_1a2b3c4d", row, 1, small_params(), ()) for row in range(3))


class Ended:
    """A worker's process that is over."""

    def poll(self):
        return 0

    def wait(self):
        return 0


class NoQueue:
    """A queue with nothing in it."""

    def entries(self):
        return []

    def remove(self, entries):
        assert list(entries) == []


@pytest.fixture
def study():
    plan = Plan.model_validate(
        {
            "question": "Which?",
            "vary": {"train.lr": [1e-3, 2e-3, 4e-3]},
            "seeds": [1],
            "measures": ["evaluate.val_loss"],
            "scale": "log",
        }
    )
    return Study("lr", plan, RUNS)


@pytest.fixture
def workers(monkeypatch):
    """Plays workers, each of which ends so many runs; returns those that are yet to come."""
    coming, done = [], []

    @contextmanager
    def worker(_root):
        done.extend(RUNS[len(done) :][: coming.pop(0)])
        yield Ended()

    def results(_root, asked, _entries):
        return [Result(run, "done" if run in done else "queued") for run in asked.runs]

    monkeypatch.setattr(session, "SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr(session, "_worker", worker)
    monkeypatch.setattr(session, "results", results)
    return coming


def test_another_worker_takes_the_place_of_one_that_ends(tmp_path, study, workers):
    workers += [1, 2]
    reported = []
    run_missing(tmp_path, NoQueue(), study, list(RUNS), reported.append)
    assert [result.run for result in reported] == list(RUNS)
    assert workers == []


def test_a_worker_that_ends_nothing_is_the_last(tmp_path, study, workers):
    workers += [1, 0, 2]
    reported = []
    with pytest.raises(AtlasError, match="ended too early"):
        run_missing(tmp_path, NoQueue(), study, list(RUNS), reported.append)
    assert [result.run for result in reported] == [RUNS[0]]
    assert workers == [2]
