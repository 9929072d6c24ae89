"""Load a model of text and measure whole splits."""

import json
import math
import shutil

import pytest

from atlas.errors import AtlasError
from atlas.evaluation.evaluator import Questions
from atlas.evaluation.scores import score_batches, sliding_windows
from atlas.model.transformer import Decoder
from atlas.model.weights import save_weights
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from tests.evaluation.evaluators import EVALUATE, load_evaluator
from tests.small import EOS, small_config, write_tokens


def test_metrics_of_model_sliding_windows_and_baselines(evaluator):
    metrics = evaluator.metrics("val", evaluator.score("val"))
    assert metrics["tokens"] == len(evaluator.splits["val"])
    for prefix in ("", "sliding_", "unigram_", "bigram_"):
        loss = metrics[f"{prefix}loss"]
        assert metrics[f"{prefix}perplexity"] == pytest.approx(math.exp(loss))
        bits = loss * metrics["tokens"] / math.log(2)
        size = evaluator.splits["val"].bytes
        assert metrics[f"{prefix}bits_per_byte"] == pytest.approx(bits / size)
    assert metrics["bigram_loss"] < metrics["unigram_loss"] < metrics["loss"]  # untrained model
    assert 0 <= metrics["accuracy"] <= 1
    assert 0 <= metrics["calibration_error"] <= 1


def test_without_a_stride_there_are_no_sliding_metrics(stage_outputs):
    params = EVALUATE.model_copy(update={"stride": None})
    evaluator = load_evaluator(stage_outputs, params)
    assert "sliding_loss" not in evaluator.metrics("val", evaluator.score("val"))


def test_best_or_last_weights(stage_outputs, evaluator):
    last = load_evaluator(stage_outputs, EVALUATE.model_copy(update={"weights": "last"}))
    assert last.score("val").loss != evaluator.score("val").loss


def test_a_model_of_another_tokenizer_is_refused(stage_outputs, tmp_path):
    folder = shutil.copytree(stage_outputs, tmp_path / "project")
    config = small_config(vocab_size=400, tokenizer_sha256="f" * 64)
    config.write(folder / "model")
    save_weights(Decoder(config), folder / "model/model.safetensors")
    with pytest.raises(AtlasError, match="not the tokenizer that"):
        load_evaluator(folder)


def test_the_base_is_measured_in_the_same_windows(evaluator, stage_outputs, base_folder):
    base = evaluator.of_base(base_folder)
    last = load_evaluator(stage_outputs, EVALUATE.model_copy(update={"weights": "last"}))
    found, expected = base.held_out_metrics(), last.held_out_metrics()
    names = ("loss", "perplexity", "bits_per_byte", "accuracy")
    assert list(found) == [f"{split}_{name}" for split in ("val", "test") for name in names]
    assert found == pytest.approx(expected, rel=1e-3)  # bfloat16
    assert found["val_loss"] != evaluator.score("val").loss


def test_windows_are_as_long_as_in_training(evaluator, stage_outputs, base_folder, tmp_path):
    folder = shutil.copytree(stage_outputs, tmp_path / "project")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | {"sequence_length": 8}))
    short = load_evaluator(folder)
    scores = short.score("val")
    val, windows = short.splits["val"], EvaluationWindows(short.splits["val"], 8, 3)
    expected = score_batches(evaluator.model, windows.all())
    assert scores.losses == pytest.approx(expected.losses, rel=1e-4)
    sliding = score_batches(evaluator.model, sliding_windows(val, 8, 4, 3))
    assert short.metrics("val", scores)["sliding_loss"] == pytest.approx(sliding.loss, rel=1e-5)
    base = evaluator.of_base(base_folder)
    expected = score_batches(base.model, windows.all())
    assert short.of_base(base_folder).score("val").loss == pytest.approx(expected.loss, rel=1e-5)


def test_training_from_scratch_has_no_base(evaluator, tmp_path):
    (tmp_path / ".gitkeep").touch()
    assert evaluator.of_base(tmp_path) is None


def test_a_base_of_another_tokenizer_is_refused(evaluator, base_folder, tmp_path):
    folder = shutil.copytree(base_folder, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_sha256": "f" * 64}))
    with pytest.raises(AtlasError, match="base was trained with"):
        evaluator.of_base(folder)


def test_only_tokens_the_model_was_trained_on_count_as_training_text(stage_outputs, tmp_path):
    folder = shutil.copytree(stage_outputs, tmp_path / "project")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | {"learned_tokens": 30}))
    evaluator = load_evaluator(folder)
    assert len(evaluator.splits["train"]) == 30
    assert evaluator.bigram_counts.read == 30


def test_documents_are_cut_after_the_first_separator(tmp_path):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, 9, EOS], [4, EOS]]
    tokens = write_tokens(tmp_path, {"val": [documents]}, windows="padded", separator=9)
    questions = Questions.from_split(TokenSplit(tokens, "val"))
    assert questions.prompts == [[5, 9], [7, 7, 9], [4, EOS]]
    assert questions.answers == [[6], [8, 9], []]
