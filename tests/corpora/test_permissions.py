"""Files that their reader has no right to read, tried for real by a child that is not root."""

import logging
import os
import sys
from pathlib import Path

import pytest

from atlas.corpora.local_files import copy_files
from atlas.errors import AtlasError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can step down"
)


def as_nobody(action) -> int:
    """Runs something in a child process without the rights of root; returns its exit code."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os._exit(action())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("forbidden", ["secret.txt", "secret"])
def test_what_may_not_be_read_is_noted(own, tmp_path, capfd, forbidden):
    (own / "secret").mkdir()
    (own / "secret/a.txt").write_bytes(b"x")
    (own / "secret.txt").write_bytes(b"x")
    (own / forbidden).chmod(0)
    copies = tmp_path / "raw"
    copies.mkdir()
    copies.chmod(0o777)
    open_to_all(tmp_path)

    def action() -> int:
        logging.basicConfig(force=True)  # warnings to stderr
        result = copy_files(own, copies)
        return 0 if (len(result.files), result.unreadable) == (2, 1) else 1

    assert as_nobody(action) == 0
    assert f"{forbidden} skipped: Permission denied" in capfd.readouterr().err


def test_a_corpus_that_may_not_be_read_is_refused(own, tmp_path):
    own.chmod(0)
    open_to_all(tmp_path)

    def action() -> int:
        try:
            copy_files(own, tmp_path / "raw")
        except AtlasError as error:
            return 0 if "own: Permission denied" in str(error) else 1
        return 2

    assert as_nobody(action) == 0


def open_to_all(folder: Path) -> None:
    """pytest keeps its folders to itself."""
    for parent in [folder, *folder.parents]:
        if parent.name.startswith(("pytest-", "popen-", "test_")):
            parent.chmod(0o755)
