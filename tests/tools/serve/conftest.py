"""Servers for the tests that only ask them something."""

from collections.abc import Iterator

import pytest

from atlas.tools.serve.engine import ServerOptions
from tests.tools.serve.support import opened_model, running


@pytest.fixture(scope="session")
def opened(tokenizer):
    return opened_model(tokenizer)


@pytest.fixture(scope="session")
def address(opened):
    limits = ServerOptions(
        slots=4,
        queue_size=8,
        max_tokens=500,
        max_sequences=6,
        max_body_bytes=100_000,
        body_timeout=2,
    )
    with running(opened, limits) as address:
        yield address


@pytest.fixture(scope="module")
def server(opened, tmp_path_factory) -> Iterator[str]:
    """The address of a server that has curves and roles of heads to show."""
    folder = tmp_path_factory.mktemp("metrics")
    steps = range(10, 210, 10)
    train = [f"{step},{5 - step / 100},{5.5 - step / 100}" for step in steps]
    (folder / "train.csv").write_text("\n".join(["step,loss,loss_average", *train]) + "\n")
    (folder / "val.csv").write_text("step,loss\n0,6\n100,4.5\n200,3.25\n")
    (folder / "tables").mkdir()
    (folder / "tables/heads.csv").write_text(
        "layer,head,previous,first,itself,same,induction,role\n"
        "1,1,0.81,0.02,0.05,0,0,previous\n"
        "2,2,0.1,0.02,0.05,0,0.21,\n"
    )
    with running(opened, metrics_folder=folder) as address:
        yield address
