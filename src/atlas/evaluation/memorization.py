"""Memorization: how much of a text occurs word for word in the training text.

A suffix automaton of the texts (Blumer et al. 1985, Theoretical Computer Science 40) reads the
training text once. Time grows with the length of the training text, memory does not.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

from atlas.tokens.shards import TokenSplit

CHUNK_TOKENS = 1 << 20
ROOT = 0
COPIED_SHARE = 0.5  # a text is a copy if one run of this share of it is in the training text,
MIN_COPIED_TOKENS = 8  # and the run has at least this many tokens


class SuffixAutomaton:
    """An index of all substrings (runs of tokens) of a few texts.

    A state is a set of runs that end at the same positions. It stores the length of its longest
    run and a link to the state of the next shorter suffixes.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self._transitions: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._states_of_texts: list[list[int]] = []  # of each text, the state after each token
        state = ROOT
        for number, text in enumerate(texts, start=1):
            states = []
            for token in text:
                state = self._append(state, token)
                states.append(state)
            self._states_of_texts.append(states)
            state = self._append(state, -number)  # a unique separator: no run crosses two texts

    def longest_matches(self, other: Iterable[int]) -> list[int]:
        """Length of the longest run of each text that occurs in ``other``, in tokens."""
        transitions, link, length = self._transitions, self._link, self._length
        longest = [0] * len(transitions)  # per state
        state, matched = ROOT, 0
        for token in other:
            following = transitions[state].get(token)
            while following is None and state != ROOT:
                state = link[state]
                matched = length[state]
                following = transitions[state].get(token)
            if following is None:
                continue
            state, matched = following, matched + 1
            if matched > longest[state]:
                longest[state] = matched
        by_length = sorted(range(1, len(transitions)), key=length.__getitem__)
        for state in reversed(by_length):
            if longest[state] and link[state] != ROOT:
                longest[link[state]] = length[link[state]]  # suffixes of a match occur as well
        for state in by_length:
            longest[state] = longest[state] or longest[link[state]]
        return [
            max((longest[state] for state in states), default=0) for states in self._states_of_texts
        ]

    def _append(self, last: int, token: int) -> int:
        """Extend the text that ends in state ``last``, and return its new last state."""
        new = self._add_state({}, self._length[last] + 1, ROOT)
        state = last
        while state != -1 and token not in self._transitions[state]:
            self._transitions[state][token] = new
            state = self._link[state]
        if state == -1:
            return new
        target = self._transitions[state][token]
        if self._length[target] == self._length[state] + 1:
            self._link[new] = target
            return new
        clone = self._add_state(
            dict(self._transitions[target]), self._length[state] + 1, self._link[target]
        )
        while state != -1 and self._transitions[state].get(token) == target:
            self._transitions[state][token] = clone
            state = self._link[state]
        self._link[target] = self._link[new] = clone
        return new

    def _add_state(self, transitions: dict[int, int], length: int, link: int) -> int:
        self._transitions.append(transitions)
        self._length.append(length)
        self._link.append(link)
        return len(self._transitions) - 1


def longest_matches(texts: Sequence[Sequence[int]], training: TokenSplit) -> list[int]:
    """Length of the longest run of each text that occurs in the training text, in tokens."""
    starts = range(0, len(training), CHUNK_TOKENS)
    chunks = (training.read(at, min(at + CHUNK_TOKENS, len(training))) for at in starts)
    tokens = chain.from_iterable(chunk.tolist() for chunk in chunks)
    return SuffixAutomaton(texts).longest_matches(tokens)


def copied_share(texts: Sequence[Sequence[int]], matches: Sequence[int]) -> float:
    """Share of texts that are copies: one run matches half the text, and at least eight tokens."""
    copies = sum(
        match >= max(COPIED_SHARE * len(text), MIN_COPIED_TOKENS)
        for text, match in zip(texts, matches, strict=True)
    )
    return copies / len(texts)
