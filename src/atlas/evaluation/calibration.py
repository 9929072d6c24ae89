"""Whether a model is as often right as it is sure (Guo et al. 2017, arXiv:1706.04599)."""

import numpy as np
import pandas as pd

from atlas.evaluation.scores import Scores

BINS = 10


def calibration_table(scores: Scores) -> pd.DataFrame:
    """A row of each tenth of confidence: mean confidence, accuracy, tokens; without empty ones."""
    tenth = np.minimum((scores.confidences * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"confidence": scores.confidences, "accuracy": scores.right})
    grouped = table.astype(np.float64).groupby(tenth)
    means = grouped.mean()
    means["tokens"] = grouped.size()
    return means.reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, over all tokens.

    0 is a model whose probabilities can be believed.
    """
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["tokens"]).sum() / table["tokens"].sum())
