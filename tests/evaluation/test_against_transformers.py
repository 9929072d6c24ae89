"""Bits per byte equal those of a plain loop in transformers over the exported folder."""

import math

import pytest
import torch
import transformers

from atlas.cleaning.documents import SPLITS, Document
from atlas.evaluation.evaluator import Evaluator
from atlas.export.hugging_face import write_hugging_face
from atlas.params.runtime_support import class_of
from atlas.tokens.shards import TokenSplit
from tests.export.models import SHAPES, bundle_of, store
from tests.small import small_params, text, write_documents, write_tokens

LENGTH = SHAPES["llama"]["context_length"]
DOCUMENTS = [Document(str(seed), "made up", text(seed, 20)) for seed in range(700, 706)]


@pytest.fixture(scope="module")
def both(tmp_path_factory, tokenizer):
    """The same model in an evaluator and in transformers."""
    folder = tmp_path_factory.mktemp("both")
    model = store(folder / "model", SHAPES["llama"], tokenizer)
    kind = class_of(model.config.model_dump())
    write_hugging_face(folder / "hf", bundle_of(folder / "model", tokenizer), kind)
    write_documents(folder / "clean/val", DOCUMENTS)
    ids = [[*tokenizer.encode(each.text), tokenizer.eos] for each in DOCUMENTS]
    tokens = write_tokens(
        folder / "tokens",
        {split: [ids] for split in SPLITS},
        tokenizer.vocab_size,
        tokenizer=tokenizer,
    )
    splits = {split: TokenSplit(tokens, split) for split in SPLITS}
    size = sum(len(each.text.encode()) for each in DOCUMENTS)
    for split in splits.values():
        split.bytes = size
    evaluate = small_params(**{"evaluate.stride": 0.25}).evaluate
    evaluator = Evaluator(model, tokenizer, splits, folder / "clean", evaluate)
    return (
        evaluator,
        transformers.AutoModelForCausalLM.from_pretrained(folder / "hf"),
        folder / "hf",
    )


def bits_per_byte(theirs, folder, stride):
    """Compute bits per byte of all documents joined, each window by itself."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.eos_token_id]
    for document in DOCUMENTS:
        ids += [*tokenizer(document.text, add_special_tokens=False).input_ids, ids[0]]
    bits, counted = 0.0, 1
    while counted < len(ids):
        end = min(counted + (stride if counted > 1 else LENGTH), len(ids))
        start = max(0, end - 1 - LENGTH) if stride < LENGTH else counted - 1
        with torch.no_grad():
            logits = theirs(torch.tensor([ids[start : end - 1]])).logits[0].double()
        for position in range(counted, end):
            log_probability = logits[position - 1 - start].log_softmax(-1)[ids[position]]
            bits -= log_probability.item() / math.log(2)
        counted = end
    return bits / sum(len(each.text.encode()) for each in DOCUMENTS)


@pytest.mark.parametrize(("name", "stride"), [("", LENGTH), ("sliding_", LENGTH // 4)])
def test_bits_per_byte_equal_those_of_transformers(both, name, stride):
    evaluator, theirs, folder = both
    metrics = evaluator.metrics("val", evaluator.score("val"))
    expected = bits_per_byte(theirs, folder, stride)
    assert metrics[f"{name}bits_per_byte"] == pytest.approx(expected, abs=1e-4)
    assert expected > 1
