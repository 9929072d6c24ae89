"""Questions with answers: wrong answers, and hand-made edge cases of the arithmetic language."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from atlas.corpora.arithmetic import DIGITS, EQUALS, OPERATIONS, solve
from atlas.evaluation.evaluator import Evaluator, Questions
from atlas.evaluation.samples import generate_in_batches
from atlas.evaluation.scores import DocumentScores, Metrics, Scores
from atlas.evaluation.tables import write_table
from atlas.inference.sampling import GREEDY
from atlas.model.language_model import LanguageModel
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
    model, tokenizer = evaluator.model, evaluator.tokenizer
    questions = evaluator.questions(evaluator.table_split)
    sources = evaluator.sources(evaluator.table_split)
    sums = DocumentScores.from_scores(scores, evaluator.splits[evaluator.table_split])
    write_table(failure_table(model, tokenizer, questions, sources, sums), folder, "failures")
    if not is_arithmetic(tokenizer, model.config.separator, sources):
        return {}
    training = evaluator.questions("train")
    cases = edge_case_table(model, tokenizer, sorted(set(sources)), training, questions)
    write_table(cases, folder, "edge_cases")
    return {"edge_case_accuracy": float(cases["right"].mean())}


def failure_table(
    model: LanguageModel,
    tokenizer: Tokenizer,
    questions: Questions,
    sources: Sequence[str],
    sums: DocumentScores,
) -> pd.DataFrame:
    """List the questions of a split that were answered wrong, the most confident mistakes first.

    Returns:
        Columns source, question, expected, answered, and probability (of the correct answer).
    """
    wrong = np.flatnonzero(~sums.all_correct)
    chosen = wrong[np.argsort(-sums.nats[wrong], kind="stable")][:MAX_FAILURES].tolist()
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
    columns = ["source", "question", "expected", "answered", "probability"]
    return pd.DataFrame(rows, columns=columns)


def answer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    questions: Questions,
) -> list[str]:
    """Answer prompts greedily; the longest answer in ``questions`` limits the length."""
    max_tokens = max(map(len, questions.answers), default=0) + EXTRA_TOKENS
    answers = generate_in_batches(model, prompts, max_tokens, [GREEDY] * len(prompts))
    return [tokenizer.decode(ids).strip() for ids in answers]


def is_arithmetic(tokenizer: Tokenizer, separator: int | None, sources: Sequence[str]) -> bool:
    """Check that documents are questions of the arithmetic language, each word one token."""
    if tokenizer.encode(EQUALS) != [separator] or not set(sources) <= set(OPERATIONS):
        return False
    ids = [tokenizer.encode(word) for word in (*DIGITS, *set(sources))]
    return all(len(each) == 1 and each[0] != tokenizer.unk for each in ids)


def edge_case_table(
    model: LanguageModel,
    tokenizer: Tokenizer,
    operations: Sequence[str],
    training: Questions,
    questions: Questions,
) -> pd.DataFrame:
    """Test operations of the arithmetic language on the digits of ``EDGE_DIGITS``.

    Returns:
        Columns source (the operation), question, expected, answered, right, and seen (the question
        is in the training text).
    """
    cases = [(name, f"{name} {digits} {EQUALS}") for name in operations for digits in EDGE_DIGITS]
    prompts = [tokenizer.encode(question) for _, question in cases]
    known = {tuple(each) for each in training.prompts}
    answers = answer(model, tokenizer, prompts, questions)
    rows = [
        (operation, question, solve(question), found, found == solve(question), tuple(ids) in known)
        for (operation, question), ids, found in zip(cases, prompts, answers, strict=True)
    ]
    columns = ["source", "question", "expected", "answered", "right", "seen"]
    return pd.DataFrame(rows, columns=columns)
