"""Decoders as programs: onnxruntime and a loaded program against the model itself."""

from unittest.mock import patch

import numpy as np
import onnxruntime
import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.check.agreement import (
    ONNXRUNTIME,
    TORCH_EXPORT,
    check_agreement,
    compare,
    expect,
)
from atlas.export.programs import CachedDecoder, empty_past, input_names, main, write_programs
from tests.code_walk import ROOT
from tests.export.models import SHAPES, WIDE, InProcess, store
from tests.small import GPT2_SHAPE, LLAMA_SHAPE, text

VAL = [text(seed, sentences=6) for seed in range(500, 502)]
ALIBI_WINDOW = {"positions": "alibi", "window": 7}  # no other format can express it
POST = {"norm_position": "post", "positions": "sinusoidal"}
MODELS = {
    "llama-mqa": SHAPES["llama-mqa"],
    "alibi-window": LLAMA_SHAPE | WIDE | ALIBI_WINDOW,
    "gpt2-untied": SHAPES["gpt2-bias-untied"],
    "post-norm": GPT2_SHAPE | WIDE | POST,
    "imported": LLAMA_SHAPE
    | WIDE
    | {"d_head": 24, "bias": "qkv", "rotary_share": 0.5, "no_rope_every": 2, "window": 9}
    | {"rope_scaling": 4.0, "rope_scaling_kind": "yarn", "rope_scaling_context": 24},
    "reordered": LLAMA_SHAPE | WIDE | {"norm_position": "reordered", "qk_norm": "all"},
}
RUNTIMES = {
    "m.onnx": InProcess("onnxruntime", tokenizes=False),
    "m.pt2": InProcess("torch.export", tokenizes=False),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tokenizer, request):
    """A model, and both programs written from it in this process."""
    folder = tmp_path_factory.mktemp("written")
    model = store(folder / "model", request.param, tokenizer)
    targets = [folder / name for name in RUNTIMES]
    with patch("sys.argv", ["writer", str(folder / "model"), *map(str, targets)]):
        main()
    return model, targets


OFTEN = ("llama-mqa",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "written",
    [
        pytest.param(model, id=name, marks=() if name in OFTEN else pytest.mark.very_slow)
        for name, model in MODELS.items()
    ],
    indirect=True,
)
def test_programs_give_the_same_logits_and_text_token_by_token(written, tokenizer):
    model, targets = written
    expected = expect(model, tokenizer, VAL, prompts=2, greedy_tokens=60)
    for target in targets:
        assert str(ROOT).encode() not in target.read_bytes()  # no local path is published
        runtime = RUNTIMES[target.name]
        agreement = compare(target, expected, model, 1e-4, runtime)
        check_agreement(target, agreement, 1e-4, runtime)
        assert (agreement.greedy_tokens, agreement.greedy_mismatches) == (120, 0)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("written", [SHAPES["llama-mqa"]], ids=["llama-mqa"], indirect=True)
def test_padded_rows_give_the_same_as_unpadded_ones(written):
    model, (onnx, _) = written
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    past = [each.numpy() for each in empty_past(model.config, batch=2)]
    inputs = dict(zip(input_names(model.config), (ids.numpy(), mask.numpy(), *past), strict=True))
    logits, *present = session.run(None, inputs)
    alone = model(ids[1:, 2:])[0].numpy()
    assert np.abs(logits[1, 2:] - alone).max() < 1e-4
    assert np.abs(logits[0] - model(ids[:1])[0].numpy()).max() < 1e-4
    following = np.array([[11], [12]])
    mask = np.concatenate([mask.numpy(), np.ones((2, 1), np.int64)], axis=1)
    inputs = dict(zip(input_names(model.config), (following, mask, *present), strict=True))
    logits = session.run(None, inputs)[0]
    alone = model(torch.tensor([[9, 10, 12]]))[0, -1].numpy()
    assert np.abs(logits[1, 0] - alone).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("written", [SHAPES["llama-mqa"]], ids=["llama-mqa"], indirect=True)
def test_inputs_and_outputs_have_the_names_of_transformers_exports(written):
    _, (onnx, _) = written
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    shapes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    assert shapes["input_ids"] == ["batch", "new"]
    assert shapes["attention_mask"] == ["batch", "all"]
    assert shapes["past_key_values.1.key"] == ["batch", 1, "past", 16]
    assert shapes["logits"] == ["batch", "new", 400]
    assert shapes["present.1.value"] == ["batch", 1, "past + new", 16]


@torch.no_grad()
def test_a_cached_decoder_is_the_decoder(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["refact-odd"], tokenizer)
    ids = torch.randint(5, 400, (3, 12), generator=torch.Generator().manual_seed(0))
    function = CachedDecoder(model)
    mask = torch.ones_like(ids)
    _, *past = function(ids[:, :5], mask[:, :5], empty_past(model.config, 3))
    logits, *_ = function(ids[:, 5:], mask, past)
    assert torch.allclose(logits, model(ids)[:, 5:], atol=1e-4)


@pytest.mark.very_slow
@pytest.mark.parametrize("runtime", [ONNXRUNTIME, TORCH_EXPORT], ids=["onnx", "torch"])
def test_writer_and_runtime_run_in_their_own_processes(tmp_path, tokenizer, runtime):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    target = tmp_path / ("m.onnx" if runtime is ONNXRUNTIME else "m.pt2")
    write_programs(tmp_path / "model", [target])
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=10)
    agreement = compare(target, expected, model, 1e-4, runtime)
    check_agreement(target, agreement, 1e-4, runtime)
    assert agreement.texts == 0


@pytest.mark.slow
def test_a_model_that_is_not_a_decoder_is_a_failed_export(tmp_path, tokenizer):
    store(tmp_path / "model", SHAPES["llama"], tokenizer)
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text().replace('"decoder"', '"bigram"'))
    with pytest.raises(AtlasError, match=r"m\.onnx: torch\.export failed with exit code 1"):
        write_programs(tmp_path / "model", [tmp_path / "m.onnx"])
