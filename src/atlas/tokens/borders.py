"""Where a text may be cut so that its parts encode to the ids of the whole.

A token is never longer than a piece of the vocabulary. Where two neighbouring bytes stand side by
side in no piece, no token can span them: the merges of BPE and the best path of a unigram model
left of that place do not depend on what is right of it. So a table of byte pairs is enough to cut
any text into words that can be encoded apart::

    pieces   th he the ▁the        pairs inside of pieces   t-h h-e ▁-t
    text     then the               cut before   n, ▁       words   the|n|▁the
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BLANK, LINE_END = 0x20, 0x0A
CONTINUATION = slice(0x80, 0xC0)  # bytes of UTF-8 that begin no character
NO_BYTE = 0xFF  # in no UTF-8

Borders = npt.NDArray[np.bool_]  # (65536,), by first byte * 256 + second byte


def whole_words() -> Borders:
    """Cuts before each blank and on both sides of a line end, for a vocabulary of whole words."""
    safe = np.zeros((256, 256), bool)
    safe[:, [BLANK, LINE_END]] = True
    safe[LINE_END] = True
    return safe.reshape(-1)


def nowhere() -> Borders:
    """No cuts, for a model of which nothing can be said."""
    return np.zeros(256 * 256, bool)


def between_pieces(pieces: Sequence[bytes], *, has_bytes: bool) -> Borders:
    """Cuts at all places that no piece of a BPE, unigram or character model spans.

    A model without bytes joins neighbouring characters that it does not know into one unknown
    token, so beside such a character it is cut only where the other one is known.

    Args:
        pieces: all that text can become, in UTF-8 with blanks as blanks.
        has_bytes: whether a character without a piece becomes its bytes.
    """
    safe = np.ones((256, 256), bool)
    codes = np.frombuffer(bytes([NO_BYTE]).join(pieces), np.uint8)
    safe[codes[:-1], codes[1:]] = False  # pairs with NO_BYTE, too, but these are in no text
    safe[:, CONTINUATION] = False
    if not has_bytes:
        known = np.zeros(256, bool)
        known[[piece[0] for piece in pieces if len(piece) == 1]] = True
        safe &= known[:, None] | known[None, :]
    return safe.reshape(-1)
