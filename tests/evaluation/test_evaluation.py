import math

import pytest
import torch
import torch.nn.functional as F

from atlas.evaluation.perplexity import evaluate_split
from atlas.evaluation.samples import write_samples
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import ShardWriter
from atlas.tokens.windows import EvaluationWindows, TokenSplit
from tests.small import small_config, small_params

SHA = "0" * 64


@pytest.fixture
def split(tmp_path):
    writer = ShardWriter(tmp_path, "val", 400, SHA, 10_000)
    ids = torch.randint(2, 400, (75,), generator=torch.Generator().manual_seed(0)).tolist()
    writer.write(ids)
    writer.close()
    TokenIndex(400, 1, SHA, {"val": SplitIndex(writer.counts, 1, 200)}).write(tmp_path)
    return TokenSplit(tmp_path, "val")


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
    assert measured["bits_per_byte"] == pytest.approx(total / math.log(2) / 200, rel=1e-5)


def test_samples_begin_with_their_prompts(model, tokenizer):
    evaluate = small_params(**{"evaluate.prompts": ["the lamp", ""]}).evaluate
    page = write_samples(model, tokenizer, evaluate)
    assert "\n    the lamp" in page
    assert page == write_samples(model, tokenizer, evaluate)
    assert "temperature 0.8, top-k 50, top-p 0.95, seeds from 1 on" in page
