"""Measure encoding: Atlas, sentencepiece's batch call, Hugging Face tokenizers.

    pip install -e '.[bench]'
    python -m bench.tokenize ../shared/corpora/novels --megabytes 55 1000
    python -m bench.tokenize ../shared/corpora/novels --byte-level models/tokenizer/tokenizer.json

The time of Atlas is that of the whole stage except Python's start: reading documents, encoding,
writing shards, starting workers. The others get their texts in memory as lines, their fastest
case. Every run is a new process; the contestants alternate in rounds, and medians are printed. On
the smallest corpus, every id of Atlas is compared with sentencepiece's.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from itertools import chain, islice
from pathlib import Path

import numpy as np

from bench.shared import copies, measure

SHARD = 1 << 22  # bytes per shard, as clean writes for a small corpus
ATLAS_ONE, ATLAS_TWO = "atlas, 1 worker", "atlas, 2 workers"
SENTENCEPIECE, HUGGING_FACE = "sentencepiece, 1 thread", "tokenizers, 1 thread"


def main() -> None:
    """Create texts and tokenizers, time every contestant, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path, help="a folder of .txt and .txt.gz files")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[55])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 32768])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--new-words", type=float, default=0, help="fraction of words replaced by random letters"
    )
    parser.add_argument("--byte-level", type=Path, help="compare this tokenizer.json only")
    options = parser.parse_args()
    if options.byte_level:
        time_byte_level(options.texts, options.byte_level, options.rounds)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for megabytes in sorted(options.megabytes):
            size = megabytes * 10**6
            write_documents(options.texts, folder / str(megabytes), size, options.new_words)
        smallest = folder / str(min(options.megabytes))
        for vocab_size in options.vocabularies:
            tokenizer = folder / f"tokenizer-{vocab_size}"
            measure("bench.tokenize:train", smallest, tokenizer, vocab_size, environment={})
            compare_ids(smallest, tokenizer)
            for megabytes in sorted(options.megabytes):
                corpus = folder / str(megabytes)
                peers = corpus == smallest  # they need minutes for more
                time_all(corpus, tokenizer, vocab_size, options.rounds, peers)


def write_documents(texts: Path, folder: Path, size: int, new_words: float) -> None:
    """Write clean shards with ``size`` bytes of text and a fraction of unique words."""
    from atlas.cleaning.documents import Document

    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
    written, shard, lines = 0, 0, b""
    generator = random.Random(1)
    for number, text in enumerate(copies(texts)):
        if new_words:
            text = with_new_words(text, new_words, generator)
        lines += Document(str(number), "bench", text).to_line()
        written += len(text.encode())
        if len(lines) >= SHARD or written >= size:
            (folder / f"train/{shard:05d}.jsonl").write_bytes(lines)
            shard, lines = shard + 1, b""
        if written >= size:
            return


def with_new_words(text: str, share: float, generator: random.Random) -> str:
    """Replace a fraction of the words by random letters."""
    words = text.split(" ")
    for place in generator.sample(range(len(words)), round(share * len(words))):
        words[place] = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=9))
    return " ".join(words)


def time_all(corpus: Path, tokenizer: Path, vocab_size: int, rounds: int, peers: bool) -> None:
    """Time the contestants in turn; print medians and ratios."""
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


def time_byte_level(folder: Path, tokenizer: Path, rounds: int) -> None:
    """Time Atlas and tokenizers in turn on the same texts; compare their ids."""
    from tokenizers import Tokenizer as Tokenizers

    from atlas.tokens.tokenizer import Tokenizer

    texts = list(islice(copies(folder), 3))
    size = sum(len(text.encode()) for text in texts) / 1e6
    ours, theirs = Tokenizer.load(tokenizer), Tokenizers.from_file(str(tokenizer))
    theirs.encode_special_tokens = True
    ids = [each.tolist() for each in ours.encode_stream(texts)]
    times = []
    for _ in range(rounds):
        started = time.process_time()
        list(ours.encode_stream(texts))
        middle = time.process_time()
        found = theirs.encode_batch_fast(texts, add_special_tokens=False)
        times.append((middle - started, time.process_time() - middle))
        if [each.ids for each in found] != ids:
            sys.exit("the ids differ")
    ratios = [theirs / ours for ours, theirs in times]
    atlas_time, their_time = map(statistics.median, zip(*times, strict=True))
    print(
        f"{size:.1f} MB, per CPU second: Atlas {size / atlas_time:.1f} MB, tokenizers "
        f"{size / their_time:.1f} MB; {statistics.median(ratios):.1f} times "
        f"({min(ratios):.1f} to {max(ratios):.1f}), all ids equal"
    )


def train(corpus: str, folder: str, vocab_size: str) -> None:
    """Train Atlas's BPE and Hugging Face's on the same texts with as many pieces."""
    import yaml
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from atlas.params.schema import TokenizerParams
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
    """Run the stage: documents on disk to shards on disk."""
    from atlas.params.schema import TokenizeParams
    from atlas.tokens.encode import encode_corpus

    params = TokenizeParams(
        separate_documents=True, windows="packed", document_mask=False, prompt_separator=None
    )
    with tempfile.TemporaryDirectory(dir=Path(corpus).parent) as folder:
        started = time.perf_counter()
        index, _ = encode_corpus(Path(corpus), Path(tokenizer), Path(folder) / "tokens", params)
        return index.splits["train"].bytes, time.perf_counter() - started


def sentencepiece(corpus: str, tokenizer: str) -> tuple[int, float]:
    """Encode all lines in one call."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(Path(tokenizer) / "tokenizer.model"))
    lines = lines_of(corpus)
    started = time.perf_counter()
    processor.encode(lines, num_threads=1)
    return sum(len(line.encode()) for line in lines), time.perf_counter() - started


def hugging_face(corpus: str, tokenizer: str) -> tuple[int, float]:
    """Encode all lines in one call, without offsets and masks."""
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(Path(tokenizer) / "hugging_face.json"))
    lines = lines_of(corpus)
    started = time.perf_counter()
    theirs.encode_batch_fast(lines)
    return sum(len(line.encode()) for line in lines), time.perf_counter() - started


def lines_of(corpus: str) -> list[str]:
    """Return the lines of the documents, with line ends."""
    from atlas.cleaning.documents import read_documents

    texts = [document.text for document in read_documents(Path(corpus) / "train")]
    return [line for text in texts for line in text.splitlines(keepends=True) if line]


def compare_ids(corpus: Path, tokenizer: Path) -> None:
    """Compare every id in the shards with sentencepiece's ids for the same document."""
    from sentencepiece import SentencePieceProcessor

    from atlas.cleaning.documents import read_documents
    from atlas.params.schema import TokenizeParams
    from atlas.tokens.encode import encode_corpus
    from atlas.tokens.shards import TokenSplit

    params = TokenizeParams(
        separate_documents=False, windows="packed", document_mask=False, prompt_separator=None
    )
    processor = SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    (line_end,) = processor.encode("\n")
    with tempfile.TemporaryDirectory(dir=corpus.parent) as folder:
        encode_corpus(corpus, tokenizer, Path(folder) / "tokens", params)
        shards = TokenSplit(Path(folder) / "tokens", "train")
        start = different = 0
        documents = read_documents(corpus / "train")
        for document, end in zip(documents, shards.document_ends, strict=True):
            ours = shards.read(start, int(end))
            lines = processor.encode(document.text.split("\n"), num_threads=2)
            theirs = np.fromiter(chain.from_iterable([*ids, line_end] for ids in lines), np.int64)
            different += not np.array_equal(ours, theirs[:-1])
            start = int(end)
    print(
        f"{start:,} ids of {len(shards.document_ends)} documents compared with sentencepiece's: "
        f"{different} documents differ",
        flush=True,
    )
    if different:
        sys.exit(1)


if __name__ == "__main__":
    main()
