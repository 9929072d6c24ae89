"""Which Western encoding a text is in: Windows-1252, of which Latin-1 is a part, or DOS's 437.

The same byte is a letter in one and a sign in another (82 is é in DOS and a low quote in
Windows), and both have places of their own: letters stand within words, a low quote opens one.
A reading gains a point for each character in its place and loses one for each that is out of it.
"""

import re
from dataclasses import dataclass

CANDIDATES = ("cp1252", "cp437")  # the first where the scores are equal

SMALL = "a-zß-öø-ÿœšž"
CAPITAL = "A-ZÀ-ÖØ-ÞŒŠŽŸ"
SMALL_ACCENTED = "ß-öø-ÿœšž"
CAPITAL_ACCENTED = "À-ÖØ-ÞŒŠŽŸ"
LETTER = SMALL + CAPITAL
ACCENTED = SMALL_ACCENTED + CAPITAL_ACCENTED
BOX = "\u2500-\u259f"  # lines, corners and blocks
STRETCH = "─═░▒▓█▄▀"  # those that fill a line
JOINT = "│-╏║-╬▌▐"  # those that stand apart
BEYOND_ASCII = r"(?=[^\x00-\x7f])"  # a quick look that spares most of the text the rest

PLACES = (
    rf"(?<=[{LETTER}])[{SMALL_ACCENTED}]|[{SMALL_ACCENTED}](?=[{SMALL}])",  # été
    rf"(?<![{LETTER}])[{CAPITAL_ACCENTED}](?=[{LETTER}])",  # École
    rf"(?<=[{CAPITAL}])[{CAPITAL_ACCENTED}](?![{SMALL}])",  # DÉJÀ
    r"(?<!\S)[àáåéèêíóöúÀÁÅÉÈÍÓÖÚ](?!\S)",  # words of one letter
    rf"(?<=[{LETTER}])[’\u00ad](?=[{LETTER}])",  # it’s, and the soft hyphen
    r"(?<=[\w«–.,;:!?%)])\u00a0(?=[\w»–?!;:°%(€])",  # no-break space
    rf"(?<![{LETTER}])[“‘«„‚¿¡](?=[\s\u00a0{LETTER}])",  # opens
    rf"(?<=[{LETTER}\s\u00a0.,!?…])[”»](?![{LETTER}])|(?<=[{LETTER}.,!?])[’‘“](?![{LETTER}])",
    rf"(?<=[{LETTER}])…|(?<=\s)[–—](?=\s)",
    r"[£€§©](?=[\s\u00a0]?\d)|(?<=[\d\u00a0])[£€°–]",
    rf"[{STRETCH}](?=[{BOX}])|(?<=[{BOX}])[{STRETCH}]",
    rf"[{BOX}](?=[{STRETCH}])|(?<=[{STRETCH}])[{BOX}]|(?<!\S)[{BOX}](?!\S)",
)
MISPLACES = (
    rf"[{ACCENTED}]{{3,}}",  # no Western word has so many in a row
    rf"(?<=[{SMALL}])[{CAPITAL_ACCENTED}]",
    rf"(?<![{LETTER}’])[{ACCENTED}](?![{LETTER}’\s.,!?-])",  # alone among signs
    rf"(?<=[{LETTER}])[^\x00-\x7f{LETTER}’–—«»“”…\u00a0\u00ad](?=[{LETTER}])",  # a sign in a word
    rf"(?<=[{LETTER}])[„‚¿¡€£](?![{LETTER}])",  # at its end
    rf"[{JOINT}]{{2,}}|(?<![\s{BOX}])[{BOX}](?![\s{BOX}])",
    rf"(?<![{LETTER}\d.,!?…”])[²³¹ºª¼½¾]",
    r"[\u0391-\u03c9⌠⌡≡±≥≤÷≈ⁿ¯\u00b8¨¬]",  # Greek and formulas of 437, bare accents
    r"[\x80-\x9f\ufffd]",  # no character at all
)
IN_PLACE = re.compile(f"{BEYOND_ASCII}(?:{'|'.join(PLACES)})")
OUT_OF_PLACE = re.compile(f"{BEYOND_ASCII}(?:{'|'.join(MISPLACES)})")


@dataclass(frozen=True)
class Western:
    """The likeliest encoding, and ``fit``: 1 if each character beyond ASCII is in its place.

    At 0 nothing tells, and below more are out of place than in it.
    """

    encoding: str
    fit: float


def likeliest(sample: bytes) -> Western:
    """Weighs a sample that holds bytes beyond ASCII."""
    scores = {name: _score(sample.decode(name, errors="replace")) for name in CANDIDATES}
    encoding = max(CANDIDATES, key=lambda name: scores[name])
    fit = scores[encoding] / (len(sample) - len(sample.decode("ascii", errors="ignore")))
    return Western(encoding, fit)


def _score(text: str) -> int:
    out_of_place = sum(len(match) for match in OUT_OF_PLACE.findall(text))
    return len(IN_PLACE.findall(text)) - out_of_place
