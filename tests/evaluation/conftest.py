"""Outputs of the earlier stages for an untrained model of text."""

from pathlib import Path

import pytest
import safetensors.torch

from atlas.evaluation.evaluator import Evaluator
from atlas.model.config import ModelConfig
from atlas.model.transformer import Decoder
from atlas.model.weights import LAST_WEIGHTS, WEIGHTS, initialize, save_weights, write_weights
from tests.evaluation.evaluators import load_evaluator
from tests.small import small_config, write_documents, write_tokens


@pytest.fixture(scope="session")
def stage_outputs(tmp_path_factory, tokenizer, documents) -> Path:
    """A folder with tokenizer, clean documents, tokens, and a model with best and last weights."""
    folder = tmp_path_factory.mktemp("project")
    splits = {"train": documents[:80], "val": documents[80:90], "test": documents[90:100]}
    for split, chosen in splits.items():
        write_documents(folder / "clean" / split, chosen)
    ids = {
        split: [[[*tokenizer.encode(each.text), tokenizer.eos] for each in chosen]]
        for split, chosen in splits.items()
    }
    write_tokens(folder / "tokens", ids, tokenizer.vocab_size, tokenizer=tokenizer)
    config = small_config(
        vocab_size=tokenizer.vocab_size,
        eos=tokenizer.eos,
        tokenizer_sha256=tokenizer.sha256,
        learned_tokens=sum(map(len, ids["train"][0])),
    )
    (folder / "model").mkdir()
    config.write(folder / "model")
    for name, seed in (("model.safetensors", 0), (LAST_WEIGHTS, 1)):
        model = Decoder(config)
        initialize(model, seed)
        save_weights(model, folder / "model" / name)
    tokenizer.save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def evaluator(stage_outputs) -> Evaluator:
    return load_evaluator(stage_outputs)


@pytest.fixture(scope="session")
def base_folder(stage_outputs) -> Path:
    """A folder like models/base: the last weights, in 16 bits, of a model with a longer context."""
    folder = stage_outputs / "base"
    folder.mkdir()
    config = ModelConfig.read(stage_outputs / "model")
    longer = {"context_length": 2 * config.context_length}
    config.model_copy(update=longer).write(folder)
    weights = safetensors.torch.load_file(stage_outputs / "model" / LAST_WEIGHTS)
    half = {name: weight.bfloat16() for name, weight in weights.items()}
    write_weights(half, folder / WEIGHTS)
    return folder
