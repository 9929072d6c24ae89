"""What is known to give llama.cpp other ids than sentencepiece, told before anything is trained.

``export`` compares all ids in llama.cpp and is the judge; but it comes last.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from atlas.cleaning.documents import Document
from atlas.tokens.tokenizer import Tokenizer

LOOKED_AT = 1000  # documents
GRID = 256  # steps of a unigram score in 1: sums of such scores are exact in any order


def doubts(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[str]:
    """Each reason why llama.cpp may not give the same ids, or not run at all."""
    normalizer = tokenizer.normalizer
    merges = tokenizer.kind in ("bpe", "char")
    if merges and not tokenizer.has_bytes:
        yield "it has no pieces for single bytes (byte_fallback), without which llama.cpp aborts"
    if merges and (normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces):
        yield "it normalises text or removes blanks, which llama.cpp's tokenizer for it does not"
    if merges and normalizer.add_dummy_prefix and tokenizer.user_defined:
        yield "it puts a blank in front and has user-defined pieces, which llama.cpp reads apart"
    if tokenizer.kind == "unigram" and tokenizer.has_bytes:
        yield "llama.cpp gives <unk> where a unigram model with byte_fallback gives bytes"
    if tokenizer.kind == "unigram" and not _on_grid(tokenizer):
        yield (
            f"its scores are no multiples of 1/{GRID}, so that rounding decides between equally "
            "likely ways to cut a text"
        )
    if tokenizer.kind == "word" and any(
        "\n" in document.text for document in islice(documents, LOOKED_AT)
    ):
        yield (
            "its documents have several lines, and llama.cpp knows no word of tokenizer.kind=word "
            "after a line end"
        )


def _on_grid(tokenizer: Tokenizer) -> bool:
    scores = map(tokenizer.processor.get_score, range(tokenizer.vocab_size))
    return all((score * GRID).is_integer() for score in scores)
