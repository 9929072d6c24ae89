"""Signals as requests, raised in this process."""

import signal

import pytest

from atlas.errors import Stopped
from atlas.training.checkpoint import StopRequest

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_a_request(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", NUMBERS)
def test_a_second_signal_does_not_interrupt_stopping(number):
    with pytest.raises(Stopped), StopRequest():
        raise Stopped
    signal.raise_signal(number)


def test_signal_handlers_are_restored_after_an_error():
    with pytest.raises(OSError, match="gone"), StopRequest():
        raise OSError("gone")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
