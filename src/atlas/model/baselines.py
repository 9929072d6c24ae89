"""Baselines: bigram counts, and a network without attention."""

import torch
from torch import Tensor, nn

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel, check_ids

MAX_PIECES = 16_384  # a table of 1 GB, and four times that during counting


class Bigram(LanguageModel):
    """Predict the next token from the current one only (Shannon 1948).

    Its table of log-probabilities is counted, not trained: see ``atlas.training.trainer``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.vocab_size > MAX_PIECES:
            raise AtlasError(
                f"model.kind is bigram, and the vocabulary has {config.vocab_size} pieces; its "
                f"table is as wide and high: set tokenizer.vocab_size to {MAX_PIECES} or less"
            )
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it."""
        check_ids(self.config, ids, mask)
        logits: Tensor = self.table(ids)
        return logits


class TwoLayerNetwork(LanguageModel):
    """Two layers on the concatenated embeddings of the last ``window`` tokens.

    The neural language model of Bengio et al. 2003 (JMLR 3, 1137-1155), without the direct
    connections from input to output::

        tokens (B, T) -> embeddings (B, T, window * C) -> tanh (B, T, F) -> logits (B, T, V)

    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear((config.window or 1) * config.d_model, config.d_ff)
        self.output = nn.Linear(config.d_ff, config.vocab_size)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        Positions before the first token and in the padding have zero embeddings.
        """
        check_ids(self.config, ids, mask)
        x: Tensor = self.dropout(self.embedding(ids))  # (B, T, C)
        if mask is not None:
            x = x * mask[:, :, None]
        window, width = self.config.window or 1, ids.shape[1]
        x = nn.functional.pad(x, (0, 0, window - 1, 0))  # (B, window - 1 + T, C)
        shifted = [x[:, back : back + width] for back in range(window)]
        hidden = torch.tanh(self.hidden(torch.cat(shifted, dim=-1)))  # (B, T, F)
        logits: Tensor = self.output(hidden)  # (B, T, V)
        return logits
