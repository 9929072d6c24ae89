"""The models of all presets, made small and as sharp as after training, in the real runtimes."""

import pytest

from atlas.export.check.agreement import check_agreement, compare, expect
from atlas.export.export import TOLERANCE
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face import write_hugging_face
from atlas.params.presets import with_presets
from atlas.params.runtime_support import architecture_of, class_of
from tests.code_walk import ROOT
from tests.export.models import InProcess, bundle_of, store
from tests.small import text

VAL = [text(seed, sentences=6) for seed in range(500, 504)]
MOST = {"n_layer": 4, "d_model": 128, "n_head": 4, "d_ff": 352, "context_length": 96}


def models():
    """Options of each preset's model, with the names of the presets that have it."""
    found = {}
    names = {path.stem for path in (ROOT / "presets").glob("*.yaml")}
    for name in sorted(names - {"lora"}):  # changes the training of another preset's model
        params = with_presets(ROOT, [name])
        options = params.model.model_dump()
        groups = options["n_head"] // options["n_kv_head"]
        options |= {key: min(options[key], most) for key, most in MOST.items()}
        options |= {"n_kv_head": max(1, options["n_head"] // groups), "dropout": 0.0}
        options["add_bos_token"] = params.tokenize.windows == "padded"
        found.setdefault(tuple(sorted(options.items())), []).append(name)
    for key, names in found.items():
        yield pytest.param(dict(key), id="-".join(names))


@pytest.mark.parametrize("deviation", [10, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", list(models()))
def test_sharp_models_of_presets_agree(tmp_path, tokenizer, options, deviation):
    model = store(tmp_path / "model", options, tokenizer, deviation)
    source = bundle_of(tmp_path / "model", tokenizer)
    expected = expect(model, tokenizer, VAL, prompts=3, greedy_tokens=60)
    assert expected.logit_deviation == pytest.approx(deviation, rel=0.2)
    architecture, kind = (find(model.config.model_dump()) for find in (architecture_of, class_of))
    write_gguf(tmp_path / "m.gguf", source, architecture, "f32")
    write_hugging_face(tmp_path / "hf", source, kind)
    for file, runtime, tolerance in (
        (tmp_path / "m.gguf", "llama.cpp", architecture.logit_tolerance),
        (tmp_path / "hf", "transformers", TOLERANCE),
    ):
        allowed = tolerance * expected.error_scale
        agreement = compare(file, expected, model, allowed, InProcess(runtime))
        check_agreement(file, agreement, allowed)
        assert agreement.greedy_mismatches == 0
