"""How fast texts become ids: Atlas, sentencepiece's own batch call, Hugging Face tokenizers.

    pip install 'atlas[bench]'
    python -m bench.tokenize ../shared/corpora/novels --megabytes 55 1000

Atlas is timed with all that its stage does but for the start of Python: reading documents,
encoding, writing shards, starting workers. The others get their texts in memory, line by line,
which suits them best. Every run is a fresh process; the contestants take turns, round by round,
and medians are printed. The ids of Atlas and of sentencepiece are compared one by one, on the
smallest corpus.
"""

import argparse
import statistics
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np

from bench.shared import copies, measure

SHARD = 1 << 22  # bytes, as clean makes them of a small corpus
ATLAS_ONE, ATLAS_TWO = "atlas, 1 worker", "atlas, 2 workers"
SENTENCEPIECE, HUGGING_FACE = "sentencepiece, 1 thread", "tokenizers, 1 thread"


def main() -> None:
    """Makes the texts and the tokenizers, times every contestant, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="a folder of .txt and .txt.gz files")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[55])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for megabytes in sorted(options.megabytes):
            write_documents(options.texts, folder / str(megabytes), megabytes * 10**6)
        smallest = folder / str(min(options.megabytes))
        for vocab_size in options.vocabularies:
            tokenizer = folder / f"tokenizer-{vocab_size}"
            measure("bench.tokenize:train", smallest, tokenizer, vocab_size, environment={})
            compare_ids(smallest, tokenizer)
            for megabytes in sorted(options.megabytes):
                corpus = folder / str(megabytes)
                peers = corpus == smallest  # they take minutes for more
                time_all(corpus, tokenizer, vocab_size, options.rounds if peers else 1, peers)


def write_documents(texts: Path, folder: Path, size: int) -> None:
    """Clean shards of so many bytes of text."""
    from atlas.cleaning.documents import Document

    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
    written, shard, lines = 0, 0, b""
    for number, text in enumerate(copies(texts)):
        lines += Document(str(number), "bench", text).to_line()
        written += len(text.encode())
        if len(lines) >= SHARD or written >= size:
            (folder / f"train/{shard:05d}.jsonl").write_bytes(lines)
            shard, lines = shard + 1, b""
        if written >= size:
            return


def time_all(corpus: Path, tokenizer: Path, vocab_size: int, rounds: int, peers: bool) -> None:
    """Times the contestants in turn, and prints medians and ratios."""
    contestants = {
        ATLAS_ONE: ("bench.tokenize:atlas", {"ATLAS_PARALLEL": "1"}),
        ATLAS_TWO: ("bench.tokenize:atlas", {"ATLAS_PARALLEL": "2"}),
    }
    if peers:
        contestants[SENTENCEPIECE] = ("bench.tokenize:sentencepiece", {})
        contestants[HUGGING_FACE] = ("bench.tokenize:hugging_face", {"RAYON_NUM_THREADS": "1"})
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (function, environment) in contestants.items():
            (size, seconds), _, largest = measure(
                function, corpus, tokenizer, environment=environment
            )
            runs[name].append((size, seconds, largest))
    against = SENTENCEPIECE if peers else ATLAS_ONE
    for name, found in runs.items():
        size = found[0][0]
        median = statistics.median(seconds for _, seconds, _ in found)
        ratios = [
            theirs / ours for (_, ours, _), (_, theirs, _) in zip(found, runs[against], strict=True)
        ]
        print(
            f"{size / 1e6:7,.0f} MB  vocabulary {vocab_size:6,}  {name:24} {median:7.2f} s "
            f"{size / 1e6 / median:7.1f} MB/s  {statistics.median(ratios):5.2f} times {against} "
            f"({min(ratios):.2f} to {max(ratios):.2f})  "
            f"largest process {max(memory for _, _, memory in found) / 1e6:,.0f} MB",
            flush=True,
        )
    doubled = [
        one / two for (_, one, _), (_, two, _) in zip(runs[ATLAS_ONE], runs[ATLAS_TWO], strict=True)
    ]
    print(
        f"            2 workers against 1: {statistics.median(doubled):.2f} times "
        f"({min(doubled):.2f} to {max(doubled):.2f})",
        flush=True,
    )


def train(corpus: str, folder: str, vocab_size: str) -> None:
    """Trains Atlas's BPE and Hugging Face's, with as many pieces, on the same texts."""
    import yaml
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from atlas.params import TokenizerParams
    from atlas.tokens.train_tokenizer import sample_lines, train_tokenizer

    values = yaml.safe_load(Path("params.yaml").read_text())["tokenizer"]
    params = TokenizerParams(**(values | {"kind": "bpe", "vocab_size": int(vocab_size)}))
    train_tokenizer(sample_lines(Path(corpus) / "train", params), params).save(Path(folder))
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(vocab_size),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(sample_lines(Path(corpus) / "train", params), trainer)
    theirs.save(str(Path(folder) / "hugging_face.json"))


def atlas(corpus: str, tokenizer: str) -> tuple[int, float]:
    """What the stage does: documents on disk to shards on disk."""
    from atlas.params import TokenizeParams
    from atlas.tokens.encode import encode_corpus

    params = TokenizeParams(separate_documents=True, windows="packed")
    with tempfile.TemporaryDirectory(dir=Path(corpus).parent) as folder:
        started = time.perf_counter()
        index, _ = encode_corpus(Path(corpus), Path(tokenizer), Path(folder) / "tokens", params)
        return index.splits["train"].bytes, time.perf_counter() - started


def sentencepiece(corpus: str, tokenizer: str) -> tuple[int, float]:
    """All lines in one call."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(Path(tokenizer) / "tokenizer.model"))
    lines = lines_of(corpus)
    started = time.perf_counter()
    processor.encode(lines, num_threads=1)
    return sum(len(line.encode()) for line in lines), time.perf_counter() - started


def hugging_face(corpus: str, tokenizer: str) -> tuple[int, float]:
    """All lines in one call, without offsets and masks."""
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(Path(tokenizer) / "hugging_face.json"))
    lines = lines_of(corpus)
    started = time.perf_counter()
    theirs.encode_batch_fast(lines)
    return sum(len(line.encode()) for line in lines), time.perf_counter() - started


def lines_of(corpus: str) -> list[str]:
    """The lines of the documents, with their ends."""
    from atlas.cleaning.documents import read_documents

    texts = [document.text for document in read_documents(Path(corpus) / "train")]
    return [line for text in texts for line in text.splitlines(keepends=True) if line]


def compare_ids(corpus: Path, tokenizer: Path) -> None:
    """Compares each id with sentencepiece's of the same document, line by line."""
    from sentencepiece import SentencePieceProcessor

    from atlas.cleaning.documents import read_documents
    from atlas.tokens.tokenizer import Tokenizer

    ours = Tokenizer.load(tokenizer)
    theirs = SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    compared = different = 0
    for document in read_documents(corpus / "train"):
        (found,) = ours.encode_batch([document.text])
        lines = theirs.encode(document.text.split("\n"), num_threads=2)
        (line_end,) = theirs.encode("\n")
        expected = np.fromiter(chain.from_iterable([*ids, line_end] for ids in lines), np.int64)
        compared += len(found)
        different += int((found != expected[:-1]).sum())
    print(f"{compared:,} ids compared with sentencepiece's, {different} differ", flush=True)
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
