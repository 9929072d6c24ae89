"""How much of a text stands in the training text word for word.

The automaton of all runs of the texts (Blumer et al. 1985, Theoretical Computer Science 40) reads
the training text once, so time grows with its length and memory does not.
"""

from collections.abc import Iterable, Iterator, Sequence

from atlas.tokens.shards import TokenSplit

AT_ONCE = 1 << 20  # tokens that are read together
ROOT = 0
COPIED = 0.5  # a text of which a run of such a share stands in the training text is a copy,
FEWEST = 8  # and that has so many tokens


class Runs:
    """All runs of some texts: a suffix automaton.

    States are sets of runs that end at the same places. Each knows the length of its longest run
    and the state of the next shorter runs, its link.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._ends: list[list[int]] = []  # of each text, the state after each token
        last = ROOT
        for number, text in enumerate(texts, start=1):
            ends = []
            for token in text:
                last = self._extend(last, token)
                ends.append(last)
            self._ends.append(ends)
            last = self._extend(last, -number)  # no run goes on from one text to the next

    def longest_in(self, text: Iterable[int]) -> list[int]:
        """The longest run of each text that stands in another, in tokens."""
        found = self._found_in(text)
        return [max(map(found.__getitem__, ends), default=0) for ends in self._ends]

    def _found_in(self, text: Iterable[int]) -> list[int]:
        """Of each state, the longest of the runs that end there which ``text`` has."""
        nexts, link, length = self._next, self._link, self._length
        found = [0] * len(nexts)
        state, matched = ROOT, 0
        for token in text:
            after = nexts[state].get(token)
            while after is None and state != ROOT:
                state = link[state]
                matched = length[state]
                after = nexts[state].get(token)
            if after is None:
                continue
            state, matched = after, matched + 1
            if matched > found[state]:
                found[state] = matched
        shortest_first = sorted(range(1, len(nexts)), key=length.__getitem__)
        for each in reversed(shortest_first):
            if found[each] and link[each] != ROOT:
                found[link[each]] = length[link[each]]  # what is shorter stands there as well
        for each in shortest_first:
            found[each] = found[each] or found[link[each]]
        return found

    def _extend(self, last: int, token: int) -> int:
        new = self._add({}, self._length[last] + 1, ROOT)
        state = last
        while state != -1 and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        if state == -1:
            return new
        known = self._next[state][token]
        if self._length[known] == self._length[state] + 1:
            self._link[new] = known
            return new
        shorter = self._add(dict(self._next[known]), self._length[state] + 1, self._link[known])
        while state != -1 and self._next[state].get(token) == known:
            self._next[state][token] = shorter
            state = self._link[state]
        self._link[known] = self._link[new] = shorter
        return new

    def _add(self, following: dict[int, int], length: int, link: int) -> int:
        self._next.append(following)
        self._length.append(length)
        self._link.append(link)
        return len(self._next) - 1


def longest_matches(texts: Sequence[Sequence[int]], training: TokenSplit) -> list[int]:
    """The longest run of each text that stands in the training text, in tokens."""
    return Runs(texts).longest_in(_tokens_of(training))


def copied(texts: Sequence[Sequence[int]], matches: Sequence[int]) -> float:
    """The share of texts of which a run of at least half, and eight tokens, stands there."""
    copies = sum(
        match >= max(COPIED * len(text), FEWEST) for text, match in zip(texts, matches, strict=True)
    )
    return copies / len(texts)


def _tokens_of(split: TokenSplit) -> Iterator[int]:
    for start in range(0, len(split), AT_ONCE):
        yield from split.read(start, min(start + AT_ONCE, len(split))).tolist()
