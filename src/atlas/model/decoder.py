"""The decoder: each token is predicted from itself and the tokens before it.

One class covers the whole family, from the GPT-2 shape (learned positions, LayerNorm, GELU, tied
head) over the Llama shape (RoPE, RMSNorm, SwiGLU, grouped-query heads) to all that lies between.
"""

from torch import Tensor, nn

from atlas.model.block import Block
from atlas.model.cache import KVCache
from atlas.model.config import ModelConfig
from atlas.model.language_model import check_ids
from atlas.model.transformer import Transformer
from atlas.model.visibility import Places


class Decoder(Transformer):
    """A decoder-only transformer. Its weights are those of ``initialise`` or of a file."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the token after each of ``ids`` (B, T).

        Args:
            ids: of texts below each other; with a cache, of what is new in them.
            mask: which of them are tokens, (B, T), with a cache all but some on the right; None
                if all are, or, without a cache, all but some on the right.
            cache: of what came before; it learns these.
            weights: receives the attention weights of each block, (B, H, T, S).

        Raises:
            ValueError: what ``check_ids`` refuses.
        """
        check_ids(self.config, ids, mask, cache.longest if cache is not None else 0)
        if cache is not None:
            places = cache.remember(ids, mask)
        elif mask is not None:
            places = Places.of_masked(mask)
        else:
            places = Places.of_whole(ids.shape[1], ids.device)
        x = self.embed(ids, places.queries)  # (B, T, C)
        metadata = self.attention_metadata(places, causal=True, weights=weights)
        for number, block in enumerate(self.blocks):
            x = block(x, metadata, cache.layers[number] if cache is not None else None)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits
