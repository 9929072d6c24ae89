import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.tokens import encode
from atlas.tokens.encode import encode_corpus
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import ShardWriter
from atlas.tokens.windows import NO_TARGET, EvaluationWindows, TokenSplit, TrainingWindows
from tests.small import small_params, write_documents
from tests.small import text as small_text

SHA = "ab" * 32


@pytest.fixture(scope="session")
def make_split(tmp_path_factory):
    """A split that holds the tokens 2, 3, 4, ..., so that a token tells its place."""

    def make(tokens, shard_tokens=1000):
        folder = tmp_path_factory.mktemp("tokens")
        writer = ShardWriter(folder, "train", 70_000, SHA, shard_tokens)
        writer.write([place + 2 for place in range(tokens)])
        writer.close()
        TokenIndex(70_000, 1, SHA, {"train": SplitIndex(writer.counts, 1, tokens)}).write(folder)
        return TokenSplit(folder, "train")

    return make


@given(st.data())
def test_reading_across_shards(make_split, data):
    tokens = data.draw(st.integers(1, 40))
    split = make_split(tokens, data.draw(st.integers(1, 15)))
    start = data.draw(st.integers(0, tokens))
    stop = data.draw(st.integers(start, tokens))
    assert len(split) == tokens
    assert split.read(start, stop).tolist() == list(range(start + 2, stop + 2))


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 200), st.integers(0, 3))
def test_an_epoch_visits_each_window_once(make_split, context, batch, extra, seed):
    split = make_split(context + 1 + extra)
    windows = TrainingWindows(split, context, batch, seed)
    for epoch in range(2):
        first = epoch * windows.windows_per_epoch
        starts = sorted(windows.starts(range(first, first + windows.windows_per_epoch)))
        assert np.diff(starts).tolist() == [context] * (len(starts) - 1)
        assert 0 <= starts[0] < context or len(starts) == 1
        assert starts[-1] + context + 1 <= len(split)
        unused = len(split) - len(starts) * context
        assert unused <= 2 * context


def test_targets_are_the_next_tokens(make_split):
    windows = TrainingWindows(make_split(1000), context_length=16, batch_size=4, seed=0)
    inputs, targets = windows.batch(3)
    assert inputs.shape == targets.shape == (4, 16)
    assert (targets == inputs + 1).all()


def test_a_batch_depends_on_seed_and_step_alone(make_split):
    split = make_split(1000)
    windows = TrainingWindows(split, 16, 4, seed=1)
    later = [windows.batch(step)[0].tolist() for step in (40, 7, 40)]
    assert later[0] == later[2] != later[1]
    assert TrainingWindows(split, 16, 4, seed=1).batch(40)[0].tolist() == later[0]
    assert TrainingWindows(split, 16, 4, seed=2).batch(40)[0].tolist() != later[0]


def test_epochs_begin_at_different_places(make_split):
    windows = TrainingWindows(make_split(1000), 16, 4, seed=1)
    per_epoch = windows.windows_per_epoch
    offsets = {min(windows.starts(range(e * per_epoch, (e + 1) * per_epoch))) for e in range(8)}
    assert len(offsets) > 3


def test_a_text_shorter_than_a_window_is_refused(make_split):
    with pytest.raises(AtlasError, match=r"model.context_length: a window of 16 .* \(16 tokens\)"):
        TrainingWindows(make_split(16), 16, 4, seed=0)


@given(st.integers(1, 60), st.integers(2, 9), st.integers(1, 4))
def test_evaluation_predicts_each_token_once(make_split, tokens, context, batch):
    windows = EvaluationWindows(make_split(tokens), context, batch)
    predicted, seen = [], []
    for inputs, targets in windows.all():
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= batch
        assert (inputs >= 0).all()
        real = targets != NO_TARGET
        predicted += targets[real].tolist()
        seen += inputs[real].tolist()
    assert predicted == list(range(2, tokens + 2))
    assert seen == [1, *predicted[:-1]]  # the first one follows the end of a text


def test_a_spread_is_even_and_the_same(make_split):
    windows = EvaluationWindows(make_split(100), 10, 3)
    chosen = [int(row[0]) for _, targets in windows.spread(4) for row in targets]
    assert chosen == [2, 32, 62, 92]
    assert len([row for _, targets in windows.spread(1000) for row in targets]) == 10


def test_documents_are_joined_and_counted(tmp_path, tokenizer, documents):
    for split, part in {"train": documents[:80], "val": documents[80:], "test": []}.items():
        write_documents(tmp_path / "clean" / split, part)
    params = small_params(**{"tokenize.shard_tokens": 1000})
    metrics = encode_corpus(tmp_path / "clean", tokenizer, tmp_path / "tokens", params.tokenize)
    split = TokenSplit(tmp_path / "tokens", "val")
    ids = split.read(0, len(split)).tolist()
    assert ids.count(tokenizer.end_of_text) == 20
    assert ids[-1] == tokenizer.end_of_text
    assert tokenizer.decode(ids) == "".join(document.text for document in documents[80:])
    assert split.bytes == metrics["val_bytes"] == sum(len(d.text) for d in documents[80:])
    assert metrics["test_tokens"] == len(TokenSplit(tmp_path / "tokens", "test")) == 0
    assert len(list((tmp_path / "tokens").glob("train-*.bin"))) == -(
        -metrics["train_tokens"] // 1000
    )

    params = small_params(**{"tokenize.separate_documents": False})
    encode_corpus(tmp_path / "clean", tokenizer, tmp_path / "joined", params.tokenize)
    joined = TokenSplit(tmp_path / "joined", "val")
    assert tokenizer.end_of_text not in joined.read(0, len(joined))


def test_a_long_text_encodes_in_pieces_to_the_ids_of_the_whole(tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "PIECE", 40)
    text = "\n".join([small_text(1), "", "  indented", "\n", "no end" * 30, small_text(2)])
    pieces = list(encode._pieces(text))
    assert len(pieces) > 5
    assert "".join(pieces) == text
    ids = [identity for piece in pieces for identity in tokenizer.encode(piece)]
    assert ids == tokenizer.encode(text)
    assert list(encode._pieces("")) == []


@pytest.mark.parametrize("content", [None, "{", "[]", '{"splits": {}}'])
def test_a_damaged_index_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(AtlasError, match=r"index\.json: no index of tokens"):
        TokenIndex.read(tmp_path)
