"""Batches do not depend on how they are read or where reading was interrupted."""

import itertools
import json
import multiprocessing
import os
import signal

import pytest
import torch

from atlas.errors import AtlasError
from atlas.tokens.batches import BatchLoader, reader_count
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import TokenBatch, TrainingWindows
from tests.small import write_tokens


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    documents = [[list(range(3 + 7 * n, 3 + 7 * n + n % 40)) for n in range(200)]] * 2
    folder = write_tokens(tmp_path_factory.mktemp("tokens"), {"train": documents}, 2000, "padded")
    return TrainingWindows(TokenSplit(folder, "train"), 16, 4, seed=3)


def make(windows, workers=0):
    return BatchLoader(windows, torch.device("cpu"), workers)


def take(batches, count):
    return list(itertools.islice(batches.read(), count))


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(a, b)
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x[:3], y[:3], strict=True)
    )


def test_batches_are_the_windows_of_each_step(windows):
    for step, batch in enumerate(take(make(windows), 5)):
        expected = TokenBatch.from_rows(windows.rows(step), windows.tokens.index)
        for ours, theirs in zip(batch[:3], expected[:3], strict=True):
            assert ours.tolist() == theirs.tolist()
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.mask.dtype == torch.bool


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0, 2), (2, 0), (2, 1), (1, 2)])
def test_the_next_hundred_after_a_save_are_those_of_a_run_without_one(windows, before, after):
    whole = take(make(windows), 137)
    first = make(windows, before)
    taken = take(first, 37)
    state = json.loads(json.dumps(first.state_dict()))
    second = make(windows, after)
    second.load_state_dict(state)
    assert same(taken + take(second, 100), whole)
    assert second.next == 137


def test_reading_draws_no_number_of_the_training(windows):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    take(make(windows), 3)
    take(make(windows, 1), 3)
    assert torch.equal(torch.rand(3), expected)


def test_workers_end_with_the_reading(windows):
    before = set(multiprocessing.active_children())  # other tests may have left theirs
    batches = make(windows, 2).read()
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()
    assert not set(multiprocessing.active_children()) - before


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 8}, {"context_length": 8}])
def test_a_state_of_other_batches_is_refused(windows, change):
    state = make(windows).state_dict()
    values = {"context_length": 16, "batch_size": 4, "seed": 3} | change
    other = make(TrainingWindows(windows.tokens, **values))
    (name,) = change
    with pytest.raises(AtlasError, match=rf"to other batches \({name} differ\)"):
        other.load_state_dict(state)


@pytest.mark.parametrize("change", [{"tokens": 5}, {"tokenizer": "x"}, {"layout": "packed"}])
def test_a_state_of_other_data_is_refused(windows, change):
    state = make(windows).state_dict()
    state["windows"] |= change
    (name,) = change
    with pytest.raises(AtlasError, match=rf"to other batches \({name} differ\)"):
        make(windows).load_state_dict(state)


def test_other_text_of_the_same_length_is_other_data(tmp_path):
    states = []
    for token in (5, 6):
        folder = write_tokens(tmp_path / str(token), {"train": [[[token] * 40]]})
        split = TokenSplit(folder, "train")
        states.append(make(TrainingWindows(split, 16, 4, seed=3)).state_dict())
    assert states[0] != states[1]


def test_a_signal_to_all_ends_no_reader(windows):
    before = set(multiprocessing.active_children())
    batches = make(windows, 2).read()
    assert len(list(itertools.islice(batches, 2))) == 2  # one from each, so that both have started
    for reader in set(multiprocessing.active_children()) - before:
        os.kill(reader.pid, signal.SIGTERM)
        os.kill(reader.pid, signal.SIGINT)
    assert len(list(itertools.islice(batches, 30))) == 30
    batches.close()


def test_a_killed_reader_is_reported(windows):
    before = set(multiprocessing.active_children())
    batches = make(windows, 1).read()
    next(batches)
    for reader in set(multiprocessing.active_children()) - before:
        os.kill(reader.pid, signal.SIGKILL)
    with pytest.raises(AtlasError, match="ATLAS_READERS=1: a reader process was killed"):
        list(itertools.islice(batches, 100))


def test_number_of_readers(monkeypatch):
    monkeypatch.delenv("ATLAS_READERS", raising=False)
    assert reader_count(torch.device("cpu")) == 0
    assert reader_count(torch.device("cuda")) == 2
    monkeypatch.setenv("ATLAS_READERS", "3")
    assert reader_count(torch.device("cpu")) == 3
    monkeypatch.setenv("ATLAS_READERS", "-1")
    with pytest.raises(AtlasError, match="ATLAS_READERS=-1: must be a number of processes"):
        reader_count(torch.device("cpu"))
