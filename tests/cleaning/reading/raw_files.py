"""Write raw files of every format and read them."""

import csv
import io
import json
import zipfile

import pyarrow
import pyarrow.parquet

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.pieces import Notes, Piece
from atlas.cleaning.reading.read import plan, read_piece
from atlas.corpora.manifest import RawFile
from tests.small import small_params, text

STORIES = [text(seed) for seed in range(5)]


def jsonl(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def table(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def cleaning(**changes):
    """Return the small params of clean with some changed."""
    return small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean


def read(path, field="text", **place):
    notes = Notes()
    return list(read_piece(Piece(path, path.name, **place), cleaning(text_field=field), notes))


def texts(items):
    return [item.text if isinstance(item, Document) else item.reason for item in items]


def read_all(folder, files, notes=None, **changes):
    """Read all pieces of a plan in order, with changed params of clean."""
    manifest = [RawFile(name, "", "", (folder / name).stat().st_size, "") for name in files]
    notes, clean = notes or Notes(), cleaning(**changes)
    return [
        item
        for unit in plan(folder, manifest)
        for piece in unit.pieces
        for item in read_piece(piece, clean, notes)
    ]


def archive(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return path
