import pytest

from atlas.cleaning.clean import write_chunks
from atlas.cleaning.documents import Document
from atlas.cleaning.repeated_lines import find_repeated_lines, remove_lines
from atlas.cleaning.splits import StagedCorpus
from tests.small import small_params


@pytest.fixture
def repeated(tmp_path):
    """Find the repeated lines of texts, staged in chunks of a few documents."""

    def find(texts, fraction, size=3):
        folders = []
        clean = small_params(**{"clean.duplicates": None}).clean
        documents = [Document(str(number), "s", text) for number, text in enumerate(texts)]
        for start in range(0, len(texts), size):
            folder = tmp_path / f"{fraction}-{start}"
            (count,) = write_chunks(iter(documents[start : start + size]), folder, clean)
            folders.append((folder / "000", count))
        return find_repeated_lines(StagedCorpus.from_folders(folders), fraction)

    return find


def test_lines_in_more_than_a_fraction_of_the_documents_are_found(repeated):
    texts = [
        f"Home\n{'often' if number < 5 else 'other'}\n{number}\n  Home \n" for number in range(10)
    ]
    assert repeated(texts, 0.5) == {"Home"}
    assert repeated(texts, 0.49) == {"Home", "often", "other"}


def test_equal_documents_count_once(repeated):
    assert repeated(["a\nb"] * 9 + ["c"], 0.5) == frozenset()


def test_a_line_of_one_document_is_not_repeated(repeated):
    assert repeated(["a\na\na"], 0.1) == frozenset()


def test_frequent_checksums_are_not_enough(repeated, monkeypatch):
    monkeypatch.setattr("atlas.cleaning.repeated_lines.CHECKSUMS", 1)
    assert repeated([f"Home\n{number}" for number in range(10)], 0.5) == {"Home"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Home\n\nfirst\n\nsecond\n\nHome\n", "first\n\nsecond"),
        ("first\n Home\t\nsecond\n", "first\nsecond\n"),
        ("\nfirst\n", "\nfirst\n"),
        ("Home\n\nHome\n", ""),
        ("At Home\n", "At Home\n"),
    ],
)
def test_lines_are_removed(text, expected):
    shorter, removed = remove_lines(Document("d", "s", text), frozenset({"Home"}))
    assert shorter == Document("d", "s", expected)
    assert removed == len(text) - len(expected)


def test_conversations_stay():
    messages = [{"role": "user", "content": "Home"}]
    document = Document("d", "s", "User: Home\n\nHome", messages=messages)
    assert remove_lines(document, frozenset({"Home"})) == (document, 0)
