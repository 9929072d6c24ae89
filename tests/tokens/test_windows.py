import hashlib
import json
import pickle
import resource
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.params.mixture import label_of
from atlas.tokens.shards import ENDS, GIVEN, TokenIndex, TokenSplit
from atlas.tokens.windows import (
    NO_TARGET,
    EvaluationWindows,
    TokenBatch,
    TrainingWindows,
    stack,
)
from tests.small import EOS, PAD, SHA, mix_of, write_tokens

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
        places = windows._visited(epoch * per_epoch, (epoch + 1) * per_epoch)
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
    for place in windows._visited(0, windows.per_epoch):
        window = windows.training_window(place)
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
    for inputs, targets, mask, _ in EvaluationWindows(split, context, batch).all():
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
def test_a_bos_that_is_not_eos_begins_every_window(kind):
    index = TokenIndex(100, EOS, PAD, None, SHA, "packed", {}, bos=50)
    rows = stack([np.array([7, 8, 9]), np.array([EOS, 6])], 2)
    batch = TokenBatch.from_rows(kind(rows), index)
    assert batch.inputs.tolist() == [[50, 8], [50, PAD]]
    assert batch.targets.tolist() == [[8, 9], [6, NO_TARGET]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize(("bos", "start"), [(None, EOS), (50, 50)])
def test_with_a_document_mask_each_document_begins_alike(kind, bos, start):
    index = TokenIndex(100, EOS, PAD, None, SHA, "packed", {}, bos=bos, document_mask=True)
    end = EOS + ENDS
    rows = stack([np.array([end, 8, 9, 4 + ENDS, 5]), np.array([7, end, EOS, 6, end])], 4)
    batch = TokenBatch.from_rows(kind(rows), index)
    first = 7 if bos is None else 50
    assert batch.inputs.tolist() == [[start, 8, 9, start], [first, start, EOS, 6]]
    assert batch.targets.tolist() == [[8, 9, 4, 5], [EOS, EOS, 6, EOS]]
    assert batch.begins.tolist() == [[True, False, False, True], [False, True, False, False]]
    assert [part.begins.tolist() for part in batch.split(1)] == [
        [row] for row in batch.begins.tolist()
    ]


def test_with_a_document_mask_evaluation_windows_hold_one_document(make_split):
    split = make_split([[6, 2]])
    split.index = replace(split.index, document_mask=True)
    found = EvaluationWindows(split, 3, 1)
    windows = [found.window(number).tolist() for number in range(len(found))]
    assert windows == [[EOS, 3, 4, 5], [5, 6, 7, 8], [EOS, 9, 10]]
    training = TrainingWindows(split, 3, 1, 1)
    assert training.training_window(4).tolist() == [7, 8 + ENDS, 9, 10 + ENDS]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_only_the_answer_of_a_question_is_a_target(kind):
    index = TokenIndex(100, EOS, PAD, 9, SHA, "padded", {})
    given = [[0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    ids = [[1, 5, 6, 9, 7, 1], [1, 9, 8, 9, 1]]
    rows = stack([np.array(a) + np.array(b) * GIVEN for a, b in zip(ids, given, strict=True)], 5)
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
    inputs, targets, mask, _ = TokenBatch.from_rows(windows.rows(3), windows.tokens.index)
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
    firsts = [windows._visited(epoch * per_epoch, epoch * per_epoch + 1) for epoch in range(8)]
    assert len({place % 16 for (place,) in firsts}) > 3


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


def test_the_order_without_a_mix_stays_as_it_is(make_split):
    """A change of these hashes changes every trained model."""
    for shards, layout, expected in [
        ([[300, 50], [650]], "packed", "c0fda01c5c7edefb"),
        ([[30, 5, 0], [650, 3]], "padded", "3d65268d19663e24"),
        ([[17]], "packed", "ce761e350f54240d"),
    ]:
        windows = TrainingWindows(make_split(shards, layout), 16, 4, seed=5)
        rows = b"".join(windows.rows(step).tobytes() for step in range(100))
        assert hashlib.sha256(rows).hexdigest()[:16] == expected


T = 16  # context length of the mixes
MIX = (
    {"name": "stories"},
    {"name": "novels", "weight": 2},
    {"name": "modular", "weight": 0.5},
    {"name": "babylm", "weight": 0.3},
)
MIXED_LENGTHS = ([40, 60, 33], [50, 7, 20], [16 * 9], [3, 200, 150])  # of documents


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Training windows of a mix, in two shards; a token shows its position."""

    def make(mix=MIX, lengths=MIXED_LENGTHS, layout="packed", seed=0):
        ids = iter(range(FIRST, 70_000))
        documents = [list(islice(ids, each)) for corpus in lengths for each in corpus]
        entries = mix_of(*mix)
        corpora = {label_of(each): len(n) for each, n in zip(entries, lengths, strict=True)}
        half = len(documents) // 2
        folder = tmp_path_factory.mktemp("mix")
        shards = {"train": [documents[:half], documents[half:]]}
        write_tokens(folder, shards, 70_000, layout, corpora=corpora)
        return TrainingWindows(TokenSplit(folder, "train"), T, 4, seed, entries)

    return make


def visited(windows, lengths, start, stop):
    """The places of some visits, by corpus; fails if a window holds text of two corpora."""
    borders = np.cumsum(list(map(sum, lengths)))
    places = [[] for _ in lengths]
    for place in windows._visited(start, stop):
        window = windows.training_window(place)
        text = window if windows.packed else window[1:]
        (corpus,) = set(np.searchsorted(borders, text - FIRST, side="right").tolist())
        places[corpus].append(place)
    return places


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_weights_are_visits_per_epoch(mixed, layout):
    """Weights of 1, 2, 0.5 and 0.3, over twenty epochs."""
    windows = mixed(layout=layout)
    sizes = {"packed": [7, 3, 8, 21], "padded": [10, 7, 9, 24]}[layout]
    assert [source.windows for source in windows.sources.values()] == sizes
    assert float(windows.per_epoch) == pytest.approx(np.dot(sizes, [1, 2, 0.5, 0.3]))
    start, in_all = 0, [[] for _ in sizes]
    for epoch in range(20):
        ideal = [
            Fraction(str(weight)) * n for weight, n in zip([1, 2, 0.5, 0.3], sizes, strict=True)
        ]
        counts = [(epoch + 1) * each // 1 - epoch * each // 1 for each in ideal]
        found = visited(windows, MIXED_LENGTHS, start, start + sum(counts))
        assert list(map(len, found)) == counts
        for corpus, places in enumerate(found):
            in_all[corpus] += places
        start += sum(counts)
    assert list(map(len, in_all)) == [
        20 * n * weight // 10 for n, weight in zip(sizes, [10, 20, 5, 3], strict=True)
    ]
    assert start == windows._visits_before(20)
    for source, places in zip(windows.sources.values(), in_all, strict=True):
        for first in range(0, len(places) - source.windows + 1, source.windows):
            numbers = [
                (place - source.first) // source.stride
                for place in places[first:][: source.windows]
            ]
            assert sorted(numbers) == list(range(source.windows))  # none twice before all once


def test_an_epoch_of_a_whole_weight_visits_each_window_as_often(mixed):
    windows = mixed(({"name": "stories", "weight": 2}, "novels"), MIXED_LENGTHS[:2], "padded")
    stories, novels = visited(windows, MIXED_LENGTHS[:2], 0, int(windows.per_epoch))
    assert sorted(stories) == sorted([*range(10), *range(10)])
    assert sorted(novels) == list(range(10, 17))


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_shares_are_fractions_of_the_tokens(mixed, layout):
    shares = [0.5, 0.25, 0.15, 0.1]
    mix = [each | {"weight": None, "share": share} for each, share in zip(MIX, shares, strict=True)]
    windows = mixed(mix, layout=layout)
    epochs = 200
    seen = windows.seen(int(epochs * windows.per_epoch) // 4)
    total = sum(seen.values())
    for name, share in zip(("stories", "novels", "modular", "babylm"), shares, strict=True):
        assert seen[name] == pytest.approx(share * total, rel=0.01)
    if layout == "packed":  # an epoch is as long as the text, and windows have the same length
        assert windows.per_epoch == 7 + 3 + 8 + 21
        counts = [windows.sources[each["name"]].visits_before(epochs) for each in MIX]
        assert counts == [int(epochs * 39 * percent) // 100 for percent in (50, 25, 15, 10)]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 90), min_size=1, max_size=3), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 3, 0.5, 0.1, 0.07, 1.7]), min_size=3, max_size=3),
    st.sampled_from(["packed", "padded"]),
    st.integers(0, 40),
)
def test_the_order_of_a_mix_depends_on_seed_and_step_alone(mixed, lengths, weights, layout, step):
    lengths = [[*each, T + 1] for each in lengths]
    weights = [1, *weights]  # at least one window per epoch
    mix = [each | {"weight": weight} for each, weight in zip(MIX, weights, strict=False)]
    windows = mixed(mix[: len(lengths)], lengths, layout)
    rows = windows.rows(step)
    again = pickle.loads(pickle.dumps(replace(windows)))
    assert again.rows(step).tolist() == rows.tolist()
    parts = [windows.rows(step, slice(first, first + 2)) for first in (0, 2)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    # The visits of each corpus and their tokens are those that were promised.
    found = visited(windows, lengths, 0, 4 * step)
    epoch = windows._epoch(4 * step)
    for source, places in zip(windows.sources.values(), found, strict=True):
        assert source.visits_before(epoch) <= len(places) <= source.visits_before(epoch + 1)
        assert source.visits(0, len(places)).tolist() == places
    tokens = [sum(len(windows.training_window(place)) - 1 for place in each) for each in found]
    assert list(windows.seen(step).values()) == tokens


def test_a_mix_of_one_corpus_has_its_windows_once_per_epoch(mixed):
    windows = mixed(["stories"], [[100, 200]])
    assert windows.per_epoch == 17
    assert sorted(place // T for place in visited(windows, [[300]], 0, 17)[0]) == list(range(17))


def test_a_corpus_shorter_than_a_window_is_named(mixed):
    with pytest.raises(AtlasError, match=r"longer than the corpus novels of the mix \(16 tokens\)"):
        mixed(["stories", "novels"], [[100], [16]])
    with pytest.raises(AtlasError, match="less than one window: raise the weights"):
        mixed([{"name": "stories", "weight": 0.01}], [[100]])


def test_tokens_of_another_mix_are_refused(mixed):
    windows = mixed(["stories", "novels"], [[100], [160]])
    with pytest.raises(AtlasError, match="does not list stories"):
        replace(windows, mix=mix_of("novels"))
    with pytest.raises(AtlasError, match="modular has no text to train on"):
        replace(windows, mix=mix_of("stories", "novels", "modular"))
