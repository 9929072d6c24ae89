import os

import pytest

from atlas.export.runtime_process import threads


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("", os.cpu_count()), ("0", os.cpu_count()), ("2,1", os.cpu_count())],
)
def test_threads_are_those_of_pytorch_or_a_core_each(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads() == expected
