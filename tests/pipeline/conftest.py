"""A finished run of a small project, made once per pytest worker."""

import shutil

import pytest

from tests.pipeline.checkout import STAGES, Checkout, stages_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """Return a checkout whose pipeline has run once, committed."""
    checkout = Checkout.create(tmp_path_factory.mktemp("finished") / "project")
    assert stages_run(checkout.dvc("repro")) == list(STAGES)
    checkout.git("add", "-A")
    checkout.git("commit", "-qm", "A run")
    return checkout


@pytest.fixture
def checkout(finished, tmp_path) -> Checkout:
    """Return a copy without DVC's run cache, so that stages really run."""
    copy = finished.copy(tmp_path / "project")
    shutil.rmtree(copy.root / ".dvc/cache/runs")
    return copy
