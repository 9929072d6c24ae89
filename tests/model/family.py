"""Decoders with any options, and weights that look trained."""

from typing import Any, get_args

import torch
from hypothesis import strategies as st

from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, make_model
from atlas.params.schema import ModelParams
from tests.small import small_config

POSITIONS = ["rope", "learned", "sinusoidal", "alibi", "none"]
FEED_FORWARDS = get_args(ModelParams.model_fields["feed_forward"].annotation)
PLACES = ["pre", "post", "reordered"]
V, T = 60, 16
SHAPE = {"d_model": 24, "n_layer": 2, "n_head": 4, "d_ff": 20, "context_length": T, "vocab_size": V}

SCALINGS: list[dict[str, Any]] = [
    {},
    {"rope_scaling": 2.0},
    {"rope_scaling": 8.0, "rope_scaling_kind": "llama3", "rope_scaling_context": 12},
    {"rope_scaling": 4.0, "rope_scaling_kind": "yarn", "rope_scaling_context": 12},
]
LAYERNORM = {"norm": "layernorm"}


def with_rope(options: dict[str, Any]) -> dict[str, Any]:
    """Move the options of RoPE out of ``rope``, or drop them for other positions."""
    rope = options.pop("rope")
    if options["positions"] != "rope":
        return options
    share = rope["rotary_channels"] / (options["d_head"] or SHAPE["d_model"] // SHAPE["n_head"])
    return {**options, **rope["scaling"], "no_rope_every": rope["every"], "rotary_share": share}


OPTIONS = st.fixed_dictionaries(
    {
        "positions": st.sampled_from(["rope", *POSITIONS]),
        "rope": st.fixed_dictionaries(
            {
                "scaling": st.sampled_from(SCALINGS),
                "every": st.sampled_from([None, 2]),
                "rotary_channels": st.sampled_from([2, 6]),
            }
        ),
        "d_head": st.sampled_from([None, 6, 10]),
        "norm": st.sampled_from(["rmsnorm", "layernorm"]),
        "norm_position": st.sampled_from(PLACES),
        "feed_forward": st.sampled_from(FEED_FORWARDS),
        "qk_norm": st.sampled_from([None, "head", "all"]),
        "n_kv_head": st.sampled_from([1, 2, 4]),
        "window": st.sampled_from([None, None, 3]),
        "bias": st.sampled_from([False, True, "qkv", "norm", "qkv_norm"]),
        "tied_head": st.booleans(),
    }
).map(with_rope)

# Every value of every option at least once, for what is too slow for hypothesis.
GRID: list[dict[str, Any]] = [
    {"positions": position, "bias": bool(number % 2), "norm": ("rmsnorm", "layernorm")[number % 2]}
    for number, position in enumerate(POSITIONS)
]
GRID += [
    {"feed_forward": name, "bias": bool(number % 2), "tied_head": number % 3 == 0}
    for number, name in enumerate(FEED_FORWARDS)
]
GRID += [
    {"norm_position": place, "norm": norm, "qk_norm": qk_norm, "n_kv_head": n_kv_head}
    for place, norm, qk_norm, n_kv_head in (
        ("pre", "rmsnorm", "head", 1),
        ("pre", "layernorm", "all", 2),
        ("post", "layernorm", None, 4),
        ("post", "rmsnorm", "head", 2),
        ("reordered", "rmsnorm", "all", 4),
        ("reordered", "layernorm", None, 1),
    )
]
GRID += [
    {"d_head": 10, "bias": "qkv"},
    {"d_head": 4, "bias": "qkv", **SCALINGS[2]},
    {"rotary_share": 1 / 3, "bias": "norm", **LAYERNORM, **SCALINGS[3]},
    {"no_rope_every": 2, "bias": "qkv_norm", **LAYERNORM, "qk_norm": "head", "d_head": 12},
]
GRID += [{"window": 3, "positions": "alibi"}, {"window": 5, "rope_theta": 100.0, "bias": True}]


def config_of(**options: Any) -> ModelConfig:
    """Return the config of a model with a few thousand weights."""
    return small_config(**(SHAPE | {"n_kv_head": 2} | options))


def trained(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Return a model in eval mode without weights that are 0 or 1 by design."""
    model = make_model(config)
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model.eval()


def decoder(**options: Any) -> Decoder:
    """Return a decoder that looks trained."""
    model = trained(config_of(**options))
    assert isinstance(model, Decoder)
    return model


def ids_of(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return random ids (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, V, (rows, length), generator=generator)
