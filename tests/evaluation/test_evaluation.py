import math

import pytest
import torch
import torch.nn.functional as F

from atlas.errors import AtlasError
from atlas.evaluation.perplexity import evaluate_split
from atlas.evaluation.samples import write_samples
from atlas.generation.prompts import beginnings
from atlas.model.decoder import Decoder
from atlas.model.initialise import initialise
from atlas.model.make import make_model
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


def test_of_questions_the_answers_alone_are_measured(tmp_path, model):
    tokens = write_tokens(tmp_path, {"val": [[[5, 9, 6, 1], [7, 7, 9, 8, 1]]]}, 400, "padded", 9)
    measured = evaluate_split(model, EvaluationWindows(TokenSplit(tokens, "val"), 32, 2))
    assert measured["tokens"] == 4
    assert "bits_per_byte" not in measured


def test_samples_begin_with_their_prompts(model, tokenizer, split):
    evaluate = small_params(**{"evaluate.prompts": ["the lamp", ""]}).evaluate
    page = write_samples(model, tokenizer, split, evaluate)
    assert "\n    the lamp" in page
    assert page == write_samples(model, tokenizer, split, evaluate)
    assert "temperature 0.8, top-k 50, top-p 0.95, seeds from 1 on" in page


def test_without_prompts_samples_begin_as_val_does(tmp_path, model, tokenizer, split):
    evaluate = small_params(**{"evaluate.prompts": []}).evaluate
    start = tokenizer.decode(split.read(0, 8).tolist()).split("\n")[0]
    assert start in write_samples(model, tokenizer, split, evaluate)
    documents = [[n, n, 9, 6, 1] for n in range(10, 30)]
    tokens = TokenSplit(write_tokens(tmp_path, {"val": [documents]}, 400, "padded", 9), "val")
    found = beginnings(tokens, 6)
    assert (found[0], found[-1]) == ([10, 10, 9], [29, 29, 9])
    assert len(found) == 6
    assert all(len(ids) == 3 for ids in found)


def test_a_model_of_questions_wants_one(tokenizer, split):
    config = small_config(kind="encoder_decoder", separator=9)
    model = make_model(config).eval()
    initialise(model, 0)
    evaluate = small_params(**{"evaluate.prompts": ["the lamp"]}).evaluate
    with pytest.raises(AtlasError, match="the prompt ends no question"):
        write_samples(model, tokenizer, split, evaluate)
