"""Count weights, floating point operations and bytes of a model by formula.

Legend: B batch, T context_length, C d_model, H, K, D heads, F d_ff, L n_layer, V vocab_size.
"""

from dataclasses import dataclass

from atlas.model.config import ModelConfig
from atlas.model.layers import GATES, SAVE_OUTPUT_ONLY
from atlas.model.loss import CHUNK, MANY_LOGITS

FLOAT = 4  # bytes
ADAM_MOMENTS = 2


@dataclass(frozen=True)
class Counts:
    """The size of a model."""

    parameters: dict[str, int]  # weights of each part; a tied head counts as 0
    multiplied: int  # weights used in matrix products, including a tied head
    attended: int  # forward operations per token for the attention matrix, at full context

    @property
    def total_parameters(self) -> int:
        """Number of weights."""
        return sum(self.parameters.values())

    @property
    def forward_flops(self) -> int:
        """Operations of a forward pass per token, at full context."""
        return 2 * self.multiplied + self.attended

    @property
    def training_flops(self) -> int:
        """Operations of a forward and a backward pass per token.

        The backward pass costs twice the forward pass (Chowdhery et al. 2022, arXiv:2204.02311,
        appendix B). The masked half of a causal attention matrix is counted, too.
        """
        return 3 * self.forward_flops


def count(config: ModelConfig) -> Counts:
    """Count a model of any kind."""
    match config.kind:
        case "bigram":
            return Counts({"table": config.vocab_size**2}, 0, 0)
        case "two_layer":
            return _two_layer(config)
        case "decoder" | "encoder_decoder":
            return _transformer(config)


def _two_layer(config: ModelConfig) -> Counts:
    hidden = (config.window or 1) * config.d_model * config.d_ff
    output = config.d_ff * config.vocab_size
    parameters = {
        "embedding": config.vocab_size * config.d_model,
        "hidden": hidden + config.d_ff,
        "output": output + config.vocab_size,
    }
    return Counts(parameters, hidden + output, 0)


def _transformer(config: ModelConfig) -> Counts:
    two_sides = config.kind == "encoder_decoder"
    attentions = config.n_layer * (3 if two_sides else 1)  # encoder, decoder, cross
    feed_forwards = config.n_layer * (2 if two_sides else 1)
    final_norms = (0 if config.norm_position == "post" else 1) * (2 if two_sides else 1)
    vocabulary = config.vocab_size * config.d_model
    learned = config.context_length * config.d_model if config.positions == "learned" else 0
    queries, keys = config.query_channels, config.key_channels
    attention = config.d_model * 2 * (queries + keys)  # queries and output, keys and values
    qk_norms = {None: 0, "head": 2 * config.head_size, "all": queries + keys}[config.qk_norm]
    gates = 1 if config.feed_forward in GATES else 0
    feed_forward = (2 + gates) * config.d_model * config.d_ff  # up, down and gate, (F, C) each
    norm = config.d_model * (2 if config.norm == "layernorm" and config.norm_bias else 1)
    attention_biases = queries + 2 * keys if config.qkv_bias else 0
    feed_forward_biases = 0
    if config.linear_bias:
        attention_biases += config.d_model
        feed_forward_biases = (1 + gates) * config.d_ff + config.d_model
    parameters = {
        "embedding": vocabulary,
        "positions": learned,
        "attention": attentions * (attention + attention_biases + qk_norms),
        "feed_forward": feed_forwards * (feed_forward + feed_forward_biases),
        "norms": (attentions + feed_forwards + final_norms) * norm,
        "head": 0 if config.tied_head else vocabulary,
    }
    multiplied = attentions * attention + feed_forwards * feed_forward + vocabulary
    # Scores and averages of values: two products of T x T with the channels of all heads.
    attended = attentions * 4 * config.context_length * queries
    return Counts(parameters, multiplied, attended)


def cache_bytes(config: ModelConfig, batch: int) -> int:
    """Bytes of the keys and values of ``batch`` full contexts in float32."""
    values = 2 * config.n_layer * config.context_length * config.key_channels
    return batch * values * FLOAT


def training_bytes(
    config: ModelConfig,
    batch: int,
    *,
    activation_checkpointing: bool = False,
    moments: int = ADAM_MOMENTS,
) -> dict[str, int]:
    """Bytes needed to train a decoder in float32 on ``batch`` full windows at once.

    Activations are the tensors that the forward pass saves for the backward pass, without dropout
    (counted as by Korthikanti et al. 2022, arXiv:2205.05198, for GPT). Temporary memory inside an
    operation is not counted. With ``activation_checkpointing``, the activations of one block and
    the inputs of all blocks are saved. ``moments`` is the number of optimizer values per weight.
    """
    weights = count(config).total_parameters * FLOAT
    tokens = batch * config.context_length
    saved = _saved_by_token(config)
    if activation_checkpointing:
        one_block = config.model_copy(update={"n_layer": 1})
        saved = _saved_by_token(one_block) + config.n_layer * config.d_model
    if tokens * config.vocab_size <= MANY_LOGITS:
        loss = tokens * config.vocab_size  # probabilities
    else:  # gradients of the head and its input, and a chunk of probabilities
        loss = (config.vocab_size + tokens) * config.d_model + min(
            CHUNK, tokens * config.vocab_size
        )
    kept = tokens * saved + loss + _saved_by_all(config)
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": moments * weights,
        "activations": kept * FLOAT,
    }


def _saved_by_token(config: ModelConfig) -> int:
    """Floats that the forward pass saves per token, without the loss."""
    attention = (
        config.d_model + config.query_channels  # input, and the input of the output matrix
        + config.query_channels + 2 * config.key_channels  # queries, keys, values
        + config.n_head  # log of the sum of each softmax
    )  # fmt: skip
    if config.qk_norm:
        roots = config.n_head + config.n_kv_head if config.qk_norm == "head" else 2
        attention += 2 * (config.query_channels + config.key_channels) + roots
    wide = 1 if config.feed_forward in SAVE_OUTPUT_ONLY else 2  # input and output of an activation
    if config.feed_forward in GATES:
        wide = 4  # and both factors of the gate
    feed_forward = config.d_model + wide * config.d_ff
    # Input, mean and deviation of a LayerNorm; input, output and root of an RMSNorm.
    norm = config.d_model + 2 if config.norm == "layernorm" else 2 * config.d_model + 1
    final_norm = 0 if config.norm_position == "post" else norm
    head_input = config.d_model
    return config.n_layer * (attention + feed_forward + 2 * norm) + final_norm + head_input


def _saved_by_all(config: ModelConfig) -> int:
    """Floats shared by all windows of a batch: angles, or the bias added to the scores."""
    square = config.context_length**2
    if config.positions == "alibi":
        return config.n_head * square
    angles = 2 * config.context_length * config.rotary_channels
    return (angles if config.positions == "rope" else 0) + (square if config.window else 0)
