import json

import pytest

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export import export_gguf as module
from atlas.export.export_gguf import export_gguf
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.model.storage import save_weights
from atlas.tokens.split import TokenSplit
from tests.small import small_config, small_params, text, write_tokens

VAL = [Document(f"v{seed}", "s", text(seed)) for seed in range(900, 904)]


@pytest.fixture
def model(tmp_path, tokenizer):
    config = small_config(vocab_size=tokenizer.vocab_size, tokenizer_sha256=tokenizer.sha256, eos=1)
    decoder = Decoder(config)
    initialise(decoder, 0)
    config.write(tmp_path)
    save_weights(decoder, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def val(tmp_path, tokenizer):
    ids = [tokenizer.encode(document.text) for document in VAL]
    folder = write_tokens(tmp_path / "tokens", {"val": [ids]}, tokenizer.vocab_size)
    return TokenSplit(folder, "val")


def export_params(**changes):
    return small_params(**{f"export.{key}": value for key, value in changes.items()}).export


def test_only_the_formats_asked_for_stay_and_all_are_checked(model, tokenizer, val, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    export = export_params(formats=["q8_0"], name="mine")
    metrics, speeds = export_gguf(model, tokenizer, VAL, val, export, folder)
    assert [path.name for path in folder.iterdir()] == ["mine-q8_0.gguf"]
    assert metrics["architecture"] == "llama"
    assert metrics["token_mismatches"] == 0
    assert metrics["logit_difference"] < 1e-4 < metrics["q8_0_logit_difference"]
    assert metrics["q8_0_bytes"] == (folder / "mine-q8_0.gguf").stat().st_size
    assert metrics["q8_0_types"] == "15 q8_0"
    assert metrics["q8_0_perplexity"] == pytest.approx(metrics["perplexity"], rel=0.02)
    assert 0 < metrics["q8_0_kl_divergence"] < 1e-3
    assert 0.9 < metrics["q8_0_top_1_agreement"] <= 1
    assert speeds["q8_0_tokens_per_second"] > 0
    assert "f32_bytes" not in metrics


def test_a_model_without_an_architecture_is_refused(model, tokenizer, val, tmp_path):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"window": 5}))
    with pytest.raises(AtlasError, match=r"llama\.cpp has no architecture for it"):
        export_gguf(model, tokenizer, VAL, val, export_params(), tmp_path)


def test_the_wrong_tokenizer_is_refused(model, tokenizer, val, tmp_path):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(AtlasError, match="models/tokenizer: of another tokenizer"):
        export_gguf(model, tokenizer, VAL, val, export_params(), tmp_path)


def test_a_disagreement_stops_the_export(model, tokenizer, val, tmp_path, monkeypatch):
    write = module.write_gguf

    def write_another(path, *arguments):
        decoder = Decoder(small_config(vocab_size=tokenizer.vocab_size))
        initialise(decoder, 1)
        save_weights(decoder, model / "model.safetensors")
        write(path, *arguments)

    monkeypatch.setattr(module, "write_gguf", write_another)
    with pytest.raises(AtlasError, match=r"f32\.gguf: llama\.cpp does not agree"):
        export_gguf(model, tokenizer, VAL, val, export_params(), tmp_path)


def test_a_very_large_split_is_compared_in_part():
    texts = module._texts(VAL, most_characters=len(VAL[0].text) + 5)
    assert texts == [VAL[0].text, VAL[1].text[:5]]
    assert len(module._texts(VAL, most_characters=10**9)) == 4
