import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.steps.unicode import fix_mojibake

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
    """UTF-8 read in another encoding; an undefined byte as the control character of its number."""
    return "".join(
        bytes([byte]).decode(encoding, errors="ignore") or chr(byte) for byte in text.encode()
    )


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_stays(text):
    assert fix_mojibake(text) == (text, 0)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman", "cp437"])
@pytest.mark.parametrize("text", CLEAN[:4])
def test_text_that_was_misread_comes_back(text, encoding):
    assert fix_mojibake(misread(text, encoding)) == (text, 1)


def test_cyrillic_that_was_misread_comes_back():
    assert fix_mojibake(misread("Привет, мир – «да».", "cp1251")) == ("Привет, мир – «да».", 1)


def test_other_lines_stay():
    bad, good = misread("It’s naïve.", "cp1252"), "l’élève"
    assert fix_mojibake(f"{good}\n{bad}\n\nplain\n{bad}") == (
        f"{good}\nIt’s naïve.\n\nplain\nIt’s naïve.",
        2,
    )


def test_read_wrongly_twice_is_repaired_twice():
    assert fix_mojibake(misread(misread("It’s", "cp1252"), "cp1252")) == ("It’s", 1)


@pytest.mark.parametrize("after", ["", " ", ".", ", she said", "\n"])
def test_a_closing_quote_that_lost_its_last_byte_is_one(after):
    assert fix_mojibake(f"“Hiâ€{after}")[0] == f"“Hi”{after}"


def test_a_no_break_space_made_blank_is_found():
    assert fix_mojibake("voilÃ le travail") == ("voilà le travail", 1)


def test_control_characters_are_no_mojibake():
    text = "line\x85end\x85\x93\x94"
    assert fix_mojibake(text) == (text, 0)


PIECES = st.sampled_from(
    ["Ã©", "â€™", "â€", "â€œ", "Â ", "Ã", "é", "’", "\x85", "a", " ", "\n", "–"]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=20).map("".join)))
def test_repairing_twice_is_repairing_once(text):
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
