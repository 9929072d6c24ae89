"""One server for the tests that only ask it something."""

import pytest

from atlas.serve.limits import Limits
from tests.serve.live import opened_model, running


@pytest.fixture(scope="session")
def opened(tokenizer):
    return opened_model(tokenizer)


@pytest.fixture(scope="session")
def address(opened):
    limits = Limits(slots=4, queue=8, tokens=500, texts=6, body_bytes=100_000, body_seconds=1)
    with running(opened, limits) as address:
        yield address
