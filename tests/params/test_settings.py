"""The environment variables ``ATLAS_*``."""

import pytest

from atlas.errors import AtlasError
from atlas.params.settings import settings


def test_unset_variables_have_defaults(monkeypatch):
    monkeypatch.delenv("ATLAS_PARALLEL")
    found = settings()
    assert (found.device, found.nproc, found.strategy, found.parallel) == (None, 1, "ddp", None)
    assert found.checkpoint_seconds == 60


def test_variables_are_read_as_their_types(monkeypatch):
    monkeypatch.setenv("ATLAS_NPROC", "2")
    monkeypatch.setenv("ATLAS_CHECKPOINT_SECONDS", "0.5")
    monkeypatch.setenv("ATLAS_DEVICE", "cpu")
    found = settings()
    assert (found.nproc, found.checkpoint_seconds, found.device) == (2, 0.5, "cpu")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("NPROC", "0", "a number of processes, 1 or more"),
        ("NPROC", "two", "a number of processes, 1 or more"),
        ("READERS", "-1", "a number of processes, 0 for none"),
        ("STRATEGY", "magic", "ddp or fsdp"),
        ("COMPILE", "yes", "0, 1 or auto"),
        ("CHECKPOINT_SECONDS", "inf", "a number of seconds, 0 or more"),
    ],
)
def test_a_bad_value_is_one_line(monkeypatch, name, value, allowed):
    monkeypatch.setenv(f"ATLAS_{name}", value)
    with pytest.raises(AtlasError) as error:
        settings()
    assert str(error.value) == f"ATLAS_{name}={value}: must be {allowed}"


def test_a_misspelt_name_is_refused_with_the_right_one(monkeypatch):
    monkeypatch.setenv("ATLAS_DEVCE", "cuda")
    with pytest.raises(AtlasError, match=r"ATLAS_DEVCE is not a .*mean ATLAS_DEVICE"):
        settings()
