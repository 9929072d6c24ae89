"""Questions with answers: wrong answers, and hand-made edge cases of the arithmetic language."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from atlas.corpora.arithmetic import DIGITS, EQUALS, OPERATIONS, solve
from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.samples import generate_in_batches
from atlas.evaluation.scores import Metrics, Scores, document_scores
from atlas.evaluation.tables import write_table
from atlas.inference.sampling import GREEDY
from atlas.tokens.tokenizer import Tokenizer

MAX_FAILURES = 1000
EXTRA_TOKENS = 4  # a wrong answer may be this much longer than the longest correct one

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


def write_question_tables(evaluator: Evaluator, scores: Scores, folder: Path) -> Metrics:
    """Write failures, and edge cases of the arithmetic language; nothing for plain text.

    The scores are those of ``evaluator.table_split``.
    """
    if not evaluator.has_questions:
        return {}
    write_table(failure_table(evaluator, scores), folder, "failures")
    sources = evaluator.sources(evaluator.table_split)
    if not is_arithmetic(evaluator.tokenizer, evaluator.model.config.separator, sources):
        return {}
    cases = edge_case_table(evaluator, sorted(set(sources)))
    write_table(cases, folder, "edge_cases")
    return {"edge_case_accuracy": float(cases["right"].mean())}


def failure_table(evaluator: Evaluator, scores: Scores) -> pd.DataFrame:
    """List the questions of a split that were answered wrong, the most confident mistakes first.

    Returns:
        Columns source, question, expected, answered, and probability (of the correct answer).
    """
    split, decode = evaluator.table_split, evaluator.tokenizer.decode
    questions, sources = evaluator.questions(split), evaluator.sources(split)
    sums = document_scores(scores, evaluator.splits[split])
    wrong = sums[~sums["all_correct"]].sort_values("nats", ascending=False, kind="stable")
    chosen = wrong.index[:MAX_FAILURES].tolist()
    return pd.DataFrame(
        {
            "source": [sources[each] for each in chosen],
            "question": [decode(questions.prompts[each]) for each in chosen],
            "expected": [decode(questions.answers[each]).strip() for each in chosen],
            "answered": answer(evaluator, [questions.prompts[each] for each in chosen]),
            "probability": np.exp(-sums["nats"][chosen]).to_numpy(),
        }
    )


def answer(evaluator: Evaluator, prompts: Sequence[list[int]]) -> list[str]:
    """Answer prompts greedily; the longest answer of the table split limits the length."""
    longest = max(map(len, evaluator.questions(evaluator.table_split).answers), default=0)
    samplings = [GREEDY] * len(prompts)
    answers = generate_in_batches(evaluator.model, prompts, longest + EXTRA_TOKENS, samplings)
    return [evaluator.tokenizer.decode(ids).strip() for ids in answers]


def is_arithmetic(tokenizer: Tokenizer, separator: int | None, sources: Sequence[str]) -> bool:
    """Check that documents are questions of the arithmetic language, each word one token."""
    if tokenizer.encode(EQUALS) != [separator] or not set(sources) <= set(OPERATIONS):
        return False
    ids = [tokenizer.encode(word) for word in (*DIGITS, *set(sources))]
    return all(len(each) == 1 and each[0] != tokenizer.unk for each in ids)


def edge_case_table(evaluator: Evaluator, operations: Sequence[str]) -> pd.DataFrame:
    """Test operations of the arithmetic language on the digits of ``EDGE_DIGITS``.

    Returns:
        Columns source (the operation), question, expected, answered, right, and seen (the question
        is in the training text).
    """
    cases = [(name, f"{name} {digits} {EQUALS}") for name in operations for digits in EDGE_DIGITS]
    table = pd.DataFrame(cases, columns=["source", "question"])
    table["expected"] = table["question"].map(solve)
    prompts = [evaluator.tokenizer.encode(question) for question in table["question"]]
    table["answered"] = answer(evaluator, prompts)
    table["right"] = table["answered"] == table["expected"]
    known = {tuple(ids) for ids in evaluator.questions("train").prompts}
    table["seen"] = [tuple(ids) in known for ids in prompts]
    return table
