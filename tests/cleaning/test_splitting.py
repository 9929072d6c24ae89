import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.splits import cut_document, resolve_split_by, split_of
from tests.small import small_params, text


def clean(**changes):
    return small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean


SHARES = clean()


@given(st.text(max_size=500), st.floats(0.01, 0.6), st.floats(0, 0.3))
def test_the_parts_of_a_document_are_the_document(content, val, test):
    shares = SHARES.model_copy(update={"val": val, "test": test})
    parts = list(cut_document(Document("d", "s", content), shares))
    assert "".join(part.text for _, part in parts) == content
    assert [split for split, _ in parts] == sorted(
        (split for split, _ in parts), key=["train", "val", "test"].index
    )
    assert len({part.id for _, part in parts}) == len(parts)


def test_cuts_fall_on_line_starts_near_the_shares():
    content = text(1, sentences=1000)
    parts = dict(cut_document(Document("d", "s", content), clean(val=0.1, test=0.2)))
    assert len(parts["train"].text) == pytest.approx(0.7 * len(content), abs=100)
    assert len(parts["test"].text) == pytest.approx(0.2 * len(content), abs=100)
    assert all(parts[split].text.endswith("\n") for split in ("train", "val"))


def test_one_endless_line_is_cut_at_a_blank():
    parts = dict(cut_document(Document("d", "s", "word " * 10_000), clean()))
    assert all(part.text.startswith("word ") for part in parts.values())


def test_documents_fall_into_splits_by_their_shares():
    shares = clean(val=0.1, test=0.2)
    splits = [split_of(str(number).encode(), shares) for number in range(10_000)]
    assert splits.count("val") == pytest.approx(1000, abs=120)  # four standard deviations
    assert splits.count("test") == pytest.approx(2000, abs=160)


def test_the_split_depends_on_text_and_seed_alone():
    def splits(seed):
        params = clean(seed=seed, val=0.3)
        return [split_of(str(number).encode(), params) for number in range(200)]

    assert splits(1) == splits(1) != splits(2)


@pytest.mark.parametrize(
    ("asked", "documents", "expected"),
    [
        ("auto", 99, "position"),
        ("auto", 100, "document"),
        ("document", 1, "document"),
        ("position", 10**6, "position"),
    ],
)
def test_auto_splits_few_documents_by_position(asked, documents, expected):
    assert resolve_split_by(clean(split_by=asked), documents) == expected
