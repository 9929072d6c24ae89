"""Fixtures: a faulty server, recorded pauses, a folder of texts."""

from pathlib import Path

import pytest

from atlas.corpora import download
from atlas.corpora.download import Download
from tests.corpora import faulty_server
from tests.corpora.downloading import pinned, unpinned


@pytest.fixture
def own(tmp_path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "good.txt").write_bytes(b"good")
    return folder


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    noted: list[float] = []

    async def note(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr(download.asyncio, "sleep", note)
    return noted


@pytest.fixture
def server(pauses):
    with faulty_server.running() as server:
        yield server


@pytest.fixture(params=["pinned", "unpinned"])
def file(request, server) -> Download:
    return pinned(server) if request.param == "pinned" else unpinned(server)
