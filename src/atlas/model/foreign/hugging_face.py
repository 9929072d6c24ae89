"""Hugging Face folders: config.json and tensors, to and from ours.

A key of config.json that asks for something our models lack is refused by name, and so is an
unknown key that may change the computation. Missing keys have the values that transformers takes.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atlas.errors import AtlasError, one_line
from atlas.model.config import ModelConfig
from atlas.model.foreign.config_keys import ConfigKeys, model_params
from atlas.model.foreign.tensors import (
    FEED_FORWARD,
    ForeignWeights,
    Shape,
    TensorConverter,
    check_size,
    config_of,
    stored_shapes,
)
from atlas.model.layers import GATES
from atlas.model.masks import ROTATIONS
from atlas.params.runtime_support import CLASSES, NO_ROTATION, HuggingFaceClass, rope_scaling
from atlas.params.schema import ROPE_OFF

CONFIG_FILE, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TANH = "gelu_pytorch_tanh"
ACTIVATIONS = {"swiglu": "silu", "geglu": TANH, "gelu": TANH}  # the others have the same name
PLAIN_OF = {  # transformers' names of plain activations, and of the same as a gate
    "silu": "silu",
    "swish": "silu",
    TANH: "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}
GATED_OF = {"silu": "swiglu", "gelu": "geglu"}

FULL, SLIDING = "full_attention", "sliding_attention"
EMBEDDING = ("model.embed_tokens", "transformer.wte")
NOTHING = re.compile(r"(?!)")
UNUSED_BY_GPT2 = ROPE_OFF | {"rope_theta": 10_000.0, "d_head": None}
# Values that transformers takes for missing keys.
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {
        "hidden_act": "silu",
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32_768,
    },
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131_072,
    },
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "smollm3": {
        "num_key_value_heads": 4,
        "rope_theta": 2_000_000.0,
        "tie_word_embeddings": True,
    },
    "olmo2": {"rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    "gemma": {
        "num_key_value_heads": 16,
        "head_dim": 256,
        "hidden_act": TANH,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
    "gpt2": {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "starcoder2": {
        "norm_epsilon": 1e-5,
        "num_key_value_heads": 2,
        "hidden_act": TANH,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    },
    "stablelm": {
        "layer_norm_eps": 1e-5,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
}
HARMLESS = re.compile(
    # names and versions
    r"_.*|architectures|model_type|name_or_path|transformers_version|transformers\.js_config"
    r"|(torch_)?dtype|torchscript|use_bfloat16|library_name|unsloth_.*|is_llama_config"
    # training and generation
    r"|.*dropout.*|.*_pdrop|initializer_range|init_.*|use_cache|gradient_checkpointing|seq_length"
    r"|output_\w+|return_dict.*|temperature|top_[kp]|typical_p|do_sample|.*_penalty|num_beam.*"
    r"|max_(new_tokens|length)|min_length|no_repeat_ngram_size|bad_words_ids|early_stopping"
    r"|remove_invalid_values|encoder_no_repeat_ngram_size|exponential_decay_length_penalty"
    r"|num_return_sequences|diversity_penalty|suppress_tokens|begin_suppress_tokens"
    r"|.*_attention_heads_to_prune|use_flash_attn.*|attn_implementation|reorder_and_upcast_attn"
    # tokens and tasks
    r"|\w+_token_ids?|vocab_size|tokenizer_class|prefix|id2label|label2id|num_labels|problem_type"
    r"|task_specific_params|finetuning_task|summary_\w+|tie_encoder_decoder|n_ctx|model_max_length"
    r"|chunk_size_feed_forward|.*_tensor_parallel.*"
)
UNUSED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.attn\.(masked_)?bias")  # buffers of old versions


def model_settings(config: ModelConfig, kind: HuggingFaceClass) -> dict[str, Any]:
    """config.json: the class and its hyperparameters."""
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        **(_gpt2_shape(config) if kind.model_type == "gpt2" else _rotary_shape(config, kind)),
    }


def _gpt2_shape(config: ModelConfig) -> dict[str, Any]:
    """Hyperparameters under GPT-2's own names; it has no grouped key heads."""
    return {
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.d_ff,
        "activation_function": ACTIVATIONS.get(config.feed_forward, config.feed_forward),
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }


def _rotary_shape(config: ModelConfig, kind: HuggingFaceClass) -> dict[str, Any]:
    """Hyperparameters that Llama-like classes share, and those specific to the class."""
    shape: dict[str, Any] = {
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_length,
        "hidden_act": ACTIVATIONS.get(config.feed_forward, config.feed_forward),
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_settings(config),
        "attention_dropout": 0.0,
    }
    match kind.model_type:
        case "starcoder2":
            shape |= {"norm_epsilon": config.norm_eps, "use_bias": config.qkv_bias}
            shape |= {"residual_dropout": 0.0, "embedding_dropout": 0.0}
        case "stablelm":
            share = config.rotary_channels / config.head_size
            if int(share * config.head_size) < config.rotary_channels:  # transformers rounds down
                share = math.nextafter(share, 1)
            shape |= {"layer_norm_eps": config.norm_eps, "partial_rotary_factor": share}
            shape |= {"use_qkv_bias": config.qkv_bias, "hidden_dropout": 0.0}
        case _:
            shape["rms_norm_eps"] = config.norm_eps
            has_bias = config.qkv_bias if kind.model_type == "llama" else config.linear_bias
            shape["attention_bias"] = has_bias
    match kind.model_type:
        case "llama" | "smollm3":
            shape["mlp_bias"] = config.linear_bias or config.feed_forward not in GATES
        case "mistral" | "starcoder2":
            shape["sliding_window"] = config.window
        case "qwen2" | "qwen3":
            shape |= {"use_sliding_window": config.window is not None, "max_window_layers": 0}
            shape["sliding_window"] = config.window
        case "gemma":
            shape["hidden_activation"] = TANH
    if kind.model_type == "smollm3":
        shape["no_rope_layers"] = [int(config.rotates(block)) for block in range(config.n_layer)]
        shape["no_rope_layer_interval"] = config.no_rope_every
        shape["use_sliding_window"] = False
    return shape


def _rope_settings(config: ModelConfig) -> dict[str, Any] | None:
    """The scaling of RoPE, under the names of old and new versions of transformers."""
    factor, kind = rope_scaling(config.model_dump()), config.rope_scaling_kind
    if factor == 1:
        return None
    settings: dict[str, Any] = {"rope_type": kind, "type": kind, "factor": factor}
    if kind == "linear":
        return settings
    low, high = config.rope_scaling_rotations or ROTATIONS[kind]
    settings["original_max_position_embeddings"] = config.rope_scaling_context
    if kind == "llama3":
        return settings | {"low_freq_factor": low, "high_freq_factor": high}
    return settings | {"beta_slow": low, "beta_fast": high}


def open_folder(folder: Path) -> ForeignWeights:
    """Read config.json and the names of all tensors."""
    path = folder / CONFIG_FILE
    values = _read_json(path)
    if values.get("auto_map"):
        raise AtlasError(f"{path}: auto_map asks for code of its own, which Atlas never runs")
    if method := values.get("quantization_config"):
        name = method.get("quant_method") if isinstance(method, dict) else method
        raise AtlasError(
            f"{path}: quantization_config: the weights are quantized ({name}); "
            "import the original model, or a GGUF file of it"
        )
    kind = class_named(values, path)
    files = SafetensorsFiles(folder, "transformer" if kind.model_type == "gpt2" else "model")
    keys = ConfigKeys(values, path, defaults=DEFAULTS[""] | DEFAULTS[kind.model_type])
    read = _gpt2_options if kind.model_type == "gpt2" else _rotary_options
    options, without_bias = read(keys, kind, files)
    options |= {"kind": "decoder", "dropout": 0.0, "tied_head": keys.flag("tie_word_embeddings")}
    params = model_params(options, path)
    ignored = tuple(keys.ignored(HARMLESS))
    rows = (*files.shapes.get(f"{EMBEDDING[kind.model_type == 'gpt2']}.weight", ()), 1)[0]
    check_size(params, rows, files.shapes, str(folder))

    def converter(config: ModelConfig) -> TensorConverter:
        return TensorConverter.for_hugging_face(config, stored_shapes(config), kind)

    whole = converter(config_of(params, rows))
    whole.check(files.shapes, str(folder), UNUSED, without_bias)
    if params.tied_head:
        files.check_copy(f"{whole.top[3]}.weight", f"{whole.top[0]}.weight", path)
    dtype = files.dtype if whole.is_exact else torch.float32
    return ForeignWeights(
        folder,
        kind.name,
        params,
        rows,
        ignored,
        dtype,
        converter,
        files.shapes,
        files.read,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such file; pass a folder that transformers loads") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AtlasError(f"{path}: cannot be read ({one_line(error)[:120]})") from None
    if not isinstance(values, dict):
        raise AtlasError(f"{path}: not a JSON object")
    return values


def class_named(values: Mapping[str, Any], path: Path) -> HuggingFaceClass:
    """The class that a config.json names."""
    by_name = {row.name: row for row in CLASSES}
    by_type = {row.model_type: row for row in CLASSES}
    names = values.get("architectures")
    name = names[0] if isinstance(names, list) and names else values.get("model_type")
    row = by_name.get(str(name)) or (by_type.get(str(name)) if not names else None)
    if row is None:
        raise AtlasError(
            f"{path}: architectures is {str(name)[:80]}, which Atlas has no model for; it imports "
            f"{', '.join(sorted(by_name))}"
        )
    return row


def _gpt2_options(
    keys: ConfigKeys, _kind: HuggingFaceClass, _files: "SafetensorsFiles"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our options for GPT-2; all its modules have biases."""
    keys.only("scale_attn_weights", True)
    keys.only("scale_attn_by_inverse_layer_idx", False)
    keys.only("add_cross_attention", False)
    width, heads = keys.number("n_embd"), keys.number("n_head")
    if width % heads:
        keys.refuse("n_head", f"it must divide n_embd, {width}")
    return UNUSED_BY_GPT2 | {
        "d_model": width,
        "n_layer": keys.number("n_layer"),
        "n_head": heads,
        "n_kv_head": heads,
        "d_ff": keys.number("n_inner", 4 * width),
        "context_length": keys.number("n_positions"),
        "positions": "learned",
        "norm": "layernorm",
        "norm_position": "pre",
        "norm_eps": keys.real("layer_norm_epsilon"),
        "feed_forward": _activation(keys, "activation_function"),
        "qk_norm": None,
        "bias": True,
        "window": None,
    }, ()


def _rotary_options(
    keys: ConfigKeys, kind: HuggingFaceClass, files: "SafetensorsFiles"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our options for Llama and the classes like it, and the modules that have no bias."""
    width, heads = keys.number("hidden_size"), keys.number("num_attention_heads")
    context = keys.number("max_position_embeddings")
    layers = keys.number("num_hidden_layers")
    size = max(1, width // heads)
    if kind.model_type == "stablelm":
        keys.only("head_dim", size)
        keys.only("qk_layernorm", False)
        keys.only("use_parallel_residual", False)
    else:
        size = keys.number("head_dim", size)
    key_heads = keys.number("num_key_value_heads", heads)
    if heads % key_heads:
        keys.refuse("num_key_value_heads", f"it must divide num_attention_heads, {heads}")
    if kind.model_type == "gemma":
        keys.only("use_bidirectional_attention", None, False)
    epsilon = {"starcoder2": "norm_epsilon", "stablelm": "layer_norm_eps"}
    bias, without_bias = _bias(keys, kind, files)
    options = {
        "d_model": width,
        "n_layer": layers,
        "n_head": heads,
        "n_kv_head": key_heads,
        "d_head": None if size * heads == width else size,
        "d_ff": keys.number("intermediate_size"),
        "context_length": context,
        "norm": "layernorm" if kind.model_type in epsilon else "rmsnorm",
        "norm_position": kind.allowed["norm_position"][0],
        "norm_eps": keys.real(epsilon.get(kind.model_type, "rms_norm_eps")),
        "feed_forward": _feed_forward(keys, kind, files),
        "qk_norm": kind.allowed["qk_norm"][0],
        "bias": bias,
        "window": _window(keys, kind, context, layers),
        **_rope_options(keys, kind, context, size),
    }
    if kind.model_type == "smollm3":
        options["no_rope_every"] = _no_rope_every(keys, layers)
    if options["no_rope_every"] == 1:  # no block has positions
        options |= ROPE_OFF | {"positions": "none"}
    return options, without_bias


def _bias(
    keys: ConfigKeys, kind: HuggingFaceClass, files: "SafetensorsFiles"
) -> tuple[bool | str, tuple[str, ...]]:
    """Our kind of biases, and the modules that lack them nevertheless."""
    attention = ("attention.query", "attention.key", "attention.value", "attention.output")
    match kind.model_type:
        case "llama" | "smollm3":
            of_attention = keys.flag("attention_bias", default=False)
            of_feed_forward = keys.flag("mlp_bias", default=False)
            output = [name for name in files.shapes if name.endswith("self_attn.o_proj.bias")]
            is_qkv = kind.model_type == "llama" and of_attention and not of_feed_forward
            if is_qkv and not any(files.read(name).any() for name in output):
                return "qkv", ()
            without: tuple[str, ...] = () if of_attention else attention
            without += () if of_feed_forward else FEED_FORWARD
            return of_attention or of_feed_forward, without
        case "starcoder2":
            has_bias = keys.flag("use_bias", default=True)
            return (True, ()) if has_bias else ("norm", ())
        case "stablelm":
            return "qkv_norm" if keys.flag("use_qkv_bias", default=False) else "norm", ()
        case "qwen2":
            return "qkv", ()
    keys.only("attention_bias", False)
    return False, ()


def _activation(keys: ConfigKeys, key: str) -> str:
    """Our name of a plain activation."""
    name = keys.get(key)
    if not isinstance(name, str) or name not in PLAIN_OF:
        keys.refuse(key, f"Atlas supports {', '.join(PLAIN_OF)}")
    return PLAIN_OF[name]


def _feed_forward(keys: ConfigKeys, kind: HuggingFaceClass, files: "SafetensorsFiles") -> str:
    """Our kind of feed-forward layer; one with a gate whose other factor is 1 has no gate."""
    key = "hidden_act"
    if kind.model_type == "gemma":
        if keys.get("hidden_activation", None):
            keys.get(key)
            key = "hidden_activation"
        elif keys.get(key) == "gelu":  # transformers computes the tanh form nevertheless
            return "geglu"
    plain = _activation(keys, key)
    up = "model.layers.0.mlp.up_proj"
    if kind.plain or (
        f"{up}.bias" in files.shapes
        and not files.read(f"{up}.weight").any()
        and (files.read(f"{up}.bias") == 1).all()
    ):
        return plain
    if plain not in GATED_OF:
        keys.refuse(key, f"with a gate, Atlas supports silu and {TANH}")
    return GATED_OF[plain]


def _window(keys: ConfigKeys, kind: HuggingFaceClass, context: int, layers: int) -> int | None:
    """The window if every block has one that is shorter than the context."""
    given = keys.get("layer_types", None)
    kinds = given or ["full_attention"] * layers
    if not isinstance(kinds, list) or not set(map(str, kinds)) <= {FULL, SLIDING}:
        keys.refuse("layer_types", f"Atlas supports {FULL} and {SLIDING}")
    window = None
    if kind.model_type in ("mistral", "starcoder2"):
        window = keys.get("sliding_window", None)
        kinds = given or [SLIDING] * layers
    elif kind.model_type in ("qwen2", "qwen3", "smollm3"):
        window = keys.get("sliding_window", None)
        first = keys.get("max_window_layers", 28)
        if not isinstance(first, int):
            keys.refuse("max_window_layers", "it must be a whole number")
        if not keys.flag("use_sliding_window", default=False):
            return None
        if kind.model_type == "smollm3" and not given:
            kinds = [FULL, SLIDING]  # blocks with positions, and without
        elif not given:
            kinds = [SLIDING if block >= first else FULL for block in range(layers)]
    if window is None or SLIDING not in kinds:
        if SLIDING in kinds and given:
            keys.refuse("layer_types", f"{kind.name} has no window")
        return None
    if keys.number("sliding_window") >= context:
        return None
    if FULL in kinds:
        key = "layer_types" if given else "sliding_window"
        keys.refuse(key, "Atlas supports the same window in every block only")
    return int(window)


def _no_rope_every(keys: ConfigKeys, layers: int) -> int | None:
    """The distance of blocks without RoPE, None if every block has it."""
    every = keys.number("no_rope_layer_interval", 4)
    given = keys.get("no_rope_layers", None)  # 1 where a block has RoPE
    if given and not isinstance(given, list):
        keys.refuse("no_rope_layers", "it must be a list")
    if given:
        every = next((block + 1 for block, has in enumerate(given[:layers]) if not has), layers + 1)
        expected = [(block + 1) % every != 0 for block in range(layers)]
        if [bool(has) for has in given[:layers]] != expected:
            keys.refuse("no_rope_layers", "Atlas supports every n-th block without RoPE")
    return every if every <= layers else None


def _rope_options(
    keys: ConfigKeys, kind: HuggingFaceClass, context: int, size: int
) -> dict[str, Any]:
    """Our options for RoPE from ``rope_parameters``, in older files ``rope_scaling``."""
    name = "rope_parameters" if keys.get("rope_parameters", None) else "rope_scaling"
    values = keys.get(name, {})
    keys.get("rope_scaling", None)
    if not isinstance(values, dict) or any(isinstance(each, dict) for each in values.values()):
        keys.refuse(name, "Atlas supports the same RoPE in every block only")
    inner = ConfigKeys(values, keys.source, f"{name}.")
    theta = inner.real("rope_theta", keys.real("rope_theta"))
    share = inner.real(
        "partial_rotary_factor",
        keys.real("partial_rotary_factor", 0.25 if kind.model_type == "stablelm" else 1.0),
    )
    turned = int(size * share)
    if kind.model_type != "stablelm" and share != 1:
        (inner if "partial_rotary_factor" in values else keys).refuse(
            "partial_rotary_factor", f"{kind.name} rotates whole heads"
        )
    if turned % 2 or not 0 < turned <= size:
        keys.refuse("partial_rotary_factor", f"it must turn an even part of {size} channels")
    rope = ROPE_OFF | {"positions": "rope", "rope_theta": theta, "rotary_share": turned / size}
    scaling = str(inner.get("rope_type", inner.get("type", "default")))
    inner.get("type", None)
    before = keys.real(
        "original_max_position_embeddings", inner.real("original_max_position_embeddings", context)
    )
    factor = 1.0
    match scaling:
        case "default":
            inner.only("factor", 1, 1.0)
        case "linear":
            factor = inner.real("factor")
            if factor >= NO_ROTATION:
                return rope | {"positions": "none"}
        case "llama3":
            factor = inner.real("factor")
            low, high = inner.real("low_freq_factor"), inner.real("high_freq_factor")
        case "yarn":
            factor = inner.real("factor", context / before)
            low, high = inner.real("beta_slow", 1.0), inner.real("beta_fast", 32.0)
            inner.only("truncate", True)
            _check_length(inner, factor)
        case _:
            inner.refuse(
                "rope_type" if "rope_type" in values else "type",
                "Atlas supports default, linear, llama3 and yarn",
            )
    for unknown in inner.ignored(NOTHING):
        inner.refuse(unknown.removeprefix(f"{name}."), f"Atlas doesn't know it for {scaling}")
    if scaling in ("llama3", "yarn") and factor != 1:
        usual = (low, high) == ROTATIONS[scaling]
        rope |= {"rope_scaling_kind": scaling, "rope_scaling_context": before}
        rope |= {"rope_scaling_rotations": None if usual else (low, high)}
    return rope | {"rope_scaling": factor}


def _check_length(inner: ConfigKeys, factor: float) -> None:
    """Refuse YaRN that lengthens the rotated points by another factor than 0.1 ln(s) + 1."""
    usual = 0.1 * math.log(max(factor, 1)) + 1
    if not math.isclose(inner.real("attention_factor", usual), usual, rel_tol=1e-6):
        inner.refuse("attention_factor", f"Atlas supports 0.1 ln(factor) + 1 = {usual:g}")
    scales = inner.get("mscale", 0), inner.get("mscale_all_dim", 0)
    if all(scales):
        inner.refuse("mscale_all_dim", "Atlas supports YaRN without mscale")


class SafetensorsFiles:
    """The tensors of a folder, one file or several shards, read one at a time.

    Files are opened anew for each tensor, because the memory of a mapped file grows as it is read.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._files: dict[str, tuple[Path, str]] = {}  # and the name there
        self._kinds: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        for path in _shards(folder):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.offset_keys():
                        tensor = file.get_slice(name)
                        self._files[name] = path, name
                        self._kinds[name] = tensor.get_dtype()
                        self.shapes[name] = tuple(tensor.get_shape())
            except (OSError, SafetensorError) as error:
                raise AtlasError(
                    f"{path}: cannot be read ({one_line(error)[:120]}); download it again"
                ) from None
        # Some folders hold the model without its head, whose names lack the prefix.
        if not any(name.startswith(f"{prefix}.") for name in self.shapes):
            self._files = {_prefixed(name, prefix): each for name, each in self._files.items()}
            self._kinds = {_prefixed(name, prefix): each for name, each in self._kinds.items()}
            self.shapes = {_prefixed(name, prefix): each for name, each in self.shapes.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The type of all tensors if they have 16 bits, else float32."""
        kinds = {kind for name, kind in self._kinds.items() if not UNUSED.fullmatch(name)}
        kind = kinds.pop() if len(kinds) == 1 else "F32"
        return FLOATS[kind] if kind in ("F16", "BF16") else torch.float32

    def read(self, name: str) -> Tensor:
        """Read a tensor as float32."""
        path, stored = self._files[name]
        if (kind := self._kinds[name]) not in FLOATS:
            raise AtlasError(f"{path}: tensor {stored} has type {kind}, not a float type")
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(stored)
        except (OSError, SafetensorError) as error:
            raise AtlasError(f"{path}: cannot be read ({one_line(error)[:120]})") from None
        return tensor.float()

    def check_copy(self, head: str, embedding: str, config: Path) -> None:
        """Refuse a head that is stored and differs from the embedding that it is tied to."""
        if head in self.shapes and not torch.equal(self.read(head), self.read(embedding)):
            raise AtlasError(
                f"{config}: tie_word_embeddings is true, but {head} differs from {embedding}; "
                "set it to false if the head was trained"
            )


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith("lm_head.") else f"{prefix}.{name}"


def _shards(folder: Path) -> list[Path]:
    """The files of a folder; every shard that the index names must be there."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        named = _read_json(index).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise AtlasError(f"{index}: no weight_map")
        names = sorted({str(name) for name in named.values()})
        for name in names:
            if Path(name).name != name:
                raise AtlasError(f"{index}: {name[:80]!r} is not the name of a file in this folder")
            if not (folder / name).is_file():
                raise AtlasError(
                    f"{folder}: {name} is missing, one of {len(names)} files that {INDEX} lists; "
                    "download it"
                )
        return [folder / name for name in names]
    raise AtlasError(f"{folder}: neither {WEIGHTS} nor {INDEX}; the weights are missing")
