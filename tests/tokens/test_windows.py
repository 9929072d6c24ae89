import json
import pickle
import resource
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows, TokenBatch, TrainingWindows, stack
from tests.small import EOS, PAD, SHA, write_tokens

FIRST = 3  # lower ids are special


@pytest.fixture(scope="session")
def make_split(tmp_path_factory):
    """A split of the tokens 3, 4, 5, ..., so that a token shows its position."""

    def make(shards, windows="packed"):
        """``shards`` gives the lengths of the documents of each shard."""
        token = FIRST
        written = []
        for lengths in shards:
            documents = []
            for length in lengths:
                documents.append(list(range(token, token + length)))
                token += length
            written.append(documents)
        folder = tmp_path_factory.mktemp("tokens")
        write_tokens(folder, {"train": written}, 70_000, windows)
        return TokenSplit(folder, "train")

    return make


LENGTHS = st.lists(st.lists(st.integers(0, 15), max_size=4), min_size=1, max_size=4)


def of(tokens):
    """One shard with one document of ``tokens`` tokens."""
    return [[tokens]]


@given(st.data())
def test_reading_across_shards(make_split, data):
    shards = data.draw(LENGTHS)
    split = make_split(shards)
    tokens = sum(map(sum, shards))
    start = data.draw(st.integers(0, tokens))
    stop = data.draw(st.integers(start, tokens))
    assert len(split) == tokens
    assert split.read(start, stop).tolist() == list(range(start + FIRST, stop + FIRST))
    lengths = [length for shard in shards for length in shard]
    assert split.document_ends.tolist() == np.cumsum(lengths).tolist()


def test_a_missing_split_is_named(make_split):
    folder = make_split([[5]])._folder
    with pytest.raises(AtlasError, match=r"index\.json: no split val"):
        TokenSplit(folder, "val")


def test_more_shards_than_a_process_may_open_at_first(make_split):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows no more open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert len(make_split([[2]] * 400)) == 800
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_another_process_maps_the_files_itself(make_split):
    split = make_split([[5], [6]])
    packed = pickle.dumps(split)
    assert len(packed) < 500
    assert pickle.loads(packed).read(0, 11).tolist() == split.read(0, 11).tolist()


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 200), st.integers(0, 3))
def test_an_epoch_visits_each_packed_window_once(make_split, context, batch, extra, seed):
    split = make_split(of(context + 1 + extra))
    windows = TrainingWindows(split, context, batch, seed)
    per_epoch = windows.per_epoch
    for epoch in range(2):
        places = [windows._place(epoch * per_epoch + visit) for visit in range(per_epoch)]
        numbers, offsets = zip(*(divmod(place, context) for place in places), strict=True)
        assert sorted(numbers) == list(range(per_epoch))
        assert len(set(offsets)) == 1
        assert 0 <= offsets[0] < context or per_epoch == 1
        assert offsets[0] + per_epoch * context + 1 <= len(split)
        assert len(split) - per_epoch * context <= 2 * context


@given(LENGTHS, st.integers(2, 6), st.integers(1, 4))
def test_padded_windows_hold_one_document_each(make_split, shards, context, batch):
    split = make_split(shards, "padded")
    if not len(split):
        return
    document_of = [n for n, length in enumerate(chain.from_iterable(shards)) for _ in range(length)]
    windows = TrainingWindows(split, context, batch, seed=0)
    seen = []
    for visit in range(windows.per_epoch):
        window = windows.training_window(windows._place(visit))
        assert len(window) <= context + 1
        targets = window[1:] - FIRST
        assert len({document_of[target] for target in targets}) == 1
        begins = targets[0] == 0 or document_of[targets[0] - 1] != document_of[targets[0]]
        assert window[0] == (EOS if begins else targets[0] - 1 + FIRST)
        seen += targets.tolist()
    assert sorted(seen) == list(range(len(split)))


@given(LENGTHS, st.integers(2, 9), st.integers(1, 4), st.sampled_from(["packed", "padded"]))
def test_evaluation_predicts_each_token_once(make_split, shards, context, batch, layout):
    split = make_split(shards, layout)
    if not len(split):
        with pytest.raises(AtlasError, match=r"the train split has no tokens: .*clean\.train"):
            EvaluationWindows(split, context, batch)
        return
    predicted = []
    for inputs, targets, mask in EvaluationWindows(split, context, batch).all():
        assert inputs.shape == targets.shape == mask.shape
        assert inputs.shape[0] <= batch
        assert inputs.shape[1] == context
        assert ((targets != NO_TARGET) == mask).all()
        assert (inputs[~mask] == PAD).all()
        assert (np.diff(mask.astype(int), axis=1) <= 0).all()  # padded on the right
        at_start = targets[mask] == FIRST
        if layout == "padded":
            at_start = np.isin(targets[mask] - FIRST, split.document_ends) | at_start
        assert (inputs[mask] == np.where(at_start, EOS, targets[mask] - 1)).all()
        predicted += targets[mask].tolist()
    assert predicted == list(range(FIRST, len(split) + FIRST))


def test_windows_are_as_drawn(make_split):
    """The module's drawing: documents of five and of two tokens, each with its end."""
    expected = {
        "packed": [[EOS, 3, 4, 5], [5, 6, 7, 8], [8, 9, 10]],
        "padded": [[EOS, 3, 4, 5], [5, 6, 7, 8], [EOS, 9, 10]],
    }
    for layout, windows in expected.items():
        split = make_split([[6, 2]], layout)
        found = EvaluationWindows(split, 3, 1)
        assert [found.window(number).tolist() for number in range(len(found))] == windows


def test_a_batch_is_filled_up_on_the_right():
    index = TokenIndex(100, EOS, PAD, None, SHA, "padded", {})
    batch = TokenBatch.from_rows(stack([np.array([7, 8, 9]), np.array([5, 6])], 3), index)
    assert batch.inputs.tolist() == [[7, 8, 2], [5, 2, 2]]
    assert batch.targets.tolist() == [[8, 9, NO_TARGET], [6, NO_TARGET, NO_TARGET]]
    assert batch.mask.tolist() == [[True, True, False], [True, False, False]]
    assert batch.num_targets() == 3


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_only_the_answer_of_a_question_is_a_target(kind):
    index = TokenIndex(100, EOS, PAD, 9, SHA, "padded", {})
    rows = stack([np.array([1, 5, 6, 9, 7, 1]), np.array([1, 9, 8, 9, 1])], 5)
    batch = TokenBatch.from_rows(kind(rows), index)
    skip = NO_TARGET
    assert batch.targets.tolist() == [[skip, skip, skip, 7, 1], [skip, 8, 9, 1, skip]]
    assert batch.inputs.tolist() == [[1, 5, 6, 9, 7], [1, 9, 8, 9, PAD]]
    assert batch.mask.tolist() == [[True] * 5, [True] * 4 + [False]]
    assert batch.num_targets() == 5


def test_a_question_longer_than_the_context_is_refused(tmp_path):
    documents = [[5, 9, 6, 1], [5, 5, 5, 9, 7, 1]]
    tokens = write_tokens(tmp_path, {"train": [documents]}, windows="padded", separator=9)
    split = TokenSplit(tokens, "train")
    assert len(TrainingWindows(split, 6, 1, 0)) == 2
    with pytest.raises(AtlasError, match="longest prompt of train has 6 tokens"):
        TrainingWindows(split, 5, 1, 0)
    with pytest.raises(AtlasError, match="longest prompt of train has 6 tokens"):
        list(EvaluationWindows(split, 5, 1).all())


def test_targets_are_the_next_tokens(make_split):
    windows = TrainingWindows(make_split(of(1000)), context_length=16, batch_size=4, seed=0)
    inputs, targets, mask = TokenBatch.from_rows(windows.rows(3), windows.tokens.index)
    assert inputs.shape == targets.shape == (4, 16)
    assert (targets == inputs + 1).all()
    assert mask.all()


def test_a_batch_depends_only_on_seed_and_step(make_split):
    split = make_split(of(1000))
    windows = TrainingWindows(split, 16, 4, seed=1)
    later = [windows.rows(step).tolist() for step in (40, 7, 40)]
    assert later[0] == later[2] != later[1]
    assert TrainingWindows(split, 16, 4, seed=1).rows(40).tolist() == later[0]
    assert TrainingWindows(split, 16, 4, seed=2).rows(40).tolist() != later[0]


def test_epochs_begin_at_different_places(make_split):
    windows = TrainingWindows(make_split(of(1000)), 16, 4, seed=1)
    per_epoch = windows.per_epoch
    assert len({windows._place(epoch * per_epoch) % 16 for epoch in range(8)}) > 3


@pytest.mark.parametrize(("layout", "tokens"), [("packed", 16), ("packed", 0), ("padded", 0)])
def test_a_text_shorter_than_a_window_is_refused(make_split, layout, tokens):
    with pytest.raises(
        AtlasError, match=rf"model.context_length: a window of 16 .* \({tokens} tokens\)"
    ):
        TrainingWindows(make_split(of(tokens), layout), 16, 4, seed=0)


def test_a_spread_is_even_and_the_same(make_split):
    windows = EvaluationWindows(make_split(of(100)), 10, 3)
    chosen = [int(row[0]) for batch in windows.spread(4) for row in batch.targets]
    assert chosen == [3, 33, 63, 93]
    assert len([row for batch in windows.spread(1000) for row in batch.targets]) == 10


@pytest.mark.parametrize(
    "change",
    [None, "{", "[]", {"windows": "foo"}, {"eos": None}, {"vocab_size": "x"}, {"splits": {"a": 1}}],
)
def test_a_damaged_index_is_refused(tmp_path, change):
    if isinstance(change, dict):
        write_tokens(tmp_path, {"train": [[[3, 4]]]})
        values = json.loads((tmp_path / "index.json").read_text())
        change = json.dumps(values | change)
    if change is not None:
        (tmp_path / "index.json").write_text(change)
    with pytest.raises(AtlasError, match=r"index\.json: not an index of tokens"):
        TokenIndex.read(tmp_path)
