"""Fixtures shared by several folders of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser

from atlas.cleaning.documents import Document
from atlas.params.schema import Params
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.browser import chromium
from tests.small import CORPORA, small_params, text, write_tokens

settings.register_profile("noisy", deadline=None)  # no time limit per example
settings.load_profile("noisy")


@pytest.fixture(autouse=True)
def one_thread_and_own_environment(monkeypatch: pytest.MonkeyPatch):
    """Use one thread per worker, and ignore the settings of the shell."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for processes started by tests
    for name in (
        "ATLAS_MIRROR",
        "ATLAS_DEVICE",
        "ATLAS_DEBUG",
        "ATLAS_READERS",
        "ATLAS_CHECKPOINT_SECONDS",
        "ATLAS_COMPILE",
        "ATLAS_NPROC",
        "ATLAS_STRATEGY",
        "ATLAS_API_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("ATLAS_PARALLEL", "1")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, once per module, because playwright's event loop blocks others in its thread."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def params() -> Params:
    return small_params()


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return [Document(f"d{seed}", "made up", text(seed)) for seed in range(100)]


@pytest.fixture(scope="session")
def tokenizer(documents, params) -> Tokenizer:
    return train_tokenizer(lines_of(documents), params.tokenizer)


@pytest.fixture
def corpora() -> Path:
    """Real texts, present next to the project on some machines."""
    if not CORPORA.is_dir():
        pytest.skip("no ../shared/corpora next to this checkout")
    return CORPORA


@pytest.fixture(scope="session")
def token_folder(tmp_path_factory, tokenizer, documents) -> Path:
    ids = [tokenizer.encode(document.text) for document in documents]
    shards = {"train": [ids[:80]], "val": [ids[80:]]}
    return write_tokens(tmp_path_factory.mktemp("tokens"), shards)
