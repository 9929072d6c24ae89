"""General English: the fixed texts, and how they are scored."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atlas.evaluation.general import (
    ScoredText,
    base_metrics,
    general_metrics,
    general_texts,
    text_losses,
)


def test_the_texts_are_plain_and_each_beginning_has_four_endings():
    texts = general_texts()
    assert 12_000 < sum(map(len, texts.passages)) < 20_000
    assert len(set(texts.passages)) == len(texts.passages) >= 60
    assert {len(item) for item in texts.cloze} == {5}
    assert len({beginning for beginning, *_ in texts.cloze}) == len(texts.cloze) >= 100
    for beginning, *endings in texts.cloze:
        assert len(set(endings)) == 4, beginning
        assert "".join([beginning, *endings]).isascii(), beginning
    assert all(text.isascii() for text in texts.passages)


def loss_by_hand(evaluator, ids, first):
    """Each window begins with the token before it, or the end of a document."""
    length, eos = evaluator.model.config.sequence_length, evaluator.tokenizer.eos
    total, padded = 0.0, [eos, *ids]
    for at in range(0, len(ids), length):
        window = torch.tensor(padded[at : at + length + 1])
        with torch.no_grad():
            losses = F.cross_entropy(
                evaluator.model(window[None, :-1])[0], window[1:], reduction="none"
            )
        total += losses[max(0, first - at) :].sum().item()
    return total


def test_losses_of_texts_of_any_length(evaluator):
    generator = np.random.default_rng(0)
    length = evaluator.model.config.sequence_length
    shapes = [(5, 0), (1, 0), (length, 3), (length + 1, 0), (3 * length, length + 4), (9, 8)]
    texts = [
        ScoredText(generator.integers(3, 400, size).tolist(), first) for size, first in shapes * 4
    ]
    expected = [loss_by_hand(evaluator, *text) for text in texts]
    assert text_losses(evaluator, texts).tolist() == pytest.approx(expected, rel=1e-5)


def test_texts_begin_with_bos_if_the_windows_of_a_split_do(evaluator):
    index = replace(evaluator.splits["val"].index, bos=7)
    with_bos = replace(evaluator, splits={"val": SimpleNamespace(index=index)})
    (found,) = text_losses(with_bos, [ScoredText([5, 6])])
    logits = evaluator.model(torch.tensor([[7, 5]]))[0].detach()
    expected = F.cross_entropy(logits, torch.tensor([5, 6]), reduction="sum")
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_an_untrained_model_chooses_at_random(evaluator):
    metrics = general_metrics(evaluator)
    assert set(metrics) == {"general_bits_per_byte", "general_accuracy"}
    assert 0.05 < metrics["general_accuracy"] < 0.5
    assert metrics["general_bits_per_byte"] > 3


def test_the_numbers_of_the_base_stand_beside_those_of_the_model(evaluator, base_folder):
    metrics = base_metrics(evaluator, evaluator.of_base(base_folder))
    general = ["general_bits_per_byte", "general_accuracy"]
    assert list(metrics)[:2] == general
    assert list(metrics)[-2:] == [f"base_{name}" for name in general]
    assert metrics["base_general_bits_per_byte"] != metrics["general_bits_per_byte"]
    same = base_metrics(evaluator, evaluator)
    assert same["base_val_loss"] == evaluator.score("val").loss
    assert same["base_general_accuracy"] == same["general_accuracy"]


def test_the_ending_with_the_highest_likelihood_per_byte_is_chosen(evaluator, monkeypatch):
    """Two nats for six bytes are less per byte than one and a half for two."""
    texts = SimpleNamespace(passages=["a"], cloze=[["a", "sixsix", "of"], ["a", "of", "sixsix"]])
    monkeypatch.setattr("atlas.evaluation.general.general_texts", lambda: texts)
    losses = iter([np.array([0.5]), np.array([2.0, 1.5, 1.5, 2.0])])
    monkeypatch.setattr("atlas.evaluation.general.text_losses", lambda *_: next(losses))
    found = general_metrics(evaluator)
    assert found["general_accuracy"] == 0.5
    assert found["general_bits_per_byte"] == pytest.approx(0.5 / np.log(2))


def test_a_tokenizer_without_english_letters_is_not_measured(evaluator, capsys):
    digits = SimpleNamespace(encode=lambda text: [0] * len(text), unk=0)
    assert general_metrics(replace(evaluator, tokenizer=digits)) == {}
    assert "general text is not measured" in capsys.readouterr().out
