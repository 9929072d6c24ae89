import gzip
import hashlib

import pytest

from atlas.corpora.download import Download, download
from atlas.errors import AtlasError

CONTENT = b"line\n" * 1000
PACKED = gzip.compress(CONTENT, mtime=0)
AWAY = "http://127.0.0.1:1"  # nothing answers there
PINNED = Download(
    "a.txt", (f"{AWAY}/x/in put.txt",), hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)
)
UNPINNED = Download("pg5.txt", (f"{AWAY}/pg5.txt", f"{AWAY}/5-0.txt"))


@pytest.fixture(params=["folder", "url"])
def mirror(request, tmp_path, server):
    """Return a function that puts files into a mirror and returns its location."""

    def fill(files):
        if request.param == "url":
            server.files = {f"/mirror/{name.replace('#', '%23')}": files[name] for name in files}
            return f"{server.url}/mirror/"
        for name, content in files.items():
            path = tmp_path / "mirror" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / "mirror")

    return fill


def index(**rows) -> bytes:
    """Build a sources.csv."""
    lines = ["file,url,bytes,sha256"]
    lines += [
        f"{row['file']},{row.get('url', '')},,{row.get('sha256', '')}" for row in rows.values()
    ]
    return ("\n".join(lines) + "\n").encode()


def fetch(tmp_path, file, mirror):
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    urls = download([file], folder, mirror, tmp_path / "unfinished")
    return urls[file.name], (folder / file.name).read_bytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["a.txt", PINNED.sha256])
def test_a_pinned_file_is_found_by_name_and_checksum(tmp_path, mirror, place, packed):
    content = PACKED if packed else CONTENT
    root = mirror({place + ".gz" * packed: content})
    assert fetch(tmp_path, PINNED, root) == (PINNED.urls[0], CONTENT)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pinned_file_is_found_by_the_index(tmp_path, mirror, packed):
    content = PACKED if packed else CONTENT
    row = {"file": "deep/no#1.txt", "sha256": PINNED.sha256.upper()}
    root = mirror({"deep/no#1.txt": content, "sources.csv": index(row=row)})
    assert fetch(tmp_path, PINNED, root)[1] == CONTENT


@pytest.mark.parametrize("name", ["pg5.txt", "5-0.txt", "5-0.txt.gz"])
def test_an_unpinned_file_is_found_by_any_of_its_names(tmp_path, mirror, name):
    content = PACKED if name.endswith(".gz") else CONTENT
    url, received = fetch(tmp_path, UNPINNED, mirror({name: content}))
    assert received == CONTENT
    assert url == f"{AWAY}/{name.removesuffix('.gz')}"


@pytest.mark.parametrize(
    "row", [{"file": "books/5-0.txt"}, {"file": "books/other.txt", "url": f"{AWAY}/5-0.txt"}]
)
def test_an_unpinned_file_is_found_by_the_index(tmp_path, mirror, row):
    root = mirror({row["file"]: CONTENT, "sources.csv": index(row=row)})
    assert fetch(tmp_path, UNPINNED, root)[1] == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [b"another", gzip.compress(b"another", mtime=0), PACKED[:-9], b"\x1f\x8bno"],
    ids=["text", "packed", "cut", "no gzip"],
)
def test_a_wrong_file_in_the_mirror_is_ignored(tmp_path, mirror, wrong):
    root = mirror({PINNED.sha256: wrong, "a.txt": CONTENT})
    assert fetch(tmp_path, PINNED, root)[1] == CONTENT


def test_a_gzip_bomb_is_rejected(tmp_path, mirror):
    root = mirror({"a.txt.gz": gzip.compress(CONTENT * 10)})
    with pytest.raises(AtlasError, match=f"contains more than the {len(CONTENT)} bytes"):
        fetch(tmp_path, PINNED, root)


def test_files_of_the_mirror_stay(tmp_path, mirror):
    root = mirror({"a.txt": CONTENT})
    fetch(tmp_path, PINNED, root)
    if not root.startswith("http"):
        assert (tmp_path / "mirror/a.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"file\n", b"x,y\n1,2\n", b"file,sha256\na.txt\n"]
)
def test_a_damaged_index_is_ignored(tmp_path, mirror, content):
    root = mirror({"a.txt": CONTENT, "sources.csv": content})
    assert fetch(tmp_path, PINNED, root)[1] == CONTENT


def test_a_file_missing_from_the_mirror_names_the_mirror(tmp_path, mirror):
    root = mirror({"b.txt": CONTENT})
    with pytest.raises(AtlasError, match=r"a\.txt .*can't be reached.*add them to ATLAS_MIRROR="):
        fetch(tmp_path, PINNED, root)


def test_an_unreachable_mirror_is_tried_once_per_file(tmp_path):
    with pytest.raises(AtlasError) as error:
        fetch(tmp_path, PINNED, f"{AWAY}/mirror")
    assert str(error.value).count("/mirror/") == 1


@pytest.mark.parametrize("root", ["nowhere", "ftp://example.org/texts"])
def test_an_invalid_mirror_is_an_error(tmp_path, root):
    with pytest.raises(AtlasError, match=f"ATLAS_MIRROR={root}: no such folder"):
        fetch(tmp_path, PINNED, root)


def test_an_unreadable_file_of_the_mirror_is_reported(tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.txt").write_bytes(CONTENT)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("atlas.corpora.download.shutil.copyfile", forbidden)
    with pytest.raises(AtlasError, match=r"a\.txt can't be read: Permission denied"):
        fetch(tmp_path, PINNED, str(tmp_path / "mirror"))
