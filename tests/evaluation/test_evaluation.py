"""A model of text, judged whole."""

import json
import math
import shutil

import pandas as pd
import pytest
import torch

from atlas.errors import AtlasError
from atlas.evaluation.evaluator import Subject
from atlas.evaluation.interpretability import look_inside
from atlas.evaluation.samples import continuations, excerpts, page_of, prompts_of
from atlas.evaluation.tables import write_samples, write_split_tables
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise, make_model
from atlas.model.storage import LAST_WEIGHTS, save_weights
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import document_prompts
from tests.small import small_config, small_params, write_documents, write_tokens

EVALUATE = small_params(**{"evaluate.free_samples": 5, "evaluate.sample_tokens": 12}).evaluate
VAL_ROWS = {"step": [1], "loss": [1.0], "accuracy": [0.5], "weight_norm": [1.0]}


@pytest.fixture(scope="module")
def written(tmp_path_factory, tokenizer, documents):
    """What the stages before evaluate wrote."""
    folder = tmp_path_factory.mktemp("project")
    parts = {"train": documents[:80], "val": documents[80:90], "test": documents[90:100]}
    for split, some in parts.items():
        write_documents(folder / "clean" / split, some)
    ids = {
        split: [[[*tokenizer.encode(each.text), tokenizer.eos] for each in some]]
        for split, some in parts.items()
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
        initialise(model, seed)
        save_weights(model, folder / "model" / name)
    tokenizer.save(folder / "tokenizer")
    return folder


def subject_of(written, evaluate=EVALUATE):
    return Subject.load(
        *(written / name for name in ("model", "tokenizer", "tokens", "clean")),
        evaluate,
        torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def subject(written):
    return subject_of(written)


def test_a_split_has_its_numbers_plain_sliding_and_of_counting(subject):
    scores = subject.scores("val")
    found = subject.measure("val", scores)
    assert found["tokens"] == len(subject.splits["val"])
    for prefix in ("", "sliding_", "unigram_", "bigram_"):
        loss = found[f"{prefix}loss"]
        assert found[f"{prefix}perplexity"] == pytest.approx(math.exp(loss))
        spent = loss * found["tokens"] / math.log(2)
        assert found[f"{prefix}bits_per_byte"] == pytest.approx(spent / subject.splits["val"].bytes)
    assert found["bigram_loss"] < found["unigram_loss"] < found["loss"]  # it was not trained
    assert 0 <= found["accuracy"] <= 1
    assert 0 <= found["calibration_error"] <= 1


def test_without_a_stride_there_is_no_sliding_measure(written):
    subject = subject_of(written, EVALUATE.model_copy(update={"stride": None}))
    assert "sliding_loss" not in subject.measure("val", subject.scores("val"))


def test_best_or_last_weights(written, subject):
    last = subject_of(written, EVALUATE.model_copy(update={"weights": "last"}))
    assert last.scores("val").loss != subject.scores("val").loss


def test_a_model_of_another_tokenizer_is_refused(written, tmp_path):
    config = small_config(vocab_size=400, tokenizer_sha256="f" * 64)
    config.write(tmp_path)
    save_weights(Decoder(config), tmp_path / "model.safetensors")
    with pytest.raises(AtlasError, match="of another tokenizer"):
        Subject.load(
            tmp_path,
            *(written / name for name in ("tokenizer", "tokens", "clean")),
            EVALUATE,
            torch.device("cpu"),
        )


def test_tables_of_a_text(subject, tmp_path):
    scores = subject.scores(subject.judge)
    write_split_tables(subject, scores, tmp_path)
    documents = pd.read_csv(tmp_path / "documents.csv")
    assert len(documents) == 10
    assert documents["tokens"].sum() == len(subject.splits["test"])
    mean = (documents["loss"] * documents["tokens"]).sum() / documents["tokens"].sum()
    assert mean == pytest.approx(scores.loss, rel=1e-6)
    assert {path.stem for path in tmp_path.glob("*.csv")} == {
        "documents",
        "sources",
        "calibration",
        "confusion",
    }


def test_what_is_seen_inside_a_model_of_text(subject, tmp_path):
    assert look_inside(subject, pd.DataFrame(VAL_ROWS), tmp_path, tmp_path) == {}
    names = {path.name for path in tmp_path.iterdir()}
    maps = {f"attention-{number}.png" for number in (1, 2)}  # of each prompt
    assert names == {"dynamics.png", "heads.csv", "heads.png"} | maps


def test_samples_are_held_against_the_training_text_and_real_text(subject, tmp_path):
    found = write_samples(subject, tmp_path / "samples.md", tmp_path)
    table = pd.read_csv(tmp_path / "samples.csv", keep_default_na=False)
    assert len(table) == 5
    assert found["samples_longest_match"] == table["match"].max()
    assert found["samples_mean_match"] == pytest.approx(table["match"].mean())
    assert found["samples_copied"] == 0
    assert 0 < found["real_text_distinct_1"] < found["samples_distinct_1"]
    page = (tmp_path / "samples.md").read_text()
    assert "\n    the lamp" in page
    assert "Written from nothing" in page
    again = write_samples(subject, tmp_path / "again.md", tmp_path)
    assert (again, (tmp_path / "again.md").read_text()) == (found, page)


def test_text_of_the_training_text_is_found_to_be_copied(subject):
    from atlas.evaluation.memorisation import copied, longest_matches

    train = subject.splits["train"]
    pieces = excerpts(train, [20, 20, 12, 20])
    matches = longest_matches(pieces, train)
    assert matches == list(map(len, pieces))
    assert copied(pieces, [20, 20, 12, 20]) == 1


def test_pieces_of_real_text_are_as_long_as_they_should_be_and_do_not_overlap(tmp_path):
    documents = [[*range(10, 17), 1], [*range(20, 23), 1], [*range(30, 39), 1]]
    val = TokenSplit(write_tokens(tmp_path, {"val": [documents]}), "val")
    pieces = excerpts(val, [5, 3, 4, 5, 5, 5, 5])
    assert pieces == [[10, 11, 12, 13, 14], [15, 16, 1], [20, 21, 22, 1], [30, 31, 32, 33, 34],
                      [35, 36, 37, 38, 1]]  # fmt: skip
    assert excerpts(val, [5, 5]) == [[10, 11, 12, 13, 14], [35, 36, 37, 38, 1]]
    assert excerpts(val, []) == excerpts(val, [0, 0]) == []


def test_what_was_not_learned_from_is_no_training_text(written, tmp_path):
    shutil.copytree(written / "model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(config | {"learned_tokens": 30}))
    few = Subject.load(
        tmp_path / "model",
        *(written / name for name in ("tokenizer", "tokens", "clean")),
        EVALUATE,
        torch.device("cpu"),
    )
    assert len(few.splits["train"]) == 30
    assert few.pairs.read == 30


def test_more_samples_than_grow_together_have_seeds_that_follow(subject):
    three = EVALUATE.model_copy(update={"seed": 3})
    all_of_them = continuations(subject.model, [[]] * 70, EVALUATE)
    assert all_of_them[2:12] == continuations(subject.model, [[]] * 10, three)
    assert len(all_of_them) == 70


def test_samples_begin_with_their_prompts(subject):
    prompts = prompts_of(["the lamp", ""], subject.tokenizer, subject.splits["val"])
    assert prompts[1] == []
    page = page_of(prompts, [], subject.tokenizer, EVALUATE)
    assert "\n    the lamp" in page
    assert "temperature 0.8, top-k 50, top-p 0.95, seeds from 1 on" in page


def test_without_prompts_samples_begin_as_val_does(tmp_path, subject):
    val = subject.splits["val"]
    assert prompts_of([], subject.tokenizer, val)[0] == val.read(0, 8).tolist()
    documents = [[n, n, 9, 6, 1] for n in range(10, 30)]
    tokens = TokenSplit(write_tokens(tmp_path, {"val": [documents]}, 400, "padded", 9), "val")
    found = document_prompts(tokens, 6)
    assert (found[0], found[-1]) == ([10, 10, 9], [29, 29, 9])
    assert len(found) == 6
    assert all(len(ids) == 3 for ids in found)


def test_a_prompt_of_a_short_document_does_not_end_it(tmp_path):
    tokens = write_tokens(tmp_path, {"val": [[[5, 6, 1], [7, 1], [*range(10, 30), 1], [1]]]})
    assert document_prompts(TokenSplit(tokens, "val"), 4) == [[5, 6], [7], [*range(10, 18)], [1]]


def test_a_model_of_questions_wants_one():
    model = make_model(small_config(kind="encoder_decoder", separator=9)).eval()
    initialise(model, 0)
    with pytest.raises(AtlasError, match="the prompt ends no question"):
        continuations(model, [[5, 6]], EVALUATE)
