"""Inputs of users that once went wrong, each with the right answer."""

from collections import Counter

import pytest

from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.documents import SPLITS, read_documents
from atlas.corpora.fetch import fetch_corpus
from atlas.errors import AtlasError
from tests.code_walk import ROOT
from tests.small import small_params

CASES = ROOT.parent / "shared/cases/text"  # present on some machines


@pytest.fixture
def clean_case(tmp_path, caplog):
    """Fetch and clean the folder of a case; return documents by id, metrics and messages."""
    if not CASES.is_dir():
        pytest.skip("no ../shared/cases next to this checkout")
    caplog.set_level("INFO")

    def run(folder: str, **changes):
        # Few documents are enough here, also equal ones.
        defaults = {"duplicates": None, "split_by": "position"}
        values = {f"clean.{key}": value for key, value in (defaults | changes).items()}
        params = small_params(**{"corpus.files.path": str(CASES / folder)} | values)
        fetch_corpus(params.corpus, tmp_path / "raw", None, tmp_path / "unfinished")
        metrics, _ = clean_corpus(
            tmp_path / "raw", tmp_path / "clean", params.clean, tmp_path / "unfinished"
        )
        parts: dict[str, list[str]] = {}
        for split in SPLITS:
            for document in read_documents(tmp_path / "clean" / split):
                parts.setdefault(document.id.rpartition("#")[0], []).append(document.text)
        documents = {name: "".join(texts) for name, texts in parts.items()}
        return documents, metrics, caplog.text

    return run


COUNTS = [  # folder, params, documents
    ("02_only_json", {}, 12),
    ("03_array_in_jsonl", {}, 12),
    ("04_alpaca", {}, 40),
    ("04_alpaca", {"text_field": "{instruction}\n{input}\n{output}"}, 40),
    ("05_sharegpt", {}, 40),
    ("06_openai", {}, 40),
    ("45_pq_messages", {}, 12),
    ("07_nested", {"text_field": "data.text"}, 20),
    ("46_pq_struct", {"text_field": "translation.de"}, 12),
    ("08_text_list", {}, 20),
    ("08_text_list", {"text_lists": "documents"}, 40),
    ("44_pq_list", {}, 12),
    ("44_pq_list", {"text_lists": "documents"}, 24),
    ("09_bare_strings", {}, 20),
    ("10_key_content", {"text_field": "content"}, 20),
    ("11_utf16_jsonl", {}, 20),
    ("12_cp1252_jsonl", {}, 20),
    ("15_csv_pipe", {}, 20),
    ("16_csv_noheader", {"text_field": "2"}, 20),
    ("18_tsv_quotes", {}, 20),
    ("19_csv_backslash", {}, 20),
    ("20_csv_sep_line", {}, 20),
    ("21_csv_Text", {"text_field": "Text"}, 20),
    ("22_tinystories", {}, 30),
    ("22_tinystories", {"documents": "separator"}, 30),
    ("23_blankline_crlf", {"documents": "paragraph"}, 30),
    ("23_blankline_crlf", {"documents": "separator"}, 30),
    ("24_blankline_lf", {"documents": "paragraph"}, 30),
    ("25_one_sentence_a_line", {"documents": "line"}, 72),
    ("26_line_crlf", {"separator": r"\n"}, 72),
    ("27_xz", {}, 1),
    ("28_bz2", {}, 1),
    ("29_targz", {}, 5),
    ("82_c4_json_gz", {}, 150),
    ("86_wikiextractor", {}, 120),
    ("43_pq_binary", {}, 12),
    ("48_arrow", {}, 12),
]


@pytest.mark.parametrize(("folder", "changes", "count"), COUNTS)
def test_every_document_is_read(clean_case, folder, changes, count):
    documents, metrics, _ = clean_case(folder, **changes)
    assert len(documents) == metrics["documents_kept"] == count
    assert not metrics.get("replaced_bytes")
    assert all("\ufffd" not in text and "<|" not in text for text in documents.values())


def test_files_of_every_kind_are_read_or_named(clean_case):
    documents, _, messages = clean_case("01_mixed_kinds")
    names = [path.name for path in (CASES / "01_mixed_kinds").iterdir()]
    assert len(names) == 24
    for name in names:
        assert name in documents or name in messages, name


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("10_key_content", "content"),
        ("21_csv_Text", "did you mean Text"),
        ("16_csv_noheader", "clean.text_field=2"),
    ],
)
def test_errors_list_the_keys(clean_case, folder, expected):
    with pytest.raises(AtlasError, match=expected):
        clean_case(folder)


def test_the_text_of_a_page(clean_case):
    (page,) = clean_case("32_htmltxt")[0].values()
    lines = [line for line in page.split("\n") if line.strip()]
    assert lines[-21].endswith('Caf\u00e9 & bar\u00a0\u2014 it\'s "fine".')
    assert len(lines) in (21, 22)  # with or without the title
    assert "var a" not in page
    assert "<" not in page


def test_spoken_lines_of_subtitles(clean_case):
    (spoken,) = clean_case("85_srt_as_txt")[0].values()
    lines = Counter(line for line in spoken.split("\n") if line.strip())
    assert set(lines) == {"Hello there.", "How are you?"}
    assert len(set(lines.values())) == 1


UNICODE = {
    "ansi": "red plain",
    "persian_double": "می\u200cروم کتاب\u200cها",
    "overstrike": "NAME   foo",
    "nbsp": "10\u00a0km\u202f: \u00ab\u00a0oui\u00a0\u00bb a\u2009b\u3000c",
    "nul_utf8": "ab",
    "viet_nfd": "Ti\u1ebfng Vi\u1ec7t",
    "hangul_jamo": "\ud55c\uae00",
    "tatweel": "\u0633\u0640\u0640\u0640\u0644\u0627\u0645",
    "thai": "ฉันรักภาษาไทยมาก น้ำ",
}


def test_questions_of_unicode(clean_case):
    documents, _, _ = clean_case("50_unicode")
    assert len(documents) == 45
    for name, expected in UNICODE.items():
        assert documents[f"{name}.txt"].strip() == expected, name


def test_repeated_lines_are_removed(clean_case):
    documents, metrics, messages = clean_case("64_boilerplate", repeated_lines=0.5)
    assert len(documents) == 150
    assert not any("newsletter" in text for text in documents.values())
    assert metrics["removed_repeated_lines"] > 150 * 100
    assert "repeated lines" in messages


@pytest.mark.parametrize("folder", ["61_neardup_zh", "62_neardup_en"])
def test_near_copies_are_found(clean_case, folder):
    _, metrics, _ = clean_case(folder, duplicates="near", split_by="auto")
    assert 38 <= metrics["rejected_near_duplicate"] <= 40


def test_controls_become_the_signs_of_windows_1252(clean_case):
    documents, _, _ = clean_case("80_c1_controls")
    joined = "".join(documents.values())
    for sign in "\u2019\u201c\u201d\u2026\u20ac\u2013":
        assert joined.count(sign) >= 72, sign


def test_short_documents_are_split_whole(clean_case):
    _, metrics, messages = clean_case("87_short_docs", split_by="auto", duplicates="near")
    assert metrics["split_by"] == "document"
    assert metrics["val_documents"] > 0
    assert metrics["test_documents"] > 0
    assert "split by document" in messages


@pytest.mark.parametrize("folder", ["04_alpaca", "05_sharegpt", "06_openai"])
def test_messages_are_kept(clean_case, tmp_path, folder):
    clean_case(folder, split_by="document", val=0.2, test=0.2)
    documents = [d for split in SPLITS for d in read_documents(tmp_path / "clean" / split)]
    assert len(documents) == 40
    for document in documents:
        assert [message["role"] for message in document.messages] == ["user", "assistant"]
        assert all(message["content"] in document.text for message in document.messages)


PYTHON_NAMES = {"utf16le": "utf-16-le", "utf16be": "utf-16-be", "macroman": "mac_roman"} | {
    "mac": "mac_cyrillic",
    "eucjp": "euc_jp",
    "iso2022": "iso2022_jp",
    "sjis": "cp932",
    "euckr": "cp949",
    "koi8r": "koi8_r",
}
# The bytes don't tell: reason.
UNKNOWABLE: dict[str, str] = {}


def test_encodings(clean_case):
    documents, metrics, messages = clean_case("71_encodings")
    wrong = []
    for path in sorted((CASES / "71_encodings").iterdir()):
        encoding = path.stem.partition("_")[2]
        expected = path.read_bytes().decode(PYTHON_NAMES.get(encoding, encoding))
        if documents[path.name].strip() != expected.strip():
            wrong.append(path.name)
    assert set(wrong) == set(UNKNOWABLE)
    guessed = sum(count for name, count in metrics.items() if name.startswith("guessed_"))
    assert 20 <= guessed <= 33
    assert f"guessed the encoding of {guessed} files" in messages


def test_a_given_encoding_is_not_guessed(clean_case):
    documents, metrics, _ = clean_case("12_cp1252_jsonl", encoding="cp1252")
    assert len(documents) == 20
    assert not any(name.startswith("guessed_") for name in metrics)
