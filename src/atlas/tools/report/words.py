"""A run in a few words: its corpus, its model, its training."""

from collections.abc import Mapping
from typing import Any

TOKENIZERS = {
    "bpe": "byte-pair encoding",
    "unigram": "unigram pieces",
    "char": "characters",
    "word": "words",
}
KINDS = {
    "decoder": "decoder",
    "encoder_decoder": "encoder-decoder",
    "two_layer": "network of two layers",
    "bigram": "bigram model, counted",
}
POSITIONS = {
    "rope": "rotary positions",
    "learned": "learned positions",
    "sinusoidal": "sinusoidal positions",
    "alibi": "ALiBi",
    "none": "no positions",
}
NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}
PLACES = {
    "pre": "before each part",
    "post": "after each part",
    "reordered": "at the end of each branch",
}
FEED_FORWARD = {
    "swiglu": "SwiGLU",
    "geglu": "GEGLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "relu": "ReLU",
    "relu2": "ReLU²",
}
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD"}
Params = Mapping[str, Any]


def corpus_words(params: Params) -> str:
    """The corpus: its name, and what was asked of it."""
    name = str(params.get("corpus.name", ""))
    asked = {
        "files": f"from {params.get('corpus.files.path')}",
        "gutenberg": f"books {_listed(params.get('corpus.gutenberg.books'))}",
        "arithmetic": f"{params.get('corpus.arithmetic.examples')} examples",
        "stories": f"{params.get('corpus.stories.examples')} examples",
        "modular": " modulo ".join(
            str(params.get(f"corpus.modular.{key}")) for key in ("operation", "modulus")
        ),
    }
    return f"{name}, {asked[name]}" if name in asked else name


def tokenizer_words(params: Params) -> str:
    """How text is cut."""
    kind = str(params.get("tokenizer.kind", ""))
    return TOKENIZERS.get(kind, kind)


def model_words(params: Params) -> str:
    """The model: its kind, its shape and its parts; "" where nothing is known of it."""
    kind = str(params.get("model.kind", ""))
    if kind not in KINDS:
        return ""
    if kind == "bigram":
        return f"A {KINDS[kind]}"

    def of(key: str) -> Any:
        return params.get(f"model.{key}", "?")

    if kind == "two_layer":
        read = of("window")
        return f"A {KINDS[kind]} over {read} tokens, {of('d_model')} wide, {of('d_ff')} hidden"
    article = "An" if kind.startswith("e") else "A"
    shared = of("n_kv_head") != of("n_head")
    words = [
        f"{article} {KINDS[kind]} of {of('n_layer')} blocks, {of('d_model')} wide",
        f"{of('n_head')} heads" + (f" on {of('n_kv_head')} of keys and values" if shared else ""),
        f"{FEED_FORWARD.get(of('feed_forward'), of('feed_forward'))} of {of('d_ff')}",
        f"{NORMS.get(of('norm'), of('norm'))} {PLACES.get(of('norm_position'), '')}".strip(),
        POSITIONS.get(of("positions"), str(of("positions"))),
        f"a context of {of('context_length')} tokens",
    ]
    if of("window") not in (0, "?"):
        words.append(f"a window of {of('window')}")
    if of("tied_head") is True:
        words.append("head and embedding shared")
    return ", ".join(words)


def training_words(params: Params) -> str:
    """The optimisation: optimizer, rate, batch, seed; "" where nothing is known of it."""

    def of(key: str) -> Any:
        return params.get(f"train.{key}", "?")

    if params.get("model.kind") == "bigram" or "train.optimizer" not in params:
        return ""
    rate = of("muon_lr") if of("optimizer") == "muon" else of("lr")
    return (
        f"{OPTIMIZERS.get(of('optimizer'), of('optimizer'))} at {rate} ({of('schedule')}), "
        f"batches of {of('batch_size')} windows, {of('precision')}, seed {of('seed')}"
    )


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
