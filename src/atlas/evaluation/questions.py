"""Questions and their answers: which were wrong, and the hand-made edge cases of arithmetic.

Which token a model takes for which.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from atlas.corpora.arithmetic import DIGITS, EQUALS, OPERATIONS, solve
from atlas.evaluation.samples import in_parts
from atlas.evaluation.scores import Scores, Sums
from atlas.inference.sampling import GREEDY
from atlas.model.language_model import LanguageModel
from atlas.tokens.encoders import SPACE_MARK
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer, visible

MOST_FAILURES = 1000
BEYOND = 4  # tokens that a wrong answer may be longer than the longest right one

# Equal digits, zeros, tens, both ends, odd and even lengths.
EDGE_DIGITS = """
0 0
0 9
9 0
5 5
1 2 1
0 0 0 0 0
9 9 9 9 9
0 7 7 7
1 3 5 7 9
8 6 4 2 0
""".strip().split("\n")
COLUMNS = ("source", "question", "expected", "answered", "probability")


@dataclass(frozen=True)
class Questions:
    """The questions of a split.

    Attributes:
        prompts: ids of each question, its end among them.
        answers: ids of each answer, the end of the text left out.
    """

    prompts: list[list[int]]
    answers: list[list[int]]

    @classmethod
    def of(cls, tokens: TokenSplit) -> "Questions":
        """Cuts each document of a split behind its first separator."""
        separator, eos = tokens.index.separator, tokens.index.eos
        prompts, answers, start = [], [], 0
        for end in tokens.document_ends.tolist():
            ids = tokens.read(start, end).tolist()
            start = end
            cut = ids.index(separator) + 1 if separator in ids else len(ids)
            prompts.append(ids[:cut])
            answers.append([each for each in ids[cut:] if each != eos])
        return cls(prompts, answers)


def failures(
    model: LanguageModel,
    tokenizer: Tokenizer,
    questions: Questions,
    sources: Sequence[str],
    sums: Sums,
) -> pd.DataFrame:
    """A row of each question of a split that was answered wrong, the surest mistakes first.

    Columns are source, question, expected, answered, and the probability of the right answer.
    """
    wrong = np.flatnonzero(~sums.answered)
    chosen = wrong[np.argsort(-sums.nats[wrong], kind="stable")][:MOST_FAILURES].tolist()
    answers = answer(model, tokenizer, [questions.prompts[each] for each in chosen], questions)
    rows = [
        (
            sources[each],
            tokenizer.decode(questions.prompts[each]),
            tokenizer.decode(questions.answers[each]).strip(),
            answered,
            float(np.exp(-sums.nats[each])),
        )
        for each, answered in zip(chosen, answers, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def answer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    like: Questions,
) -> list[str]:
    """What a model answers, greedily, up to a little more than the longest answer of a split."""
    longest = max(map(len, like.answers), default=0) + BEYOND
    written = in_parts(model, prompts, longest, [GREEDY] * len(prompts))
    return [tokenizer.decode(ids).strip() for ids in written]


def is_arithmetic(tokenizer: Tokenizer, separator: int | None, sources: Sequence[str]) -> bool:
    """Whether documents are questions of the arithmetic language, each word of it a token."""
    if tokenizer.encode(EQUALS) != [separator] or not set(sources) <= set(OPERATIONS):
        return False
    ids = [tokenizer.encode(word) for word in (*DIGITS, *set(sources))]
    return all(len(each) == 1 and each[0] != tokenizer.unk for each in ids)


def edge_cases(
    model: LanguageModel,
    tokenizer: Tokenizer,
    operations: Sequence[str],
    training: Questions,
    like: Questions,
) -> pd.DataFrame:
    """Operations of the arithmetic language on digits that were chosen by hand.

    Columns are source (the operation), question, expected, answered, right, and whether the
    training text has the question.
    """
    asked = [(name, f"{name} {digits} {EQUALS}") for name in operations for digits in EDGE_DIGITS]
    prompts = [tokenizer.encode(question) for _, question in asked]
    known = {tuple(each) for each in training.prompts}
    answers = answer(model, tokenizer, prompts, like)
    rows = [
        (operation, question, solve(question), found, found == solve(question), tuple(ids) in known)
        for (operation, question), ids, found in zip(asked, prompts, answers, strict=True)
    ]
    columns = ["source", "question", "expected", "answered", "right", "seen"]
    return pd.DataFrame(rows, columns=columns)


MOST_ANSWERS = 100  # tokens that answers begin with
MOST_TOKENS = 20  # of other text, the most frequent ones
OTHER, REST = "other", -1


def confusion_table(scores: Scores, tokenizer: Tokenizer, *, questions: bool) -> pd.DataFrame:
    """A row of each pair that occurs: actual, predicted, count, and share of all of the actual.

    Of text the most frequent tokens, all others as one. Ends of texts are left out, as they would
    be right in every answer.
    """
    asked = scores.targets != tokenizer.eos
    actual, predicted = scores.targets[asked], scores.predicted[asked]
    tokens, counts = np.unique(actual, return_counts=True)
    most = MOST_ANSWERS if questions else MOST_TOKENS
    kept = np.sort(tokens[np.argsort(-counts, kind="stable")[:most]])
    names = _names(tokenizer, kept.tolist(), questions)
    frequent = np.isin(actual, kept)
    taken_for = np.where(np.isin(predicted, kept), predicted, REST)
    pairs = np.stack([actual[frequent], taken_for[frequent]])
    (first, second), times = np.unique(pairs, axis=1, return_counts=True)
    table = pd.DataFrame({"actual": first, "predicted": second, "count": times})
    for column in ("actual", "predicted"):
        table[column] = table[column].map(names)
    order = {name: place for place, name in enumerate(_in_order(list(names.values())))}
    table = table.sort_values(
        ["actual", "predicted"], key=lambda column: column.map(order), ignore_index=True
    )
    table["share"] = table["count"] / table.groupby("actual")["count"].transform("sum")
    return table


def _names(tokenizer: Tokenizer, ids: list[int], questions: bool) -> dict[int, str]:
    """Names that differ: the pieces, and one for the rest.

    Of answers without the blank that divides them from their question, if that says nothing.
    """
    pieces = [visible(tokenizer.piece(each)) for each in ids]
    if questions:
        bare = [piece.strip(visible(SPACE_MARK)) or piece for piece in pieces]
        pieces = [
            name if bare.count(name) == 1 else piece
            for name, piece in zip(bare, pieces, strict=True)
        ]
    rest = OTHER if OTHER not in pieces else f"{OTHER} tokens"
    return dict(zip(ids, pieces, strict=True)) | {REST: rest}


def _in_order(names: list[str]) -> list[str]:
    """Numbers by their value, then the rest as it is."""
    return sorted(names, key=lambda name: (0, int(name)) if name.isdecimal() else (1, 0))
