"""Apply the cleaning steps to a document in order, and count the changes of each."""

from collections import Counter

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.read import Item, Rejection, UnreadableFile
from atlas.cleaning.steps.filters import FILTERS
from atlas.cleaning.steps.gutenberg import strip_gutenberg
from atlas.cleaning.steps.unicode import fix_mojibake, normalise, surrogates
from atlas.cleaning.steps.unwrapping import unwrap
from atlas.errors import AtlasError
from atlas.params.schema import CleanParams

CHANGES = (  # counts kept by the steps, in order
    "mojibake",  # lines
    "line_ends",
    "surrogates",
    "control_characters",
    "zero_width",
    "compose",  # documents
    "gutenberg_header",
    "gutenberg_footer",
    "gutenberg_credits",
    "transcriber_notes",
    "unwrapped",  # documents
)


def clean_item(item: Item, clean: CleanParams, changes: Counter[str]) -> Document | Rejection:
    """Clean a document, or explain its rejection; add to the counts in ``changes``."""
    if isinstance(item, UnreadableFile) and clean.bad_files == "stop":
        raise AtlasError(
            f"{item.id}: not readable as text ({item.reason}: {item.detail}); remove it from the "
            "corpus, or set clean.bad_files=reject to skip it"
        )
    if isinstance(item, Rejection):
        return item
    text = _clean_text(item.text, clean, changes)
    identity = surrogates(item.id)[0]
    if not text.strip():
        return Rejection(identity, "empty")
    for name in clean.filters:
        failure = FILTERS[name](text)
        if failure:
            return Rejection(identity, name, failure)
    return Document(identity, surrogates(item.source)[0], text)


def _clean_text(text: str, clean: CleanParams, changes: Counter[str]) -> str:
    if clean.fix_mojibake:
        text, lines = fix_mojibake(text)
        changes["mojibake"] += lines
    text = normalise(text, clean, changes)
    if clean.strip_gutenberg:
        stripped = strip_gutenberg(text, notes=clean.remove_transcriber_notes)
        changes["gutenberg_header"] += stripped.header
        changes["gutenberg_footer"] += stripped.footer
        changes["gutenberg_credits"] += stripped.credits
        changes["transcriber_notes"] += stripped.notes
        text = stripped.text
    if clean.unwrap:
        unwrapped = unwrap(text)
        changes["unwrapped"] += unwrapped != text
        text = unwrapped
    return text
