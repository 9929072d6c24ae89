"""Each kind of tokenizer, exported and run in the real llama.cpp: the same ids on any text."""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas.cleaning.documents import Document
from atlas.export.check.agreement import Expected, compare
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.export.gguf.writer import write_gguf
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, save_weights
from atlas.params.runtime_support import architecture_of
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.export.models import InProcess, bundle_of
from tests.small import small_config, small_params, text

KINDS = ("bpe", "char", "unigram")
ODD = (
    *"\n\t\r\x00\x01\x7f\x80\x9f\xa0\u00ad\u200b\u200d\u2028\ufeff\ufffd\uffff\u3000",
    *"\u00e9\u00df\ufb01\u0130\u0416\u03a9\u05d0\u0627\u0939\u0e17\u65e5\ud55c\u2582\U0001f600\U0010ffff",
    "  ", "e\u0301", "<|endoftext|>", "<|pad|>", "<unk>", "<s>", "</s>", "<0x41>", "<0x0A>",
)  # fmt: skip


def nasty(generator: random.Random, words: list[str]) -> str:
    """A text of letters, words, odd characters and names of special tokens."""
    parts = generator.randint(0, 30)
    match generator.randrange(4):
        case 0:
            return "".join(generator.choices([*map(chr, range(32, 127)), *ODD], k=parts))
        case 1:
            return " ".join(generator.choices(words, k=parts))
        case 2:  # any character except surrogates and sentencepiece's space
            codes = (generator.randrange(0x110000) for _ in range(parts))
            return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000 and c != 0x2581)
        case _:
            mixed = [generator.choice((words, ODD)) for _ in range(parts)]
            return "".join(generator.choice(each) for each in mixed)


def mismatches(tokenizer: Tokenizer, texts: list[str], folder: Path) -> int:
    """Count texts with other ids in llama.cpp, from a GGUF file with this tokenizer."""
    config = small_config(
        vocab_size=tokenizer.vocab_size, eos=tokenizer.eos, tokenizer_sha256=tokenizer.sha256
    )
    model = Decoder(config)
    initialize(model, 0)
    (folder / "model").mkdir()
    config.write(folder / "model")
    save_weights(model, folder / "model/model.safetensors")
    architecture = architecture_of(config.model_dump())
    write_gguf(folder / "m.gguf", bundle_of(folder / "model", tokenizer), architecture, "f32")
    ids = [each.tolist() for each in tokenizer.encode_stream(texts)]
    sequence = [3]
    expected = Expected(
        texts=list(zip(texts, ids, strict=True)),
        sequences=[(sequence, 0)],
        end_ids=tokenizer.end_ids,
        composes=False,
        prompts=[(sequence, [])],
        greedy_tokens=0,
        context_length=8,
    )
    return compare(folder / "m.gguf", expected, model, 0, InProcess("llama.cpp")).token_mismatches


def trained(kind: str, texts: list[str], vocab_size: int, coverage: float = 0.9999) -> Tokenizer:
    values = {"kind": kind, "vocab_size": vocab_size, "character_coverage": coverage}
    params = small_params(**{f"tokenizer.{key}": value for key, value in values.items()})
    documents = [Document("d", "s", each) for each in texts]
    return train_tokenizer(lines_of(documents), params.tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_equal_on_nasty_strings(tmp_path, kind):
    texts = [text(seed) for seed in range(200)]
    tokenizer = trained(kind, texts, 100 if kind == "unigram" else 420)
    generator = random.Random(1)
    words = " ".join(texts).split()
    strings = [nasty(generator, words) for _ in range(2000)]
    together = [*NASTY_STRINGS, *texts, *strings]
    assert mismatches(tokenizer, together, tmp_path) == 0


def test_ids_are_equal_for_a_vocabulary_of_words(tmp_path):
    texts = [" ".join(text(seed).split()) for seed in range(50)]
    assert mismatches(trained("word", texts, 1000), texts, tmp_path) == 0


def of_corpora(corpora: Path) -> Iterator[str]:
    """Every text of the corpora: whole files, and each record of JSON lines."""
    for path in sorted(corpora.rglob("*")):
        if not path.is_file() or path.suffix in (".md", ".csv", ".json"):
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        yield data.decode("utf-16" if "utf16" in path.name else "utf-8", errors="replace")
        if path.suffix == ".jsonl":
            yield from records(data)


def records(data: bytes) -> Iterator[str]:
    """Return the texts of JSON lines, skipping broken ones."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("text"), str):
            yield record["text"].encode(errors="replace").decode()


@pytest.mark.very_slow
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_equal_on_all_corpora(tmp_path, corpora, kind):
    texts = list(of_corpora(corpora))
    tokenizer = trained(kind, texts, 4096, coverage=0.9995)
    generator = random.Random(2)
    words = " ".join(texts[:100]).split()[::50]
    strings = [nasty(generator, words) for _ in range(40_000)]
    together = [*NASTY_STRINGS, *strings, *texts]
    assert sum(map(len, texts)) > 70e6
    assert mismatches(tokenizer, together, tmp_path) == 0
    if kind != "unigram":
        back = [tokenizer.decode(ids) for ids in tokenizer.encode_stream(together)]
        assert back == together
