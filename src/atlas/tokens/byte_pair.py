"""Byte-pair encoding (Gage 1994; Sennrich et al., arXiv:1508.07909), written to be read.

The pipeline trains its tokenizers with sentencepiece, which does the same faster. This is all
there is to it. A text is bytes, and each byte is a token. Training looks for the two tokens that
stand side by side most often, makes a new token of them, and does so again and again:

>>> text = "the hen then the"
>>> split_words(text)
['the', ' hen', ' then', ' the']
>>> encoder = BytePairEncoder.train(text, merges=3)
>>> encoder.pieces[256:]
[b'he', b'the', b' the']

``h e`` stands four times in it, ``t h`` three times, all others less often. With ``he`` joined the
words are ``t he``, ``_ he n``, ``_ t he n`` and ``_ t he`` (``_`` for the blank), so next comes
``t he``, three times, and then ``_ the``, twice. Of equally frequent pairs the shortest is joined
first, and of these the first in the order of its bytes, blanks last.

Encoding joins in the order in which the pairs were learned, so that a text never seen is cut as
the training text would be:

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
    """A text in words, each with the blank before it. No token will cross the border of a word."""
    return re.findall(r" ?[^ ]+| ", text)


def join(tokens: Sequence[int], pair: Pair, new: int) -> list[int]:
    """The tokens, with ``new`` in the place of each ``pair``, from left to right."""
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
    """A vocabulary of bytes and of the pairs joined.

    Attributes:
        pieces: the bytes of each token; the first 256 are the single bytes.
        merges: the token that each pair becomes; the lower it is, the earlier it was learned.
    """

    pieces: list[bytes] = field(default_factory=lambda: [bytes([byte]) for byte in range(256)])
    merges: dict[Pair, int] = field(default_factory=dict)

    @classmethod
    def train(cls, text: str, merges: int) -> "BytePairEncoder":
        """Learns at most so many merges from a text; fewer if nothing is left to join."""
        encoder = cls()
        # A word is as good as another of the same letters, so each is kept once with its count.
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
            new = encoder._learn(best)
            words = {tuple(join(tokens, best, new)): count for tokens, count in words.items()}
        return encoder

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [token for word in split_words(text) for token in self._encode_word(word)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; broken UTF-8 gives U+FFFD."""
        return b"".join(self.pieces[token] for token in tokens).decode(errors="replace")

    def _encode_word(self, word: str) -> list[int]:
        tokens = list(word.encode())
        while known := [pair for pair in pairwise(tokens) if pair in self.merges]:
            earliest = min(known, key=self.merges.__getitem__)
            tokens = join(tokens, earliest, self.merges[earliest])
        return tokens

    def _piece_of(self, pair: Pair) -> bytes:
        return self.pieces[pair[0]] + self.pieces[pair[1]]

    def _order(self, pair: Pair, count: int) -> tuple[int, int, bytes]:
        """The most frequent pair comes first, then the shortest, then by its bytes, blanks last."""
        piece = self._piece_of(pair)
        return (-count, len(piece), piece.replace(b" ", b"\xff"))

    def _learn(self, pair: Pair) -> int:
        self.pieces.append(self._piece_of(pair))
        self.merges[pair] = len(self.pieces) - 1
        return self.merges[pair]
