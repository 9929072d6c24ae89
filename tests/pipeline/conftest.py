"""A finished run of a small project, made once a worker."""

import shutil

import pytest

from tests.pipeline.checkout import STAGES, Checkout, stages_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A checkout in which the pipeline has run once, committed."""
    checkout = Checkout.create(tmp_path_factory.mktemp("finished") / "project")
    assert stages_run(checkout.dvc("repro")) == list(STAGES)
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "A run")
    return checkout


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """A copy of it that knows of no earlier run, so that what is run in it is run."""
    copy = finished.copy(tmp_path / "project")
    shutil.rmtree(copy.root / ".dvc/cache/runs")
    return copy
