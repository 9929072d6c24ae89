"""From ids to text as they come: whole characters, and never a part of a stop string."""

from collections.abc import Callable, Sequence

UNKNOWN = "\ufffd"  # what decoders give for a part of a character
MOST_SHOWN = 16  # ids that are decoded again for each new one
MOST_PARTS = 4  # bytes of a character in UTF-8, each of which may be a token of its own


class Characters:
    """Decodes ids one by one.

    Some tokens are a single byte of a character: its text comes when it is whole. What comes is,
    all together, what decoding all ids at once gives; where bytes make no character at all, a
    tokenizer may give another number of U+FFFD for a run of them than for its parts.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        """Begins after a prompt, as the text of a token may depend on the one before.

        Args:
            decode: ids to text.
            prompt: ids.
        """
        self._decode = decode
        self._show(list(prompt[-1:]))
        self._pending: list[int] = []

    def feed(self, token: int) -> str:
        """The text that is whole now, often that of the token alone."""
        self._pending.append(token)
        rest = self._decode([*self._shown, *self._pending])[len(self._before) :]
        if not rest.endswith(UNKNOWN):
            return self._take(len(self._pending), rest)
        whole = ""
        while (end := self._settled_end(rest)) is not None:
            text = self._decode([*self._shown, *self._pending[:end]])[len(self._before) :]
            whole += self._take(end, text)
            rest = rest[len(text) :]
        return whole

    def end(self) -> str:
        """The text of what is left, for no more ids come."""
        rest = self._decode([*self._shown, *self._pending])[len(self._before) :]
        return self._take(len(self._pending), rest)

    def _settled_end(self, rest: str) -> int | None:
        """How many of the pending ids have a text that no later id can change; None if none."""
        for end in range(1, len(self._pending) - MOST_PARTS + 2):
            text = self._decode([*self._shown, *self._pending[:end]])[len(self._before) :]
            if rest.startswith(text):
                return end
        return None

    def _take(self, end: int, text: str) -> str:
        taken, self._pending = self._pending[:end], self._pending[end:]
        # After a broken character the next one is read with all that belongs to it.
        whole = bool(text) and not text.endswith(UNKNOWN)
        if whole and len(self._shown) > MOST_SHOWN:
            self._show(taken)
        else:
            self._shown += taken
            self._before += text
        return text

    def _show(self, ids: list[int]) -> None:
        """Goes on from some ids; all before is of no use any more."""
        self._shown, self._before = ids, self._decode(ids)


class StopStrings:
    """Lets a text through up to the first of some strings, which is not part of it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""  # what may be the beginning of a stop string
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """The text that is certain not to be of a stop string; nothing once one was found."""
        if self.found is not None:
            return ""
        self._held += text
        places = [(self._held.find(stop), stop) for stop in self._stops if stop in self._held]
        if places:
            place, self.found = min(places, key=lambda each: (each[0], -len(each[1])))
            certain, self._held = self._held[:place], ""
            return certain
        held = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        certain, self._held = (
            self._held[: len(self._held) - held],
            self._held[len(self._held) - held :],
        )
        return certain

    def end(self) -> str:
        """What was held back, for no more text comes."""
        held, self._held = self._held, ""
        return held


class TextStream:
    """Both: ids to the text that may be shown."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt: Sequence[int],
        stops: Sequence[str] = (),
    ) -> None:
        self._characters = Characters(decode, prompt)
        self._stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stops.found is not None

    def feed(self, token: int) -> str:
        """The text that may be shown now that a token came."""
        return self._stops.feed(self._characters.feed(token))

    def end(self) -> str:
        """The text that is left when no more tokens come."""
        return self._stops.feed(self._characters.end()) + self._stops.end()


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text that a stop string begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
