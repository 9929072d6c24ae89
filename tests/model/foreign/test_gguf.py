"""GGUF files: every architecture read back, types dequantized, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.model.foreign import gguf as foreign_gguf
from atlas.model.foreign.gguf import open_file
from atlas.model.foreign.tensors import ROPE_FACTORS, config_of, rope_factors, stored_shapes
from atlas.model.transformer import Decoder
from atlas.model.weights import load_weights, weights_of
from atlas.params.runtime_support import ARCHITECTURES, architecture_of
from tests.export.check.test_against_llama_cpp import SCALED, rows
from tests.export.models import WIDE, bundle_of, store
from tests.model.family import GRID
from tests.model.family import config_of as family_config
from tests.small import GPT2_SHAPE, LLAMA_SHAPE

EACH = {  # one model of each row and feed-forward layer, with biases
    f"{row.name}-{part}-{position}": param.values[0]
    for param in rows()
    for options in param.values
    if (row := architecture_of(family_config(**options).model_dump()))
    for part, position in [(options["feed_forward"], options["positions"])]
    if options["bias"] is True or True not in (row.allowed["bias"] or (True,))
}
EACH |= {name: WIDE | {"n_kv_head": 2} | more for name, more in SCALED.items()}
IDS = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(0))


def write(folder, options, tokenizer, kind="f32"):
    """Write a model as a GGUF file; return the file and the model."""
    model = store(folder / "model", options, tokenizer)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(folder / "m.gguf", bundle_of(folder / "model", tokenizer), architecture, kind)
    return folder / "m.gguf", model


@pytest.mark.parametrize("name", EACH)
def test_every_row_reads_back_as_the_same_function(tmp_path, tokenizer, name):
    file, model = write(tmp_path, EACH[name], tokenizer)
    weights = open_file(file)
    assert weights.architecture == name.split("-")[0]
    assert (weights.rows, weights.ignored) == (tokenizer.vocab_size, ())
    params, ours = weights.params, model.config
    for key in ("d_model", "n_layer", "n_kv_head", "head_size", "d_ff", "norm_eps", "rope_scaling"):
        assert getattr(config_of(params, 1), key) == getattr(ours, key)
    assert params.feed_forward == ours.feed_forward
    assert params.tied_head == ours.tied_head
    again = Decoder(config_of(params, weights.rows)).eval()
    load_weights(again, dict(weights.tensors(weights.rows)))
    with torch.no_grad():
        torch.testing.assert_close(again(IDS), model(IDS), rtol=1e-4, atol=2e-5)


def test_all_architectures_are_tested():
    assert {name.split("-")[0] for name in EACH} == {row.name for row in ARCHITECTURES}


@pytest.mark.parametrize("options", GRID)
def test_shapes_are_those_of_the_model(options):
    config = family_config(**options, n_layer=3)
    model = Decoder(config)
    shapes = {name: tuple(each.shape) for name, each in weights_of(model).items()}
    assert stored_shapes(config) == shapes


QUANTIZED = ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


@pytest.mark.parametrize("kind", QUANTIZED)
def test_types_are_dequantized(tmp_path, tokenizer, kind):
    file, model = write(tmp_path, LLAMA_SHAPE | WIDE | {"n_kv_head": 4}, tokenizer, kind)
    ours = weights_of(model)
    weights = open_file(file)
    assert weights.dtype == torch.float32  # norms have 32 bits
    for name, tensor in weights.tensors(weights.rows):
        assert tensor.dtype == torch.float32
        largest = float(ours[name].abs().max())
        assert float((tensor - ours[name]).abs().max()) < 0.15 * largest


def test_fewer_pieces_than_rows_cut_the_embedding(tmp_path, tokenizer):
    file, model = write(
        tmp_path, GPT2_SHAPE | WIDE | {"n_kv_head": 4, "tied_head": False}, tokenizer
    )
    weights = open_file(file)
    assert weights.size == 4 * sum(each.numel() for each in open_tensors(weights, weights.rows))
    tensors = dict(weights.tensors(100))
    for name in ("embedding", "head"):
        assert tensors[f"{name}.weight"].equal(weights_of(model)[f"{name}.weight"][:100])


def test_a_head_is_compared_with_the_embedding_without_reading_both(
    tmp_path, tokenizer, monkeypatch
):
    options = LLAMA_SHAPE | WIDE | {"n_kv_head": 2, "qk_norm": "all", "norm_position": "reordered"}
    file, model = write(tmp_path, options | {"tied_head": True}, tokenizer)
    monkeypatch.setattr(foreign_gguf, "CHUNK", 1000)  # bytes
    monkeypatch.setattr(foreign_gguf.TensorFile, "read", None)
    assert open_file(file).params.tied_head
    head = model.embedding.weight.detach().numpy().copy()
    head[-1, -1] += 1
    assert not open_file(edit(file, tensors={"output.weight": head})).params.tied_head


def open_tensors(weights, pieces):
    return [tensor for _, tensor in weights.tensors(pieces)]


def edit(file, keys=None, tensors=None):
    """Write a file again with other keys and tensors; None removes one."""
    reader = GGUFReader(file)
    keys, tensors = keys or {}, tensors or {}
    name = str(keys.get("general.architecture", reader.fields["general.architecture"].contents()))
    writer = GGUFWriter(file.with_name("edited.gguf"), name)
    fields = {key: each for key, each in reader.fields.items() if not key.startswith("GGUF.")}
    for key, each in fields.items():
        if key not in keys and key != "general.architecture":
            kind, *inner = each.types
            writer.add_key_value(key, each.contents(), kind, inner[0] if inner else None)
    for key, value in keys.items():
        if key == "general.architecture" or value is None:
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
    for each in reader.tensors:
        if each.name not in tensors:
            writer.add_tensor(each.name, each.data, raw_dtype=each.tensor_type)
    for key, value in tensors.items():
        if value is not None:
            writer.add_tensor(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.with_name("edited.gguf")


@pytest.fixture(scope="module")
def files(tmp_path_factory, tokenizer):
    """A file of each of some architectures."""
    folder = tmp_path_factory.mktemp("files")
    shapes = {
        "llama": LLAMA_SHAPE,
        "llama3": SCALED["llama-llama3"],
        "gpt2": GPT2_SHAPE,
        "olmo2": LLAMA_SHAPE | {"qk_norm": "all", "norm_position": "reordered"},
        "mpt": GPT2_SHAPE | {"positions": "alibi"},
    }
    for name, shape in shapes.items():
        (folder / name).mkdir()
        write(folder / name, WIDE | {"n_kv_head": 2, "n_layer": 1} | shape, tokenizer)
    return folder


REFUSED = [
    ("llama", {"general.architecture": "mamba"}, "general.architecture is mamba"),
    ("llama", {"llama.expert_count": 8}, "llama.expert_count is 8"),
    ("llama", {"llama.attention.sliding_window": 8}, "llama.attention.sliding_window is 8"),
    ("llama", {"llama.attention.sliding_window": "8"}, "llama.attention.sliding_window is .8.:"),
    ("llama", {"llama.attention.value_length": 8}, "llama.attention.value_length is 8"),
    ("llama", {"llama.attention.head_count_kv": 3}, "llama.attention.head_count_kv is 3"),
    ("llama", {"llama.attention.scale": 0.5}, "llama.attention.scale is 0.5"),
    ("llama", {"llama.logit_scale": 2.0}, "llama.logit_scale is 2.0"),
    ("llama", {"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type is .longrope"),
    ("llama", {"llama.rope.scaling.attn_factor": 1.5}, "llama.rope.scaling.attn_factor is 1.5"),
    ("llama", {"llama.rope.scaling.yarn_beta_fast": 8.0}, "yarn_beta_fast is 8.0"),
    ("llama", {"llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier is 0.1"),
    ("llama", {"llama.rope.dimension_count": 7}, "llama.rope.dimension_count is 7"),
    ("llama", {"llama.block_count": None}, "llama.block_count is missing"),
    ("llama", {"llama.block_count": 2}, r"tensor blk\.1\.attn_norm\.weight .* is missing"),
    ("llama", {"llama.block_count": 9_000_000}, "the config describes 9,000,000 blocks"),
    ("llama", {"llama.feed_forward_length": 97}, r"has shape .*, and the config describes"),
    ("mpt", {"mpt.attention.clamp_kqv": 4.0}, "mpt.attention.clamp_kqv is 4.0"),
    ("mpt", {"mpt.attention.max_alibi_bias": 4.0}, "mpt.attention.max_alibi_bias is 4.0"),
]


@pytest.mark.parametrize(("name", "keys", "message"), REFUSED)
def test_a_key_that_asks_for_something_else_is_refused_by_name(
    files, tmp_path, name, keys, message
):
    shutil.copy(files / name / "m.gguf", tmp_path / "m.gguf")
    file = edit(tmp_path / "m.gguf", keys)
    with pytest.raises(AtlasError, match=message) as error:
        open_file(file)
    assert str(error.value).startswith(f"{file}: ")


def test_harmless_and_neutral_keys_are_ignored_and_unknown_ones_are_named(files, tmp_path):
    shutil.copy(files / "llama/m.gguf", tmp_path / "m.gguf")
    keys = {
        "llama.expert_count": 0,
        "llama.tensor_data_layout": "Meta AI original pth",
        "llama.attention.sliding_window": 4096,
        "llama.attention.head_count_kv": [2],
        "llama.rope.scaling.finetuned": True,
        "llama.favourite": 3,
    }
    weights = open_file(edit(tmp_path / "m.gguf", keys))
    assert weights.ignored == ("llama.favourite",)
    assert weights.params == open_file(files / "llama/m.gguf").params


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("llama", {"output_norm.weight": None}, r"tensor output_norm\.weight \(64,\) is missing"),
        ("llama", {"blk.0.attn_k.weight": np.zeros((30, 64), np.float32)}, r"has shape \(30, 64\)"),
        ("llama", {"blk.0.exps.weight": np.zeros((3, 4), np.float32)}, r"exps\.weight \(3, 4\) is"),
        ("llama", {ROPE_FACTORS: np.float32([1, 2, 1, 3, 1, 2, 1, 4])}, "no scaling of Llama 3"),
        ("llama", {ROPE_FACTORS: np.zeros(8, np.float32)}, "rope_freqs.weight has factors that"),
        ("gpt2", {"blk.0.ffn.act.scales": np.ones(96, np.float32)}, "ask for feed_forward relu"),
        ("gpt2", {"position_embd.weight": None}, r"tensor position_embd\.weight .* is missing"),
    ],
)
def test_missing_wrong_and_unknown_tensors_are_named(files, tmp_path, name, tensors, message):
    shutil.copy(files / name / "m.gguf", tmp_path / "m.gguf")
    with pytest.raises(AtlasError, match=message):
        open_file(edit(tmp_path / "m.gguf", tensors=tensors))


def test_a_type_that_cannot_be_dequantized_is_named_before_anything_is_read(files, tmp_path):
    data = bytearray((files / "llama/m.gguf").read_bytes())
    name = b"blk.0.ffn_down.weight"
    start = data.index(name) + len(name)
    (dimensions,) = np.frombuffer(bytes(data[start : start + 4]), np.uint32)
    place = start + 4 + 8 * int(dimensions)
    data[place : place + 4] = np.uint32(GGMLQuantizationType.Q8_1).tobytes()
    file = tmp_path / "m.gguf"
    file.write_bytes(data)
    with pytest.raises(AtlasError, match=r"blk\.0\.ffn_down\.weight has type Q8_1, which gguf-py"):
        open_file(file)


@pytest.mark.parametrize("turns", [None, (1.0, 4.0), (0.5, 9.0), (2.0, 3.0)])
@pytest.mark.parametrize("context", [32, 1000, 8192])
def test_the_scaling_of_llama_3_is_found_from_its_factors(files, tmp_path, turns, context):
    """Files from elsewhere have the factors alone."""
    weights = open_file(files / "llama3/m.gguf")
    theirs = {"rope_scaling_context": context, "rope_scaling_rotations": turns}
    theirs |= {"rope_theta": 500_000.0, "rope_scaling": 8.0}
    factors = rope_factors(config_of(weights.params.model_copy(update=theirs), 1))
    shutil.copy(files / "llama3/m.gguf", tmp_path / "m.gguf")
    keys = {"llama.rope.scaling.original_context_length": None, "llama.rope.freq_base": 500_000.0}
    file = edit(tmp_path / "m.gguf", keys, {ROPE_FACTORS: factors.numpy()})
    found = open_file(file).params
    assert (found.rope_scaling_kind, found.rope_scaling) == ("llama3", 8.0)
    torch.testing.assert_close(rope_factors(config_of(found, 1)), factors, rtol=1e-4, atol=0)
    if context == 8192 and turns in (None, (1.0, 4.0)):
        assert (found.rope_scaling_context, found.rope_scaling_rotations) == (8192, None)


def test_a_biased_row_of_another_program_is_read(files, tmp_path):
    """Qwen 2's biases in a file of the architecture ``llama``, as some converters write them."""
    shutil.copy(files / "llama/m.gguf", tmp_path / "m.gguf")
    bias = np.arange(64, dtype=np.float32)
    file = edit(tmp_path / "m.gguf", tensors={"blk.0.attn_q.bias": bias})
    weights = open_file(file)
    assert weights.params.bias == "qkv"
    tensors = dict(weights.tensors(weights.rows))
    assert tensors["blocks.0.attention.query.bias"].sort().values.tolist() == bias.tolist()
    assert not tensors["blocks.0.attention.key.bias"].any()


def test_only_gguf_files_are_read(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"hello")
    with pytest.raises(AtlasError, match="not a GGUF file"):
        open_file(tmp_path / "m.gguf")
