"""Decode ids to text during generation: whole characters, and no part of a stop string."""

from collections.abc import Callable, Sequence

UNKNOWN = "\ufffd"  # decoders give this for part of a character
MAX_CONTEXT_IDS = 16  # ids that are decoded again with each new one
MAX_CHARACTER_TOKENS = 4  # bytes of a character in UTF-8; each may be a token


class IncrementalDecoder:
    """Decodes ids one by one and holds back incomplete characters.

    Together, the parts equal the text of all ids decoded at once. Only the number of U+FFFD for a
    run of invalid bytes may differ.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        """Start after a prompt, because a token's text may depend on the one before it."""
        self._decode = decode
        self._shown = list(prompt[-1:])
        self._shown_text = decode(self._shown)
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        """The text that this token completes, usually its own."""
        self._pending.append(token)
        rest = self._new_text(len(self._pending))
        if not rest.endswith(UNKNOWN):
            return self._take(len(self._pending), rest)
        complete = ""
        while (end := self._final_end(rest)) is not None:
            text = self._new_text(end)
            complete += self._take(end, text)
            rest = rest[len(text) :]
        return complete

    def flush(self) -> str:
        """The text of the ids held back; call it after the last token."""
        return self._take(len(self._pending), self._new_text(len(self._pending)))

    def _new_text(self, end: int) -> str:
        """The text of the first ``end`` pending ids."""
        return self._decode([*self._shown, *self._pending[:end]])[len(self._shown_text) :]

    def _final_end(self, rest: str) -> int | None:
        """Number of pending ids whose text later ids can't change; None if there are none."""
        for end in range(1, len(self._pending) - MAX_CHARACTER_TOKENS + 2):
            if rest.startswith(self._new_text(end)):
                return end
        return None

    def _take(self, end: int, text: str) -> str:
        taken, self._pending = self._pending[:end], self._pending[end:]
        # After an invalid character the next ids must be decoded together with it.
        valid = bool(text) and not text.endswith(UNKNOWN)
        if valid and len(self._shown) > MAX_CONTEXT_IDS:
            self._shown, self._shown_text = taken, self._decode(taken)
        else:
            self._shown += taken
            self._shown_text += text
        return text


class TextStream:
    """Turns ids into the text that may be shown: up to the first stop string, which is left out."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        stops: Sequence[str] = (),
    ) -> None:
        self._decoder = IncrementalDecoder(decode, prompt)
        self._stops = [stop for stop in stops if stop]
        self._held = ""  # possible beginning of a stop string
        self.found_stop: str | None = None

    def feed(self, token: int) -> str:
        """The text that may be shown after this token; empty once a stop string was found."""
        return self._before_stop(self._decoder.feed(token))

    def flush(self) -> str:
        """The rest of the text; call it after the last token."""
        text = self._before_stop(self._decoder.flush()) + self._held
        self._held = ""
        return text

    def _before_stop(self, text: str) -> str:
        """The text that can now be shown: not yet shown, and not part of a stop string."""
        if self.found_stop is not None:
            return ""
        self._held += text
        found = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if found:
            start, self.found_stop = min(found, key=lambda each: (each[0], -len(each[1])))
            released, self._held = self._held[:start], ""
            return released
        ends = (
            end
            for stop in self._stops
            for end in range(1, min(len(self._held) + 1, len(stop)))
            if self._held.endswith(stop[:end])
        )
        cut = len(self._held) - max(ends, default=0)
        released, self._held = self._held[:cut], self._held[cut:]
        return released
