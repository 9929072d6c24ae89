"""Helpers of the download tests."""

import hashlib

import pytest

from atlas.corpora.download import Download, download
from atlas.errors import AtlasError
from tests.corpora.faulty_server import CONTENT


def pinned(server, name="a.txt", content=CONTENT) -> Download:
    return Download(
        name, (f"{server.url}/{name}",), hashlib.sha256(content).hexdigest(), len(content)
    )


def unpinned(server, name="a.txt", *others) -> Download:
    return Download(name, tuple(f"{server.url}/{place}" for place in (name, *others)))


def fetch(tmp_path, *files, mirror=None):
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    return download(files, folder, mirror, tmp_path / "unfinished")


def refusal(tmp_path, *files, mirror=None) -> str:
    with pytest.raises(AtlasError) as error:
        fetch(tmp_path, *files, mirror=mirror)
    message = str(error.value)
    assert "\n" not in message
    assert "ATLAS_MIRROR" in message
    assert not list((tmp_path / "raw").iterdir())
    return message


def received(tmp_path, name="a.txt") -> bytes:
    return (tmp_path / "raw" / name).read_bytes()
