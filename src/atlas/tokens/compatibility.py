"""What is known to give llama.cpp other ids than sentencepiece, told before anything is trained.

``export`` compares all ids in llama.cpp and is the judge; but it comes last.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from atlas.cleaning.documents import Document
from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer

LOOKED_AT = 1000  # documents
GRID = 256  # steps of a unigram score in 1; single precision adds such scores exactly up to 65,536


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
    if merges and any(" " in _text(tokenizer, each) for each in tokenizer.user_defined):
        yield "it has user-defined pieces with blanks, which llama.cpp reads otherwise"
    if merges and (control := next(_mergeable(tokenizer), "")):
        yield f"text can be merged to its control piece {control}, which llama.cpp takes for that"
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


def _text(tokenizer: Tokenizer, identity: int) -> str:
    return tokenizer.piece(identity).replace(SPACE_MARK, " ")


def _mergeable(tokenizer: Tokenizer) -> Iterator[str]:
    """Control pieces that two pieces of text make together."""
    identities = range(tokenizer.vocab_size)
    pieces = {tokenizer.piece(each) for each in identities if tokenizer.is_text(each)}
    for control in (tokenizer.piece(i) for i in identities if tokenizer.processor.is_control(i)):
        if any({control[:cut], control[cut:]} <= pieces for cut in range(1, len(control))):
            yield control


def _on_grid(tokenizer: Tokenizer) -> bool:
    scores = map(tokenizer.processor.get_score, range(tokenizer.vocab_size))
    return all((score * GRID).is_integer() for score in scores)
