"""Configuration of a model: its options in params.yaml, and its tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from atlas.errors import AtlasError, one_line
from atlas.params.schema import ModelParams
from atlas.pipeline.files import write_json

FILE = "config.json"


class ModelConfig(ModelParams):
    """The section ``model`` of params.yaml, and the ids and hash of the tokenizer."""

    vocab_size: int
    bos: int  # begins generation
    eos: int  # ends a document
    end_ids: tuple[int, ...]  # each ends generation; ``eos`` is one of them
    sequence_length: int  # tokens of a window in training, at most ``context_length``
    separator: int | None  # ends the question of a document; None for plain text
    add_bos_token: bool  # every text starts with ``bos``, as in training with padded windows
    tokenizer_sha256: str  # of the model file
    learned_tokens: int  # tokens at the start of the training text that were trained on
    is_chat: bool = False  # it has learned the chat template of its tokenizer

    @property
    def head_size(self) -> int:
        """Channels of one head, D."""
        return self.d_head or self.d_model // self.n_head

    @property
    def rotary_channels(self) -> int:
        """Channels of a head that RoPE rotates, R."""
        return round(self.rotary_share * self.head_size)

    @property
    def query_channels(self) -> int:
        """Channels of all queries, H * D."""
        return self.n_head * self.head_size

    @property
    def key_channels(self) -> int:
        """Channels of all keys (or all values), K * D."""
        return self.n_kv_head * self.head_size

    @property
    def qkv_bias(self) -> bool:
        """True if the projections to queries, keys and values have biases."""
        return self.bias in (True, "qkv", "qkv_norm")

    @property
    def norm_bias(self) -> bool:
        """True if LayerNorm has biases."""
        return self.bias in (True, "norm", "qkv_norm")

    @property
    def linear_bias(self) -> bool:
        """True if the output of attention and the feed-forward layer have biases."""
        return self.bias is True

    def rotates(self, block: int) -> bool:
        """Return True if RoPE applies in a block, counted from 0."""
        return self.no_rope_every is None or (block + 1) % self.no_rope_every != 0

    def with_bos(self, ids: Sequence[int]) -> list[int]:
        """Prepend ``bos`` if the model expects it or if there are no ids."""
        return [self.bos, *ids] if self.add_bos_token or not ids else list(ids)

    def write(self, folder: Path) -> None:
        """Write config.json."""
        write_json(folder / FILE, self.model_dump())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read config.json."""
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AtlasError(f"{path}: no such file; `dvc repro` creates it") from None
        except (OSError, ValueError) as error:
            raise AtlasError(
                f"{path}: not a model of this version ({one_line(error)[:120]}); "
                "`dvc repro -f train` recreates it"
            ) from None


def check_tokenizer(
    config: ModelConfig, tokenizer_sha256: str, made_with: str, model: str = "models/model"
) -> None:
    """Check that ``made_with``, a tokenizer or its output, matches the tokenizer of the model."""
    if config.tokenizer_sha256 != tokenizer_sha256:
        raise AtlasError(
            f"{made_with}: not the tokenizer that {model} was trained with; "
            "`dvc repro` rebuilds both"
        )
