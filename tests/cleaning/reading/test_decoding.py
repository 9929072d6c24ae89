import array
import codecs
import contextlib
import random
import unicodedata
import zlib
from encodings.aliases import aliases

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.reading.decoding import (
    SAMPLE,
    Guess,
    NotTextError,
    declared_encoding,
    decode,
    guess_encoding,
    python_name,
)
from tests.cleaning.reading.sentences import SENTENCES, text

FRENCH = "« Où est l’élève ? » — demanda-t-il, près du château… "
GERMAN = "Größe und Übermut, sagte er. Die Mädchen grüßen den König. ÄRGER MIT ÖL!\n"
SPANISH = "¿Dónde está el niño? ¡Mañana será otro día! El corazón de la señora Muñoz.\n"
ENGLISH = "A plain text, and one naïve word in all of it. " + "Plain words follow here. " * 40
BOX = "┌────────────┐\n│ README 1.0 │\n├────────────┤\n│ by the crew │\n└────────────┘\n"
BANNER = "╔═════════╗\n║ WELCOME ║\n╚═════════╝\n ░▒▓█ press any key █▓▒░\n"
QUOTES = "He said “no” and it’s fine… — really – ‘yes’.\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастлива по-своему.\n"
GREEK = "Ο Ήλιος έλαμπε πάνω από τη θάλασσα και τα παιδιά έπαιζαν στην παραλία.\n"
POLISH = "Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni i równi pod względem swej godności.\n"
CHINESE = "红楼梦是一部小说。他说：你好世界，我们今天去公园散步。\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
KOREAN = "안녕하세요. 오늘은 날씨가 아주 좋습니다. 우리는 공원에 갔습니다.\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (FRENCH.encode(), "utf-8"),
        (codecs.BOM_UTF8 + FRENCH.encode(), "utf-8-sig"),
        (FRENCH.encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF16_BE + FRENCH.encode("utf-16-be"), "utf-16"),
        (codecs.BOM_UTF32_LE + FRENCH.encode("utf-32-le"), "utf-32"),
        (codecs.BOM_UTF32_BE + FRENCH.encode("utf-32-be"), "utf-32"),
    ],
)
def test_certain_encodings(data, encoding):
    decoded = decode(data)
    assert (decoded.text, decoded.encoding, decoded.guessed) == (FRENCH, encoding, False)


def test_a_few_control_characters_do_not_make_a_short_text_binary():
    assert decode(b"a\x7fb\x00c\n").text == "a\x7fb\x00c\n"
    assert decode("Hi\n".encode("utf-16-le")).text == "Hi\n"


GUESSES = [
    *((text, "iso-8859-1") for text in (GERMAN, SPANISH, ENGLISH, "café", "Il va à Paris.")),
    ("25\u00a0°C for £5, © 1999", "iso-8859-1"),
    *((text, "cp1252") for text in (FRENCH, QUOTES, "It’s", "“Yes”", "„Größe“, sagte er.")),
    *((text, "cp1252") for text in ("Price: €5", "Wait… what?", "œuvre", "M. Œdipe – no")),
    *((text, "cp437") for text in (GERMAN, SPANISH, ENGLISH, "café", "für dich")),
    *((text, "cp437") for text in (BOX, BANNER, BOX + GERMAN, BANNER + ENGLISH)),
    *((RUSSIAN, name) for name in ("cp1251", "koi8-r", "cp866")),
    *((POLISH, name) for name in ("cp1250", "iso8859-2")),
    (GREEK, "cp1253"),
    ("Μια φορά κι έναν καιρό. Άρχισε να βρέχει.\n", "cp1253"),
    (JAPANESE, "cp932"),
    (JAPANESE * 20, "euc_jp"),
    (CHINESE * 20, "gb18030"),
    (KOREAN, "cp949"),
    *(
        (text, f"utf-{bits}-{order}")
        for text in (FRENCH, GERMAN, ENGLISH, RUSSIAN, GREEK, CHINESE, JAPANESE, KOREAN, "one é\n")
        for bits in (16, 32)
        for order in ("le", "be")
    ),
]


@pytest.mark.parametrize(("text", "encoding"), GUESSES)
@pytest.mark.parametrize("times", [1, 40])
def test_guessed_encodings(text, encoding, times):
    text = "\n".join([text] * times)
    decoded = decode(text.encode(encoding))
    assert (decoded.text, decoded.encoding, decoded.guessed) == (text, encoding, True)


def test_a_late_non_latin_1_character_is_found():
    text = GERMAN * 5000 + "It’s the end."
    assert decode(text.encode("cp1252")).text == text


def test_a_sample_is_never_reported_as_latin_1():
    sample = GERMAN.encode("latin-1")
    assert guess_encoding(sample, whole=True).encoding == "iso-8859-1"
    assert guess_encoding(sample, whole=False).encoding == "cp1252"


@pytest.mark.parametrize(
    ("damaged", "text", "replaced"),
    [
        (FRENCH.encode() * 20 + b"\xff\xc3 end", FRENCH * 20 + "\ufffd\ufffd end", 2),
        (FRENCH.encode() + b"\xe2\x80", FRENCH + "\ufffd", 2),
        (b"plain text " * 50 + b"<\xff> <\xc3>", "plain text " * 50 + "<\ufffd> <\ufffd>", 2),
        (b"plain\ttext\r\n" * 50 + b":\xf4\x90\x80\x80:", None, 4),
        ("\ufffd was here, é ".encode() * 3 + b"\x80", "\ufffd was here, é " * 3 + "\ufffd", 1),
        (codecs.BOM_UTF16_LE + "good".encode("utf-16-le") + b"\x00\xd8", "good\ufffd", 2),
    ],
)
def test_a_few_invalid_bytes_are_replaced(damaged, text, replaced):
    decoded = decode(damaged)
    assert decoded.encoding in ("utf-8", "utf-16")
    assert decoded.replaced == replaced
    assert text is None or decoded.text == text


def noise(kind: str, mean: int, deviation: int) -> bytes:
    generator = random.Random(1)
    return array.array(
        kind, [abs(int(generator.gauss(mean, deviation))) for _ in range(5000)]
    ).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00",
        bytes(range(256)) * 10,
        b"\x7fELF" + bytes(1000),
        bytes(5000),
        random.Random(1).randbytes(10_000),
        zlib.compress(ENGLISH.encode() * 3 + random.Random(1).randbytes(5000)),
        noise("H", 200, 40),
        noise("H", 20_000, 5000),
        noise("I", 500, 100),
        noise("I", 20_000, 5000),
    ],
)
def test_binary_files_are_rejected(data):
    with pytest.raises(NotTextError, match="too many control characters"):
        decode(data)


def test_empty_is_text():
    assert decode(b"").text == ""


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=200))
def test_utf8_round_trip(text):
    decoded = decode(text.encode())
    assert decoded.text == text.removeprefix("\ufeff")
    assert decoded.replaced == 0


@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_or_rejected(data):
    try:
        decoded = decode(data)
    except NotTextError:
        return
    assert decoded.replaced <= len(data)
    assert (decoded.replaced > 0) <= ("\ufffd" in decoded.text)


@given(st.integers(0, 60))
def test_a_sample_can_end_within_a_character(cut):
    sample = FRENCH.encode()[: 1 + cut]
    assert guess_encoding(sample, whole=False) == Guess("utf-8", guessed=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "cp1252", "cp437"])
def test_a_long_file_can_be_decoded_in_pieces(encoding):
    text = (GERMAN + "„Größe“ " if encoding != "cp437" else GERMAN) * 2000
    data = text.encode(encoding)
    guess = guess_encoding(data[:SAMPLE], whole=False)
    decoder = codecs.getincrementaldecoder(guess.encoding)("replace")
    pieces = [decoder.decode(data[start : start + 9999]) for start in range(0, len(data), 9999)]
    assert "".join([*pieces, decoder.decode(b"", final=True)]) == text == decode(data).text


DIRTY = {
    "bom_crlf.txt": ("utf-8-sig", 0),
    "cp1252_no_declaration.txt": ("cp1252", 0),
    "empty.txt": ("utf-8", 0),
    "huge_single_line.txt": ("utf-8", 0),
    "invalid_utf8.txt": ("utf-8", 14),
    "mixed_newlines.txt": ("utf-8", 0),
    "mojibake_real.txt": ("utf-8", 0),
    "no_final_newline.txt": ("utf-8", 0),
    "nul_bytes.txt": ("utf-8", 0),
    "unicode_odd.txt": ("utf-8", 0),
    "utf16le_bom.txt": ("utf-16", 0),
    "whitespace_only.txt": ("utf-8", 0),
}


def test_real_faulty_files(corpora):
    files = sorted((corpora / "dirty").glob("*.txt"))
    found = {path.name: decode(path.read_bytes()) for path in files}
    assert {name: (d.encoding, d.replaced) for name, d in found.items()} == DIRTY
    assert "l’" in found["cp1252_no_declaration.txt"].text


def test_real_books(corpora):
    latin = {"14881-8.txt", "20170-8.txt", "25063-8.txt", "44157-8.txt"}
    for path in sorted((corpora / "gutenberg").iterdir()):
        decoded = decode(path.read_bytes())
        if path.name in latin:
            assert decoded.encoding == "iso-8859-1"
            assert decoded.text == path.read_bytes().decode("latin-1")
        else:
            assert not decoded.guessed
            assert decoded.text == path.read_bytes().decode("utf-8-sig")


DECLARATIONS = [
    ('<?xml version="1.0" encoding="{}"?>\n<text>', "windows-1250", "cp1250", "polish"),
    ('<html><head><meta charset="{}"><title>', "iso-8859-2", "iso8859-2", "czech"),
    (
        '<meta http-equiv="Content-Type" content="text/html; charset={}">\n',
        *("x-sjis", "cp932", "japanese"),
    ),
    ("From: me\nContent-Type: text/plain;\n charset={}\n\n", "koi8-r", "koi8-r", "russian"),
    ("Title: Tales\n\nCharacter set encoding: {}\n\n", "ISO Latin-1", "cp1252", "french"),
    ("Character set encoding: {}\n\n", "Windows Code Page 1252", "cp1252", "german"),
    ("# -*- coding: {} -*-\n", "euc-kr", "cp949", "korean"),
    ("// vim: fileencoding={}\n", "gb2312", "gb18030", "chinese"),
]


@pytest.mark.parametrize(("header", "name", "encoding", "language"), DECLARATIONS)
def test_a_declared_encoding_is_used(header, name, encoding, language):
    original = header.format(name) + text(language, 300, encoding)
    decoded = decode(original.encode(encoding))
    assert decoded.text == original
    assert (decoded.guessed, decoded.declared) == (False, name)
    assert python_name(name) == encoding


@pytest.mark.parametrize(
    ("name", "encoding", "language"),
    [
        ("utf-8", "cp1252", "french"),
        ("ascii", "cp1250", "polish"),
        ("iso-8859-1", "cp1251", "russian"),
        ("iso-8859-1", "cp1254", "turkish"),
        ("iso-8859-1", "cp1255", "hebrew"),
        ("utf-16", "cp932", "japanese"),
        ("windows-1252", "euc_jp", "japanese"),
    ],
)
def test_a_wrong_declaration_is_not_believed(name, encoding, language):
    original = f'<?xml version="1.0" encoding="{name}"?>\n' + text(language, 1000, encoding)
    decoded = decode(original.encode(encoding))
    assert decoded.text == original
    assert (decoded.guessed, decoded.declared) == (True, name)


def test_utf8_wins_over_another_declaration():
    original = '<?xml version="1.0" encoding="iso-8859-1"?>\n' + text("french", 100, "utf-8")
    decoded = decode(original.encode())
    assert (decoded.text, decoded.guessed) == (original, False)


@pytest.mark.parametrize("name", ["base64", "unicode_escape", "klingon", "MIDI, Lilypond"])
def test_other_names_are_no_declarations(name):
    assert declared_encoding(f"Character set encoding: {name}\n".encode()) is None


def test_a_given_encoding_is_used_whatever_the_bytes_are():
    decoded = decode("été".encode(), encoding="cp1252")
    assert (decoded.text, decoded.guessed, decoded.replaced) == ("Ã©tÃ©", False, 0)
    decoded = decode(b"caf\x81 \xe9", encoding="cp1252")
    assert (decoded.text, decoded.replaced) == ("caf\ufffd é", 1)


def test_the_start_of_a_file_decides_for_a_block_with_little_evidence():
    block = "Er aß für drei.\n".encode("cp850")
    expected = Guess("cp850", guessed=True, declared=None)
    assert decode(block, expected=expected).encoding == "cp850"
    assert decode(block, expected=expected).guessed
    russian = text("russian", 1000, "cp1251")
    assert decode(russian.encode("cp1251"), expected=expected).text == russian
    assert decode(FRENCH.encode(), expected=expected).text == FRENCH


@pytest.mark.parametrize(
    ("encoding", "language"),
    [
        *((name, "japanese") for name in ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004")),
        ("iso2022_kr", "korean"),
        ("hz", "chinese"),
    ],
)
@pytest.mark.parametrize("size", [60, 2000])
def test_encodings_with_escape_sequences(encoding, language, size):
    original = text(language, size, encoding)
    decoded = decode(original.encode(encoding))
    assert (decoded.text, decoded.guessed) == (original, True)


@pytest.mark.parametrize(
    ("encoding", "language"),
    [
        *(("cp037", language) for language in ("portuguese", "german", "spanish")),
        *(("cp273", "german"), ("cp1026", "turkish"), ("cp875", "greek")),
    ],
)
@pytest.mark.parametrize("size", [200, 2000])
def test_ebcdic(encoding, language, size):
    original = text(language, size, encoding)
    decoded = decode(original.encode(encoding))
    assert (decoded.text, decoded.guessed) == (original, True)


@pytest.mark.parametrize(
    "plain",
    [
        "N\bNA\bAM\bME\bE   _\bf_\bo_\bo\n",
        "\x1b[31mred\x1b[0m and ~{not Chinese~}\n",
        "a\0b" + " plain" * 30,
    ],
)
def test_control_sequences_are_not_another_encoding(plain):
    assert decode(plain.encode()) == decode(plain.encode(), encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("language", ["thai", "hebrew", "arabic", "chinese", "korean", "greek"])
@pytest.mark.parametrize("size", [64, 3000])
def test_utf16_and_utf32_without_a_byte_order_mark(encoding, language, size):
    original = text(language, size, encoding)
    assert decode(original.encode(encoding)).text == original


@pytest.mark.parametrize(
    ("encoding", "language"), [("cp1252", "french"), ("cp1251", "russian"), ("cp1250", "polish")]
)
@pytest.mark.parametrize("utf8_first", [True, False])
def test_a_mixture_of_utf8_and_another_encoding(encoding, language, utf8_first):
    halves = [text(language, 2000, encoding, seed) + "\n" for seed in (1, 2)]
    encodings = ["utf-8", encoding] if utf8_first else [encoding, "utf-8"]
    data = b"".join(half.encode(name) for half, name in zip(halves, encodings, strict=True))
    decoded = decode(data)
    assert decoded.text == "".join(halves)
    assert (decoded.guessed, decoded.replaced) == (True, 0)


def test_damaged_lines_of_utf8_are_no_mixture():
    lines = text("french", 3000, "utf-8").encode().splitlines(keepends=True)
    lines[2] = lines[2].replace("é".encode(), b"\xc3", 1)
    decoded = decode(b"".join(lines))
    assert (decoded.encoding, decoded.guessed, decoded.replaced) == ("utf-8", False, 1)


def decomposed(vietnamese: str) -> str:
    """Write tones as combining marks, as Windows-1258 does."""
    tones = "\u0300\u0301\u0303\u0309\u0323"
    letters = []
    for letter in vietnamese:
        parts = unicodedata.normalize("NFD", letter)
        base = unicodedata.normalize("NFC", "".join(each for each in parts if each not in tones))
        letters.append(base + "".join(each for each in parts if each in tones))
    return "".join(letters)


def python_encodings() -> list[str]:
    """List Python's encodings of text, except those with a byte order mark and EBCDIC."""
    others = {"ascii", "utf_7", "utf_8", "utf_16", "utf_32", "idna", "punycode"}
    names = []
    for name in sorted({*aliases.values(), "cp720", "cp737", "cp874", "koi8_r", "koi8_u"} - others):
        with contextlib.suppress(LookupError, UnicodeError):
            if "aA1".encode(name).strip(b"\0")[:1] == b"a" or name.startswith("iso2022_kr"):
                names.append(name)
    return names


def generated(language: str, size: int, encoding: str) -> str | None:
    """Return a text in a language, or None if the encoding can't hold it."""
    try:
        if (language, encoding) != ("vietnamese", "cp1258"):
            return text(language, size, encoding)
        original = decomposed(text(language, size, "utf-8"))
        original.encode(encoding)
        return original
    except UnicodeEncodeError:
        return None


def share_right(encodings: list[str], size: int) -> float:
    right = []
    for language in SENTENCES:
        for encoding in encodings:
            original = generated(language, size, encoding)
            if original is not None:
                right.append(decode(original.encode(encoding)).text == original)
    assert len(right) > len(SENTENCES)
    return sum(right) / len(right)


def test_short_texts_of_many_languages():
    usual = ["cp1250", "cp1251", "cp1252", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2"]
    usual += ["cp1253", "iso8859_7", "koi8_r", "cp866", "mac_cyrillic", "cp874", "cp1258"]
    assert share_right([*usual, "big5", "cp932", "euc_jp", "cp949"], 200) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("size", [200, 2000, 20_000])
def test_every_encoding_of_every_language(size):
    share = share_right(python_encodings(), size)
    print(f"{size:,} bytes: {share:.1%} right")
    assert share > 0.98
