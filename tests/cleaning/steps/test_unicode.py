import gzip
import re
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.steps import unicode as normalizing
from atlas.cleaning.steps.unicode import fix_mojibake, normalize, surrogates
from tests.small import small_params

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FIRE_HEART = "\u2764\ufe0f\u200d\U0001f525"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"


def clean(**changes):
    return small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean


@pytest.mark.parametrize(
    ("text", "expected", "step", "count"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd", "line_ends", 2),
        ("a\u2028b\x85c\x0cd\x0be\u2029f", "a\nb\nc\nd\ne\nf", "line_ends", 5),
        ("\r\r\n\n\r", "\n\n\n\n", "line_ends", 3),
        ("e\u0301", "\u00e9", "compose", 1),
        ("a\x00b\x07c\x7f\x1bd\x81", "abcd", "control_characters", 5),
        ("a\bb\b", "ab", "control_characters", 2),  # JSON's escape for a word boundary, unescaped
        ("a\ufffeb\ufdd0c\uffff", "abc", "control_characters", 3),
        ("a\U0001fffeb\U0010ffffc\U00010000", "abc\U00010000", "control_characters", 2),
        ("\ufefftext\u200b\u2060", "text", "zero_width", 3),
        ("te\u00adxt", "text", "soft_hyphens", 1),
        ("\u202eabc\u202c\u2066d\u2069\u200e\u200f", "abcd", "bidi_marks", 6),
        ("a\u200cb\u200d", "ab", "zero_width", 2),
        ("a\U000e0041b", "ab", "zero_width", 1),  # a tag, which nobody sees
        ("\x93It\x92s\x94 \x96 5 \x80\x85", "“It’s” – 5 €…", "c1_controls", 6),
        ("wait\x85 no", "wait… no", "c1_controls", 1),
        ("wait\x85", "wait…", "c1_controls", 1),
        ("one\x85two\x85\x85    three\x85", "one\ntwo\n\n    three\n", "line_ends", 4),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b(B", "red x", "ansi_escapes", 24),
        ("N\bNA\bA _\bf_\bo g\b_ B\bB\bB", "NA fo g B", "overstrikes", 14),
        ("a\ud800b", "a\ufffdb", "surrogates", 1),
    ],
)
def test_each_step(text, expected, step, count):
    changes = Counter()
    assert normalize(text, clean(), changes) == expected
    assert changes == {step: count}
    assert getattr(normalizing, step)(text) == (expected, count)


@pytest.mark.parametrize(
    "text",
    [
        "  a\tb  \n\n  c ",
        "Où est l’élève ? Ça — là… \u00a0 \ufffd",
        "می\u200cخواهم",  # Persian: the non-joiner separates two letters of a word
        "क्\u200dष",  # Hindi: virama and joiner request the half letter
        "ന്\u200d ",  # Malayalam: a final letter
        "র\u200d্য",  # Bengali
        "ه\u200d. ش.",  # Persian: an abbreviation, whose letter has its initial form
        "PDF\u200cها",  # Persian: an ending after a foreign word
        FAMILY,
        FIRE_HEART,
        WALES,
    ],
)
def test_meaningful_characters_stay(text):
    changes = Counter()
    assert normalize(text, clean(), changes) == text
    assert not changes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("م\u200c ", "م "),
        ("\u200cم", "م"),
        ("\U0001f468\u200d x", "\U0001f468 x"),
        ("\U0001f468\u200c\U0001f469", "\U0001f468\U0001f469"),
        ("م\u200b\u200cم", "م\u200cم"),
        ("می\u200c\u200cروم", "می\u200cروم"),  # of two the first stays
        ("क्\u200d\u200cष", "क्\u200dष"),
        ("\U0001f468\u200d\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        ("e\u200b\u0301", "é"),  # separated characters compose
        ("a\r\x00\n", "a\n\n"),
        ("क\u0300\u093c\u200cक", "क\u093c\u0300क"),  # sorted, the joiner follows a Latin accent
    ],
)
def test_useless_joiners_and_accent_order(text, expected):
    assert normalize(text, clean(), Counter()) == expected


def test_steps_can_be_switched_off():
    text = "e\u0301\x00\u200b\U0001ffff"
    kept = clean(
        unicode_normalization=None, remove_control_characters=False, remove_zero_width=False
    )
    assert normalize(text, kept, Counter()) == text
    assert normalize(text + "\ud800\r", kept, Counter()) == text + "\ufffd\n"


def test_counts_are_added_up():
    changes = Counter(line_ends=5)
    normalize("a\r\nb", clean(), changes)
    assert changes == {"line_ends": 6}


ALL_STEPS = clean()
ODD = st.sampled_from(
    "\r\n\v\x85\u2028\x00\x1b\ufffe\ud800\udc00\U0001ffff\u00ad\u200b\u200c\u200d\u2060\ufeff\u202e"
    "ae\u0301\u0327مخक\u094d\u093c\u2764\ufe0f\U0001f525\u2329\u1100\u1161ﬁ"
    "\x91\x81\b_[0m\u061c\U000e0041\U000e007f \n"
)
REMOVALS = ("ansi_escapes", "overstrikes", "control_characters", "soft_hyphens", "bidi_marks")


@given(st.one_of(st.text(st.characters(), max_size=200), st.text(ODD, max_size=30)))
def test_normalize_is_idempotent(text):
    once = normalize(text, ALL_STEPS, Counter())
    changes = Counter()
    assert normalize(once, ALL_STEPS, changes) == once
    assert not changes
    once.encode()


@given(st.one_of(st.text(st.characters(), max_size=200), st.text(ODD, max_size=30)))
def test_every_removed_character_is_counted(text):
    changes = Counter()
    text = text.replace("\r\n", "\n")
    cleaned = normalize(text, clean(unicode_normalization=None), changes)
    assert len(text) - len(cleaned) == sum(changes[name] for name in (*REMOVALS, "zero_width"))


def test_c1_controls_stay_a_matter_of_decoding():
    text = "It\x92s\x85 fine"
    assert normalize(text, clean(fix_mojibake=False), Counter()) == "Its\n fine"


def test_composing_keeps_the_class_of_characters():
    # Otherwise a joiner could stay the first time and be removed the second.
    classes = (normalizing.JOINING_SCRIPTS, normalizing.CURSIVE, normalizing.EMOJI)
    for letters in (*classes, normalizing.VIRAMA):
        within = re.compile(f"[{letters}]").match
        for character in map(chr, range(sys.maxunicode + 1)):
            composed = unicodedata.normalize("NFC", character)
            if composed != character:
                assert bool(within(character)) == bool(within(composed[-1])), hex(ord(character))
                assert bool(within(character)) == bool(within(composed[0])), hex(ord(character))


@given(st.text(st.characters()))
def test_surrogates_make_any_text_encodable(text):
    assert surrogates(text)[0].encode().decode() == surrogates(text)[0]


CLEAN = [
    "He said “no” and it’s fine… — really – ‘yes’.",
    "« Où est l’élève ? » — demanda-t-il, près du château… naïveté, cœur, ÉCOLE.",
    "„Größe und Übermut“, sagte er – „das wäre schön“. Ärger, Öl, Straße.",
    "¿Dónde está el niño? ¡Mañana será otro día!",
    "Ο Ήλιος έλαμπε πάνω από τη θάλασσα. «Πού πας;» ρώτησε.",
    "«Её дом», — сказал он… Всё смешалось в доме.",
    "Zażółć gęślą jaźń – „łódź” i żółw.",
    "红楼梦是一部小说。他说：“你好！”",
    "AMANHÃ É OUTRO DIA. Â",
]


def misread(text: str, encoding: str) -> str:
    """Decode UTF-8 in another encoding; undefined bytes become control characters."""
    return "".join(
        bytes([byte]).decode(encoding, errors="ignore") or chr(byte) for byte in text.encode()
    )


@pytest.mark.parametrize("text", CLEAN)
def test_correct_text_stays(text):
    assert fix_mojibake(text) == (text, 0)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman", "cp437"])
@pytest.mark.parametrize("text", CLEAN[:4])
def test_misread_text_is_repaired(text, encoding):
    assert fix_mojibake(misread(text, encoding)) == (text, 1)


def test_misread_cyrillic_is_repaired():
    assert fix_mojibake(misread("Привет, мир – «да».", "cp1251")) == ("Привет, мир – «да».", 1)


def test_other_lines_stay():
    bad, good = misread("It’s naïve.", "cp1252"), "l’élève"
    assert fix_mojibake(f"{good}\n{bad}\n\nplain\n{bad}") == (
        f"{good}\nIt’s naïve.\n\nplain\nIt’s naïve.",
        2,
    )


def test_text_misread_twice_is_repaired():
    assert fix_mojibake(misread(misread("It’s", "cp1252"), "cp1252")) == ("It’s", 1)


@pytest.mark.parametrize("after", ["", " ", ".", ", she said", "\n"])
def test_a_closing_quote_without_its_last_byte_is_repaired(after):
    assert fix_mojibake(f"“Hiâ€{after}")[0] == f"“Hi”{after}"


def test_a_no_break_space_stored_as_space_is_repaired():
    assert fix_mojibake("voilÃ le travail") == ("voilà le travail", 1)


def test_control_characters_are_not_mojibake():
    text = "line\x85end\x85\x93\x94"
    assert fix_mojibake(text) == (text, 0)


PIECES = st.sampled_from(
    ["Ã©", "â€™", "â€", "â€œ", "Â ", "Ã", "é", "’", "\x85", "a", " ", "\n", "–"]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=20).map("".join)))
def test_fix_mojibake_is_idempotent(text):
    once, _ = fix_mojibake(text)
    assert fix_mojibake(once) == (once, 0)


def test_real_mojibake(corpora):
    text = (corpora / "dirty/mojibake_real.txt").read_text(encoding="utf-8")
    repaired, lines = fix_mojibake(text)
    assert text.count("â€") == 449
    assert "â€" not in repaired
    assert sum(map(repaired.count, "“”’–—")) == 449
    assert lines == sum("â€" in line for line in text.split("\n"))


def test_real_books_stay(corpora):
    books = [
        (corpora / "gutenberg/11-0.txt").read_text(encoding="utf-8-sig"),
        (corpora / "gutenberg/44157-8.txt").read_text(encoding="latin-1"),
        *(
            gzip.decompress(path.read_bytes()).decode()
            for path in sorted((corpora / "novels").iterdir())[:20]
        ),
    ]
    for book in books:
        assert fix_mojibake(book) == (book, 0)
