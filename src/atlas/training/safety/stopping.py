"""Ctrl+C and SIGTERM as a request that the training loop grants between two steps."""

import signal
from types import FrameType, TracebackType

from atlas.errors import Stopped


class StopRequest:
    """While active, SIGINT and SIGTERM set ``requested`` instead of ending the process.

    Left by ``Stopped`` it stays: the process is ending, and who asks again, as a launcher does,
    would only end it without a word.
    """

    requested = False

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is Stopped:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
