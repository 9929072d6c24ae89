"""Byte-pair encoding (Gage 1994; Sennrich et al., arXiv:1508.07909) in its simplest form.

The pipeline uses sentencepiece, which does the same, faster. At first each byte of a text is a
token. Training finds the pair of adjacent tokens that occurs most often, makes it a new token, and
repeats:

>>> text = "the hen then the"
>>> split_words(text)
['the', ' hen', ' then', ' the']
>>> encoder = BytePairEncoder.train(text, merges=3)
>>> encoder.pieces[256:]
[b'he', b'the', b' the']

``h e`` occurs four times, ``t h`` three times, every other pair less often. Once ``he`` is merged
the words are ``t he``, ``_ he n``, ``_ t he n`` and ``_ t he`` (``_`` is a blank), so the next
merges are ``t he``, which occurs three times, and ``_ the``, twice. Among equally frequent pairs
the shortest is merged first; among these, the first in the order of its bytes, with blanks last.

Encoding applies the merges in the order they were learned, so that new text is split as the
training text would be:

>>> [encoder.pieces[token] for token in encoder.encode("then she")]
[b'the', b'n', b' ', b's', b'he']
>>> encoder.decode(encoder.encode("then she"))
'then she'
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Pair = tuple[int, int]


def split_words(text: str) -> list[str]:
    """Split a text into words, each with the blank before it; no token spans two words."""
    return re.findall(r" ?[^ ]+| ", text)


def join(tokens: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace each ``pair`` of tokens by ``new``, from left to right."""
    joined: list[int] = []
    position = 0
    while position < len(tokens):
        if tuple(tokens[position : position + 2]) == pair:
            joined.append(new)
            position += 2
        else:
            joined.append(tokens[position])
            position += 1
    return joined


@dataclass
class BytePairEncoder:
    """A vocabulary of bytes and merged pairs."""

    # The bytes of each token; the first 256 are the single bytes.
    pieces: list[bytes] = field(default_factory=lambda: [bytes([byte]) for byte in range(256)])
    merges: dict[Pair, int] = field(default_factory=dict)  # in the order learned

    @classmethod
    def train(cls, text: str, merges: int) -> "BytePairEncoder":
        """Learn ``merges`` merges from a text, or fewer if no pair is left."""
        encoder = cls()
        # Each distinct word is kept once, with its count.
        words = {tuple(word.encode()): count for word, count in Counter(split_words(text)).items()}
        while len(encoder.merges) < merges:
            pairs: Counter[Pair] = Counter()
            for tokens, count in words.items():
                for pair in pairwise(tokens):
                    if encoder._piece_of(pair) not in encoder.pieces:
                        pairs[pair] += count
            if not pairs:
                break
            best = min(pairs, key=lambda pair: encoder._order(pair, pairs[pair]))
            new = encoder.merges[best] = len(encoder.pieces)
            encoder.pieces.append(encoder._piece_of(best))
            words = {tuple(join(tokens, best, new)): count for tokens, count in words.items()}
        return encoder

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        encoded: list[int] = []
        for word in split_words(text):
            tokens = list(word.encode())
            while known := [pair for pair in pairwise(tokens) if pair in self.merges]:
                earliest = min(known, key=self.merges.__getitem__)
                tokens = join(tokens, earliest, self.merges[earliest])
            encoded += tokens
        return encoded

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; broken UTF-8 gives U+FFFD."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")

    def _piece_of(self, pair: Pair) -> bytes:
        return self.pieces[pair[0]] + self.pieces[pair[1]]

    def _order(self, pair: Pair, count: int) -> tuple[int, int, bytes]:
        """Sort by frequency, then the shortest first, then by bytes with blanks last."""
        piece = self._piece_of(pair)
        return (-count, len(piece), piece.replace(b" ", b"\xff"))
