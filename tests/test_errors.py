import errno
import logging

import pytest

from atlas.errors import AtlasError, Stopped, one_line_errors


def ended(error: BaseException, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return end.value.code, printed


def test_a_refusal_is_one_line(capsys):
    assert ended(AtlasError("train.lr is wrong"), capsys) == (1, "error: train.lr is wrong\n")


def test_a_full_disk_names_the_file(capsys):
    code, printed = ended(OSError(errno.ENOSPC, "No space left on device", "data/x"), capsys)
    assert code == 1
    assert "data/x: No space left on device" in printed


def test_a_stop_has_the_exit_code_of_an_interrupt(capsys):
    assert ended(Stopped("stopped after step 3"), capsys) == (130, "stopped after step 3\n")
    assert ended(KeyboardInterrupt(), capsys)[0] == 130


def test_an_unexpected_error_tells_how_to_see_the_traceback(capsys):
    assert "ATLAS_DEBUG=1" in ended(RuntimeError("boom"), capsys)[1]


def test_debugging_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("ATLAS_DEBUG", "1")
    with pytest.raises(RuntimeError), one_line_errors():
        raise RuntimeError("boom")


def test_log_messages_are_lines_on_stderr(capsys):
    with one_line_errors():
        logger = logging.getLogger("atlas.any")
        logger.warning("disk is %d %% full", 99)
        logger.info("resuming from step 3")
        logger.debug("never shown")
        logging.getLogger("library").info("never shown")
    assert capsys.readouterr().err == "warning: disk is 99 % full\nresuming from step 3\n"
