import math

import pytest
import torch
import torch.nn.functional as F

from atlas.evaluation.perplexity import evaluate_split
from atlas.evaluation.samples import write_samples
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from tests.small import small_config, small_params, write_tokens


@pytest.fixture
def split(tmp_path):
    ids = torch.randint(2, 400, (75,), generator=torch.Generator().manual_seed(0)).tolist()
    return TokenSplit(write_tokens(tmp_path, {"val": [[ids]]}), "val")


@pytest.fixture
def model():
    model = Decoder(small_config()).eval()
    initialise(model, 0)
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_loss_perplexity_and_bits_per_byte(split, model, batch_size):
    measured = evaluate_split(model, EvaluationWindows(split, 32, batch_size))
    ids = [1, *split.read(0, 75).tolist()]
    total = 0.0
    for start in (0, 32, 64):
        window = torch.tensor(ids[start : start + 33])
        total += F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="sum").item()
    assert measured["tokens"] == 75
    assert measured["loss"] == pytest.approx(total / 75, rel=1e-5)
    assert measured["perplexity"] == pytest.approx(math.exp(total / 75), rel=1e-4)
    assert measured["bits_per_byte"] == pytest.approx(total / math.log(2) / split.bytes, rel=1e-5)


def test_samples_begin_with_their_prompts(model, tokenizer):
    evaluate = small_params(**{"evaluate.prompts": ["the lamp", ""]}).evaluate
    page = write_samples(model, tokenizer, evaluate)
    assert "\n    the lamp" in page
    assert page == write_samples(model, tokenizer, evaluate)
    assert "temperature 0.8, top-k 50, top-p 0.95, seeds from 1 on" in page
