"""Loss, perplexity and bits per byte over a whole split."""

import math

from atlas.evaluation.scores import Scores
from atlas.tokens.pairs import Pairs
from atlas.tokens.split import TokenSplit
from atlas.training.steps.loss import perplexity

Numbers = dict[str, float | int]


def measures(total: float, predicted: int, tokens: TokenSplit) -> Numbers:
    """Loss (nats a token), perplexity and bits per byte.

    Bits per byte do not depend on the tokenizer: all that was spent on the tokens, ends of
    documents included, over the size of the text in UTF-8. Of questions there are none, as these
    were not paid for.

    Args:
        total: sum of the losses, nats.
        predicted: tokens that they are of.
        tokens: the split.
    """
    found: Numbers = {"loss": total / predicted, "perplexity": perplexity(total / predicted)}
    if tokens.index.separator is None:
        found["bits_per_byte"] = bits_per_byte(total, tokens.bytes)
    return found


def bits_per_byte(nats: float, size: int) -> float:
    """Bits that were spent on a text, over its bytes."""
    return nats / math.log(2) / size


def baseline_measures(scores: Scores, pairs: Pairs, tokens: TokenSplit) -> Numbers:
    """The same of two models that only count: every token by itself, and after the one before."""
    found: Numbers = {}
    for name, losses in (
        ("unigram", pairs.unigram_losses(scores.targets)),
        ("bigram", pairs.bigram_losses(scores.before, scores.targets)),
    ):
        by_name = measures(float(losses.sum()), len(scores), tokens)
        found |= {f"{name}_{key}": value for key, value in by_name.items()}
    return found
