"""Damaged files of every format: an item with a reason, never an exception."""

import bz2
import gzip
import lzma
import random
import sys

import pyarrow
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.pieces import Rejection
from tests.cleaning.reading.raw_files import STORIES, archive, jsonl, parquet, read_all, table
from tests.cleaning.reading.written import WRITERS, tarred, written

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [{"id": number, "text": text} for number, text in enumerate(STORIES)]
WIKI = "".join(
    f'<doc id="{n}" url="" title="T{n}">\nT{n}\n\n{t}\n</doc>\n' for n, t in enumerate(STORIES)
)
DUMP = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo/>'
    + "".join(
        f"<page><title>T{n}</title><ns>0</ns><id>{n}</id><revision><text>{{{{a|b}}}} '''{t}''' "
        "[[x|y]]&lt;ref&gt;z&lt;/ref&gt;</text></revision></page>"
        for n, t in enumerate(STORIES)
    )
    + "</mediawiki>"
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A file of each format by name."""
    folder = tmp_path_factory.mktemp("written")
    story, lines = STORIES[0].encode(), jsonl(*STORIES)
    documents = {name: written(name, folder) for name in WRITERS}
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(ROWS), folder / "a.arrow")
    return documents | {
        "a.txt": story,
        "a.jsonl": lines,
        "a.json": b"[" + b",".join(lines.splitlines()) + b"]",
        "a.csv": table(ROWS),
        "a.parquet": parquet(folder / "a.parquet", ROWS).read_bytes(),
        "a.arrow": (folder / "a.arrow").read_bytes(),
        "wiki_00": WIKI.encode(),
        "dump.xml": DUMP.encode(),
        "a.txt.gz": gzip.compress(story, mtime=0),
        "a.jsonl.bz2": bz2.compress(lines),
        "a.csv.xz": lzma.compress(table(ROWS)),
        "a.jsonl.zst": zstd.compress(lines),
        "a.zip": archive(folder / "a.zip", documents).read_bytes(),
        "a.tar": tarred(documents),
        "a.tar.gz": tarred({"a.txt": story, "b.zip": b"PK\x05\x06" + bytes(18)}, "w:gz"),
    }


def damage(data, generator):
    """Flip bits, cut, or insert bytes."""
    data = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 5, 50))):
        place = generator.randrange(len(data) + 1) if data else 0
        match generator.choice(("flip", "flip", "set", "cut", "insert", "repeat")):
            case "flip" if place < len(data):
                data[place] ^= 1 << generator.randrange(8)
            case "set" if place < len(data):
                data[place] = generator.choice((0, 255, generator.randrange(256)))
            case "cut":
                end = generator.choice((len(data), place + generator.randrange(20)))
                del data[place:end]
            case "insert":
                data[place:place] = generator.randbytes(generator.randrange(1, 30))
            case "repeat":
                data[place:place] = data[max(0, place - 100) : place]
    return bytes(data)


def check_damaged(folder, samples, seed):
    """Read a file with random damage, sometimes under the name of another."""
    generator = random.Random(seed)
    name, other = generator.choices(sorted(samples), k=2)
    name_as = other if generator.random() < 0.2 else name
    path = folder / name_as
    path.write_bytes(damage(samples[name], generator))
    for item in read_all(folder, [name_as]):
        assert isinstance(item, Document | Rejection)
        if isinstance(item, Rejection):
            assert "\n" not in item.detail.strip(), item
    path.unlink()


@given(st.integers(0, 1 << 64))
@settings(max_examples=60, deadline=None)
def test_damage_gives_a_reason(tmp_path_factory, samples, seed):
    check_damaged(tmp_path_factory.mktemp("raw"), samples, seed)


@pytest.mark.very_slow
def test_ten_thousand_damages_give_a_reason(tmp_path, samples):
    for seed in range(10_000):
        check_damaged(tmp_path, samples, seed)
