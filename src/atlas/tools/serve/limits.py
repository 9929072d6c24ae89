"""What the server promises to hold, and refuses beyond."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much one request, and all of them together, may ask for.

    Attributes:
        slots: texts that are continued at the same time.
        queue: texts that may wait for a slot; one more is refused with 429.
        tokens: the most that a request may ask to be added to a text.
        texts: that one request may ask for, prompts times ``n``.
        stops: stop strings of a request.
        stop_characters: of each of them.
        body_bytes: of a request; a longer one is refused with 413.
        body_seconds: in which it must have come; else it is refused with 408.
        queue_seconds: that a text may wait for a slot; then it is refused with 503.
        seconds: that a text may be written; then it ends as at its last token.
        connections: at the same time; one more is refused with 503.
    """

    slots: int = 16
    queue: int = 64
    tokens: int = 4096
    texts: int = 16
    stops: int = 16
    stop_characters: int = 256
    body_bytes: int = 1 << 18
    body_seconds: float = 10.0
    queue_seconds: float = 30.0
    seconds: float = 120.0
    connections: int = 512
