import pytest
import yaml

from atlas.errors import AtlasError
from atlas.params.overrides import leaves
from atlas.params.schema import OTHER_KEYS, Params, load_params
from tests.code_walk import ROOT
from tests.small import params_tree, small_params


def refusal(**changes) -> str:
    with pytest.raises(AtlasError) as error:
        Params.from_mapping(params_tree(**changes))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_projects_own_params_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.train.lr == pytest.approx(4e-3)


def test_params_cannot_be_changed():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.train.steps = 1


def test_every_key_has_a_comment():
    text = (ROOT / "params.yaml").read_text()
    keys = {key.rsplit(".", 1)[-1] for key, _ in leaves(yaml.safe_load(text))}
    for line in text.splitlines():
        name = line.split(":")[0].strip()
        if name in keys and line.startswith("  ") and not line.strip().startswith("-"):
            assert " # " in line, line


YARN = {
    "model.rope_scaling_kind": "yarn",
    "model.rope_scaling": 4.0,
    "model.rope_scaling_context": 32,
}
DOCUMENT_MASK = {"tokenize.document_mask": True}
QUESTIONS = {"tokenize.prompt_separator": "=", "tokenize.windows": "padded"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train.lrr": 1.0}, "train.lrr is not a known key: did you mean train.lr?"),
        ({"trian": {}}, "trian is not a known key: did you mean train?"),
        ({"train.zzz": 1}, "train.zzz is not a known key (known: start, freeze, lora, "),
        ({"train.lr": "abc"}, "train.lr is 'abc': it must be a valid number"),
        ({"train.lr": True}, "train.lr is True: it must be a valid number"),
        ({"train.lr": -1.0}, "train.lr is -1.0: it must be greater than 0"),
        ({"train.lr": float("nan")}, "train.lr is nan: it must be a finite number"),
        ({"train.steps": "ten"}, "train.steps is 'ten': it must be a valid integer"),
        ({"train.steps": "10.5"}, "train.steps is '10.5': it must be a valid integer"),
        ({"train.steps": "inf"}, "train.steps is 'inf': it must be a valid integer"),
        ({"train.steps": 10.5}, "train.steps is 10.5: it must be a valid integer"),
        ({"train.steps": True}, "train.steps is True: it must be a valid integer"),
        ({"train": None}, "train is a section"),
        (
            {"model.positions": "rotary"},
            "model.positions is 'rotary': it must be 'rope', '",
        ),
        ({"model.positions": "rotary"}, "did you mean rope?"),
        ({"model.norm": "RMSNorm"}, "did you mean rmsnorm?"),
        ({"train.optimizer": "Muon"}, "did you mean muon?"),
        ({"train.optimizer": "adam"}, "did you mean adamw?"),
        ({"train.precision": "bf16"}, "did you mean bfloat16?"),
        ({"model.qk_norm": "none"}, "did you mean null?"),
        ({"train.patience": "None"}, "did you mean null?"),
        ({"model.bias": "yes"}, "did you mean true?"),
        ({"export.formats": ["gguf:Q8_0"]}, "did you mean gguf:q8_0?"),
        (
            {"train.learning_rate": 1.0},
            "train.learning_rate is not a known key: did you mean train.lr?",
        ),
        ({"learning_rate": 1.0}, "learning_rate is not a known key: did you mean train.lr?"),
        ({"lr": 1.0}, "lr is not a known key: did you mean train.lr?"),
        ({"train.hidden_size": 8}, "did you mean model.d_model?"),
        ({"model.LR": 1.0}, "did you mean train.lr?"),
        ({"model.n_layers": 3}, "did you mean model.n_layer?"),
        (
            {"corpus.path": "text"},
            "corpus.path is not a known key: did you mean corpus.files.path?",
        ),
        ({"corpus.seed": 1}, "did you mean corpus.arithmetic.seed or corpus.stories.seed?"),
        ({"clean.unicode": "NFC"}, "did you mean clean.unicode_normalization?"),
        ({"train.tokens": 1}, "did you mean train.max_train_tokens or train.sample_tokens?"),
        ({"corpus.name": "shakspeare"}, "corpus.name is 'shakspeare': it must be"),
        (
            {"corpus.gutenberg.books": [0]},
            "books.0 is 0: it must be greater than 0",
        ),
        (
            {"corpus.gutenberg.books": ["eleven"]},
            "books.0 is 'eleven': it must be a valid integer",
        ),
        ({"corpus.gutenberg.books": 11}, "corpus.gutenberg.books is 11: it must be a list"),
        (
            {"corpus.gutenberg.books": [11, 74, 11]},
            "books lists a book twice: 11, 74, 11",
        ),
        (
            {"corpus.modular.operation": "plus"},
            "modular.operation is 'plus': it must be 'add',",
        ),
        (
            {"corpus.modular.modulus": 1},
            "modulus is 1: it must be greater than or equal to 2",
        ),
        (
            {"clean.text_field": "{title} {text"},
            "clean.text_field is '{title} {text': it must be a template whose braces come in pairs",
        ),
        (
            {"clean.text_field": ["text", 0]},
            "clean.text_field is ['text', 0]: it must be a key, a column number from 1",
        ),
        (
            {"clean.encoding": "latn1"},
            "clean.encoding is 'latn1': it must be an encoding that Python knows (did you mean "
            "latin1?) or null",
        ),
        (
            {"clean.encoding": "base64"},
            "clean.encoding is 'base64': it must be an encoding that Python knows",
        ),
        ({"clean.duplicates": True}, "clean.duplicates is True: it must be 'near', 'exact' or"),
        (
            {"clean.jaccard_threshold": 0.1},
            "clean.jaccard_threshold is 0.1: it must be greater than or",
        ),
        (
            {"export.formats": ["gguf:f64"]},
            "export.formats.0 is 'gguf:f64': it must be one of gguf:f32, gguf:f16,",
        ),
        ({"export.formats": "f32"}, "export.formats is 'f32': it must be a list"),
        ({"export.name": "../x"}, "export.name is '../x': use only letters"),
        ({"export.formats": ["gguf:f32", "gguf:f32"]}, "export.formats: a format is listed twice"),
        (
            {"clean.filters": ["shrt"]},
            "clean.filters.0 is 'shrt': it must be 'short', 'word_length',",
        ),
        ({"clean.repeated_lines": 0}, "clean.repeated_lines is 0: it must be greater than 0"),
        ({"clean.filters": "short"}, "clean.filters is 'short': it must be a list"),
        ({"clean.filters": ["short", "short"]}, "clean.filters lists a filter twice: short, short"),
        (
            {"clean.remove_zero_width": 1},
            "remove_zero_width is 1: it must be a valid boolean",
        ),
        ({"clean.fix_mojibake": "yes"}, "clean.fix_mojibake is 'yes': it must be a valid boolean"),
        ({"clean.val": 0.5, "clean.test": 0.5}, "clean.val + clean.test is 1"),
        (
            {"tokenizer.vocab_size": 200},
            "tokenizer.vocab_size is 200: 261 pieces of tokenizer.kind=bpe",
        ),
        (
            {"model.d_model": 130},
            "model.d_model (130) is not divisible by model.n_head (4): try model.d_model=160;",
        ),
        ({"model.n_head": 128, "model.n_kv_head": 128}, "the head size must be even"),
        ({"model.n_kv_head": 3}, "model.n_head (4) is not divisible by model.n_kv_head (3)"),
        ({"model.rope_scaling": 2.0, "model.positions": "alibi"}, "model.rope_scaling is 2"),
        ({"model.rope_scaling": 0.5}, "model.rope_scaling is 0.5: it must be greater than or"),
        (
            {"model.positions": "alibi", "model.rope_scaling_rotations": [1, 2.5]},
            "model.rope_scaling_rotations is [1, 2.5] without RoPE: set it to null, or set",
        ),
        (
            {"model.positions": "sinusoidal", "model.rotary_share": 0.5},
            "model.rotary_share is 0.5 without RoPE: set it to 1.0, or set model.positions=rope",
        ),
        (
            {"model.positions": "none", "model.no_rope_every": 2},
            "model.no_rope_every is 2 without RoPE: set it to null",
        ),
        (
            {"model.positions": "none", "model.d_head": 33},
            "2 or more, and model.d_head is 33: try model.d_head=34",
        ),
        (
            {"model.d_head": 10},
            "q8_0 packs rows of 32, and model.n_head * model.d_head is 40: try model.d_head=16 or",
        ),
        ({"model.no_rope_every": 1}, "so no block has positions: set model.positions=none"),
        ({"model.no_rope_every": 5}, "so every block has positions: set model.no_rope_every=null"),
        (
            {"model.rope_scaling_kind": "llama3"},
            "model.rope_scaling_kind is llama3, and model.rope_scaling is 1, which is off: set a",
        ),
        (
            {"model.rope_scaling_kind": "yarn", "model.rope_scaling": 4},
            "is yarn: set model.rope_scaling_context to the context length before scaling, such as",
        ),
        ({"model.rope_scaling_context": 64}, "which model.rope_scaling_kind=linear does not use"),
        (YARN | {"model.rope_scaling_rotations": [4, 1]}, "the first must be less than the second"),
        (YARN | {"model.rope_scaling_rotations": [4]}, "it must be a list of at least 2 items or"),
        (YARN | {"model.rope_theta": 1}, "yarn needs more, such as model.rope_theta=10000"),
        ({"model.d_head": 33}, "model.d_head is 33: RoPE rotates pairs, so the head size must be"),
        ({"model.rotary_share": 0.3}, "is 9.6: RoPE rotates pairs, so make it an even number: try"),
        ({"model.rotary_share": 0.3}, "model.rotary_share=0.3125"),
        ({"model.rotary_share": 0.01}, "model.rotary_share=0.0625"),
        ({"model.bias": "norm"}, "RMSNorm has no biases: set model.bias=false, or model.norm="),
        ({"model.bias": "qkv_norm"}, "RMSNorm has no biases: set model.bias=qkv, or model.norm="),
        (
            {"model.bias": "norms"},
            "it must be false, true, 'qkv', 'norm' or 'qkv_norm': did you mean norm?",
        ),
        ({"model.head_dim": 64}, "model.head_dim is not a known key: did you mean model.d_head?"),
        ({"model.partial_rotary_factor": 0.25}, "did you mean model.rotary_share?"),
        ({"model.attention_bias": True}, "did you mean model.bias?"),
        ({"model.original_max_position_embeddings": 8192}, "mean model.rope_scaling_context?"),
        ({"model.window": 128}, "model.window (128) must be less than model.context_length"),
        ({"model.kind": "two_layer"}, "the two-layer network reads this many tokens"),
        (
            {"model.kind": "encoder_decoder"},
            "tokenize.prompt_separator is null: name the piece that",
        ),
        (
            {"model.kind": "encoder_decoder", "model.window": 4},
            "an encoder-decoder has no window",
        ),
        ({"train.init": "zero", "model.norm_position": "post"}, "train.init is zero with"),
        (
            {"model.positions": "none", "model.d_model": 30, "model.n_head": 2},
            "llama.cpp's llama needs heads with an even number of channels, 2 or more, and "
            "model.d_model / model.n_head is 15: try model.d_model=32",
        ),
        (
            {"model.positions": "alibi", "model.d_model": 4, "model.n_head": 4},
            "llama.cpp's refact needs heads",
        ),
        (
            QUESTIONS | {"model.kind": "encoder_decoder", "export.formats": []},
            "evaluate.prompts: an encoder-decoder answers questions, so end each with '=', or",
        ),
        (QUESTIONS | {"tokenize.separate_documents": False}, "tokenize.separate_documents=true"),
        ({"model.rope_theta": 1e300}, "model.rope_theta is 1e+300: it must be less than"),
        ({"tokenize.prompt_separator": "="}, "add tokenize.windows=padded"),
        (DOCUMENT_MASK | {"tokenize.windows": "padded"}, "document_mask is for packed windows"),
        (
            {"chat.template": "chatlm"},
            "no chat_templates/chatlm.jinja: did you mean chatml? (avail",
        ),
        (QUESTIONS | {"chat.template": "plain"}, "both say what is learned: set one of them"),
        (DOCUMENT_MASK | {"model.kind": "two_layer"}, "model.kind=decoder or"),
        ({"model.qk_norm": True}, "model.qk_norm is True: it must be 'head', 'all' or null"),
        (
            {"model.positions": "sinusoidal", "model.d_model": 15, "model.n_head": 3},
            "sinusoids come in pairs, so make it even: try model.d_model=96",
        ),
        ({"train.grad_accum_steps": 3}, "train.batch_size (8) is not divisible by"),
        (
            {"train.sequence_length": 129},
            "train.sequence_length (129) is more than model.context_length (128)",
        ),
        ({"model.sequence_length": 64}, "did you mean train.sequence_length?"),
        (
            {"train.warmup_steps": 60},
            "train.warmup_steps is not a known key: did you mean train.warmup_share?",
        ),
        ({"train.warmup_share": 60}, "train.warmup_share is 60: it must be less than or equal"),
        ({"model.d_ff": 360}, "q8_0 packs rows of 32, and model.d_ff is 360: try model.d_ff=384"),
    ],
)
def test_errors_name_the_key_and_its_allowed_values(changes, expected):
    assert expected in refusal(**changes)


def test_a_missing_key_is_named():
    tree = params_tree()
    del tree["train"]["lr"]
    with pytest.raises(AtlasError, match=r"params.yaml: train.lr is missing"):
        Params.from_mapping(tree)


def test_several_problems_are_all_named():
    message = refusal(**{"train.steps": 0, "model.n_layer": "two"})
    assert "train.steps" in message
    assert "model.n_layer" in message


@pytest.mark.parametrize("text", ["3e-4", "3.0e-4", "0.0003", "3E-4"])
def test_every_way_to_write_a_learning_rate_is_a_number(text):
    value = yaml.safe_load(text)  # YAML 1.1 reads the first form as text
    assert Params.from_mapping(params_tree(**{"train.lr": value})).train.lr == 3e-4


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        ({"positions": "learned"}, "nearest: model.positions=rope"),
        ({"positions": "learned", "norm": "layernorm"}, "nearest: model.feed_forward=gelu"),
        ({"qk_norm": "head", "bias": True}, "nearest: model.qk_norm=null"),
        ({"norm_position": "post"}, "nearest: model.norm_position=pre"),
        ({"norm_position": "reordered"}, "nearest: model.norm_position=pre"),
        ({"norm_position": "reordered", "qk_norm": "head"}, "nearest: model.norm_position=pre"),
        ({"feed_forward": "gelu"}, "nearest: model.feed_forward=swiglu"),
        ({"feed_forward": "geglu", "tied_head": False}, "nearest: model.feed_forward=swiglu"),
        ({"window": 8}, "swiglu + window=8 + tied_head; nearest: model.window=null"),
        ({"bias": "qkv", "feed_forward": "geglu"}, "geglu + bias=qkv + tied_head; nearest: "),
        ({"d_head": 48, "positions": "alibi"}, "alibi + rmsnorm + swiglu + d_head=48"),
        ({"rotary_share": 0.5}, "nearest: model.rotary_share=1.0"),
        ({"no_rope_every": 3}, "nearest: model.no_rope_every=null"),
        ({"kind": "two_layer", "window": 8}, "kind=two_layer"),
        ({"kind": "bigram"}, "nearest: model.kind=decoder"),
    ],
)
def test_an_unsupported_model_is_refused_with_the_nearest_supported_one(options, nearest):
    changes = {f"model.{key}": value for key, value in options.items()}
    assert nearest in refusal(**changes)
    Params.from_mapping(params_tree(**changes, **{"export.formats": []}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "it has no sections"),
        (b"a: [1, 2", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (b"just text", "it has no sections"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(AtlasError, match=expected):
        load_params(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(AtlasError, match="no such file"):
        load_params(tmp_path / "params.yaml")


def test_leaves_are_dotted():
    assert list(leaves({"a": {"b": 1, "c": {"d": [2]}}, "e": 3})) == [
        ("a.b", 1),
        ("a.c.d", [2]),
        ("e", 3),
    ]


def test_every_suggested_name_exists():
    known = dict(leaves(yaml.safe_load((ROOT / "params.yaml").read_text())))
    assert set(OTHER_KEYS) <= set(known)


@pytest.mark.parametrize("value", ["1e3", 1e3, "1000", "1_000.0"])
def test_every_way_to_write_a_whole_number_is_a_number(value):
    steps = Params.from_mapping(params_tree(**{"train.steps": value})).train.steps
    assert (steps, type(steps)) == (1000, int)


def test_text_field_takes_names_numbers_templates_and_lists():
    fields = ("text", 2, "data.text", r"{a}\n{b}", ["text", 2])
    found = [small_params(**{"clean.text_field": field}).clean.text_field for field in fields]
    assert found == ["text", 2, "data.text", "{a}\n{b}", ("text", 2)]
