"""Loss, perplexity and bits per byte over a whole split."""

import math

from atlas.model.language_model import LanguageModel
from atlas.tokens.windows import EvaluationWindows
from atlas.training.steps.loss import total_loss


def evaluate_split(model: LanguageModel, windows: EvaluationWindows) -> dict[str, float | int]:
    """Measures how well a model predicts each token of a split.

    Windows lie side by side, so a token has between 0 and T - 1 tokens before it. Bits per
    byte do not depend on the tokenizer: all that was spent on the tokens, ends of documents
    included, over the size of the text in UTF-8.
    """
    total, tokens = total_loss(model, windows.all())
    measured = {"loss": total / tokens, "perplexity": math.exp(total / tokens), "tokens": tokens}
    if windows.tokens.index.separator is None:  # else the questions were not paid for
        measured["bits_per_byte"] = total / math.log(2) / windows.tokens.bytes
    return measured
