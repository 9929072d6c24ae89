import hashlib
import json
import re

import pytest

from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.documents import Document
from atlas.corpora.fetch import fetch_corpus
from atlas.errors import AtlasError
from atlas.tokens import tokenizer as tokenizer_module
from atlas.tokens.encode import encode_corpus
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import make_tokenizer, train_tokenizer
from atlas.tokens.windows import TrainingWindows
from tests.small import small_params, text, write_documents


@pytest.fixture
def folders(tmp_path, tokenizer):
    """Clean shards, three of them for train, and a tokenizer."""
    tokenizer.save(tmp_path / "tokenizer")
    number = 0
    for split, shards in {"train": [30, 1, 20], "val": [5], "test": []}.items():
        folder = tmp_path / "clean" / split
        folder.mkdir(parents=True)
        for shard, count in enumerate(shards):
            documents = [Document(f"d{n}", "s", text(n)) for n in range(number, number + count)]
            (folder / f"{shard:05d}.jsonl").write_bytes(b"".join(d.to_line() for d in documents))
            number += count
    return tmp_path


def encode(folders, name="tokens", **changes):
    params = small_params(**{f"tokenize.{key}": value for key, value in changes.items()})
    return encode_corpus(folders / "clean", folders / "tokenizer", folders / name, params.tokenize)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_documents_are_joined_and_counted(folders, tokenizer):
    index, counts = encode(folders)
    train = TokenSplit(folders / "tokens", "train")
    ids = train.read(0, len(train))
    starts = [0, *train.document_ends[:-1]]
    for number, (start, end) in enumerate(zip(starts, train.document_ends, strict=True)):
        document = ids[start:end].tolist()
        assert document == [*tokenizer.encode(text(number)), tokenizer.eos]
    assert number == 50
    assert counts["train"].tolist() == [ids.tolist().count(i) for i in range(tokenizer.vocab_size)]
    assert index == train.index
    assert [index.splits[split].documents for split in ("train", "val", "test")] == [51, 5, 0]
    assert index.splits["train"].bytes == sum(len(text(n)) for n in range(51))
    assert len(index.splits["train"].shards) == 3
    assert len(TokenSplit(folders / "tokens", "test")) == counts["test"].sum() == 0


def test_a_document_mask_is_in_the_index(folders):
    assert not encode(folders)[0].document_mask
    index, _ = encode(folders, "masked", document_mask=True)
    assert index == TokenIndex.read(folders / "masked")
    assert index.document_mask


def test_documents_without_an_end(folders, tokenizer):
    encode(folders, separate_documents=False)
    train = TokenSplit(folders / "tokens", "train")
    assert tokenizer.eos not in train.read(0, len(train))
    assert len(train.document_ends) == 51


def test_the_bytes_do_not_depend_on_the_number_of_workers(folders, monkeypatch):
    encode(folders, "one")
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    encode(folders, "two")
    monkeypatch.setenv("ATLAS_PARALLEL", "1")
    monkeypatch.setattr(tokenizer_module, "BLOCK", 100)
    encode(folders, "in blocks")
    assert digest(folders / "one") == digest(folders / "two") == digest(folders / "in blocks")


@pytest.mark.slow
def test_a_cluster_writes_the_same(folders, monkeypatch):
    distributed = pytest.importorskip("distributed")
    encode(folders, "one")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        monkeypatch.setenv("ATLAS_PARALLEL", f"dask:{cluster.scheduler_address}")
        encode(folders, "cluster")
    assert digest(folders / "one") == digest(folders / "cluster")


def test_another_tokenizer_in_the_same_folder_is_noticed(folders, tokenizer, documents):
    encode(folders, "first")
    for file in (folders / "tokenizer").iterdir():
        file.unlink()
    (folders / "tokenizer").rmdir()
    from tests.tokens.test_train_tokenizer import train

    other = train([text(seed) for seed in range(40)], kind="char")
    other.save(folders / "tokenizer")
    index, _ = encode(folders, "second")
    assert index.tokenizer_sha256 == other.sha256
    assert len(TokenSplit(folders / "second", "train")) > len(
        TokenSplit(folders / "first", "train")
    )


def test_the_index_records_how_windows_are_cut(folders):
    encode(folders, windows="padded")
    assert json.loads((folders / "tokens/index.json").read_text())["windows"] == "padded"
    assert Tokenizer.load(folders / "tokenizer").pad == 2


@pytest.fixture
def questions(tmp_path):
    """Clean shards of small sums, and a tokenizer of their words."""
    lines = [f"{a} + {b} = {a + b}" for a in range(10) for b in range(10)]
    params = small_params(**{"tokenizer.kind": "word", "tokenizer.vocab_size": 64}).tokenizer
    train_tokenizer(iter(lines), params).save(tmp_path / "tokenizer")
    for split in ("train", "val", "test"):
        documents = [Document(str(number), "s", line) for number, line in enumerate(lines)]
        write_documents(tmp_path / "clean" / split, documents)
    return tmp_path


def test_the_end_of_a_question_is_a_piece_of_the_tokenizer(questions):
    index, _ = encode(questions, windows="padded", prompt_separator="=")
    assert Tokenizer.load(questions / "tokenizer").decode([index.separator]) == "="
    assert TokenSplit(questions / "tokens", "val").index.separator == index.separator
    assert encode(questions, "others")[0].separator is None
    with pytest.raises(
        AtlasError, match=r"tokenize\.prompt_separator is '==', but this tokenizer has no"
    ):
        encode(questions, "more", windows="padded", prompt_separator="==")


def test_a_document_without_a_separator_is_refused(questions):
    shard = questions / "clean/val/00000.jsonl"
    lines = shard.read_text().splitlines()
    lines[3] = lines[3].replace("=", "+")
    lines[99] = lines[99].replace("=", "+")
    shard.write_text("\n".join(lines) + "\n")
    with pytest.raises(AtlasError, match=r"2 of 100 documents of \S*clean/val lack the token '='"):
        encode(questions, windows="padded", prompt_separator="=")


@pytest.mark.parametrize("size", [3, 5, 8, 11, 20])
def test_a_question_may_reach_over_blocks(questions, monkeypatch, size):
    monkeypatch.setattr(tokenizer_module, "BLOCK", size)
    index, _ = encode(questions, windows="padded", prompt_separator="=")
    assert index.splits["train"].documents == 100
    shard = questions / "clean/val/00000.jsonl"
    shard.write_text(shard.read_text().replace("5 = ", "5 + "))
    with pytest.raises(AtlasError, match="10 of 100 documents"):
        encode(questions, "again", windows="padded", prompt_separator="=")


def write_mix(folder, *shards):
    """Write clean shards of train, each a list of corpora, one for each document."""
    number = 0
    for shard, corpora in enumerate(shards):
        lines = []
        for corpus in corpora:
            lines.append(Document(f"{corpus}/{number}", "s", text(number), corpus).to_line())
            number += 1
        (folder / f"{shard:05d}.jsonl").write_bytes(b"".join(lines))


def test_the_index_of_a_mix_counts_each_corpus(folders, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "BLOCK", 2000)  # characters: documents span blocks
    write_mix(folders / "clean/train", "aaaa", "aabbb", "bc")
    index, _ = encode(folders)
    corpora = index.splits["train"].corpora
    assert TokenIndex.read(folders / "tokens") == index
    assert {label: size.documents for label, size in corpora.items()} == {"a": 6, "b": 4, "c": 1}
    ids = [len(tokenizer.encode(text(number))) + 1 for number in range(11)]
    sizes = [len(text(number)) for number in range(11)]
    for label, documents in {"a": range(6), "b": range(6, 10), "c": [10]}.items():
        assert corpora[label].tokens == sum(ids[number] for number in documents)
        assert corpora[label].bytes == sum(sizes[number] for number in documents)
    assert not index.splits["val"].corpora


@pytest.mark.parametrize("shards", [["aba"], ["ab", "a"], ["a", "b", "a"]])
def test_corpora_that_alternate_are_refused(folders, shards):
    write_mix(folders / "clean/train", *shards)
    for left in range(len(shards), 3):
        (folders / f"clean/train/{left:05d}.jsonl").unlink()
    with pytest.raises(AtlasError, match="corpora of the mix alternate"):
        encode(folders)


def test_a_mix_of_two_generators_from_fetch_to_windows(tmp_path):
    """Weights of 2 and 0.5 are exact in the windows, which hold the text of one corpus each."""
    mix = [{"name": "stories", "weight": 0.5}, {"name": "arithmetic", "weight": 2}]
    examples = {"corpus.stories.examples": 60, "corpus.arithmetic.examples": 900}
    params = small_params(**{"corpus.name": "mix", "corpus.mix": mix}, **examples)
    fetch_corpus(params.corpus, tmp_path / "raw", None, tmp_path / "unfinished")
    clean_corpus(tmp_path / "raw", tmp_path / "clean", params.clean, tmp_path / "unfinished")
    tokenizer = make_tokenizer(tmp_path / "clean/train", params.tokenizer, params.corpus.mix)
    tokenizer.save(tmp_path / "tokenizer")
    index, _ = encode(tmp_path)
    split = TokenSplit(tmp_path / "tokens", "train")
    windows = TrainingWindows(split, 32, 1, seed=1, mix=params.corpus.mix)

    stories, arithmetic = (
        (index.splits["train"].corpora[each["name"]].tokens - 32) // 32 for each in mix
    )
    texts = [
        tokenizer.decode(windows.rows(step)[0]) for step in range(2 * stories + 8 * arithmetic)
    ]
    assert windows.per_epoch * 4 == len(texts)
    questions = [text for text in texts if re.search("[0-9=]", text)]
    assert len(questions) == 8 * arithmetic
    assert not any(re.search("[.,?!]", text) for text in questions)
