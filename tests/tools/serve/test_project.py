"""The parts of a project that the page shows."""

from types import SimpleNamespace

import pytest
import yaml

from atlas.tools.serve.project import (
    MAX_CURVE_POINTS,
    example_prompts,
    find_training_project,
    load_curves,
    load_heads,
)
from tests.small import params_tree, write_tokens

HEADS = "layer,head,previous,first,itself,same,induction,role\n"


@pytest.fixture
def project(tmp_path, tokenizer):
    """A project with a tokenizer, and without prompts or documents."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "models/own").mkdir(parents=True)
    tokenizer.save(tmp_path / "models/tokenizer")
    write_prompts(tmp_path)
    return tmp_path


def write_prompts(project, *prompts: str) -> None:
    params = params_tree(**{"evaluate.prompts": list(prompts)})
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def write_val(project, tokenizer, *texts: str, known=None) -> None:
    documents = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    write_tokens(project / "data/tokens", {"val": [documents]}, tokenizer=known or tokenizer)


def test_curves_are_thinned(tmp_path):
    rows = [f"{step},{5 - step / 1000},{5 - step / 1000}" for step in range(1, 1201)]
    (tmp_path / "train.csv").write_text("\n".join(["step,loss,loss_average", *rows]))
    (tmp_path / "val.csv").write_text("step,loss\n0,7.5\n100,4.5\n")
    curves = load_curves(tmp_path)
    assert curves["val"] == [[0, 7.5], [100, 4.5]]
    assert curves["train"][0] == [1, 4.999]
    assert len(curves["train"]) == len(curves["train_average"]) <= MAX_CURVE_POINTS


@pytest.mark.parametrize("content", ["", "step\n1\n", "step,loss\n1,x\n", "step,loss\n1\n"])
def test_missing_and_damaged_curves_are_omitted(tmp_path, content):
    (tmp_path / "val.csv").write_text(content)
    assert load_curves(tmp_path) == {}
    assert load_curves(tmp_path / "nothing") == {}
    assert load_curves(None) == {}


def test_a_head_is_named_after_its_highest_score(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/heads.csv").write_text(
        f"{HEADS}1,1,0.1,0.2,0.05,0.1,0.1,\n1,2,0.1,0,0,0,0.75,induction\n"
    )
    assert load_heads(tmp_path) == [
        {"layer": 1, "head": 1, "kind": "first token", "score": 0.2, "is_role": False},
        {"layer": 1, "head": 2, "kind": "induction", "score": 0.75, "is_role": True},
    ]


@pytest.mark.parametrize(
    "content",
    ["", HEADS, "layer,head\n1,1\n", f"{HEADS}1,x,1,1,1,1,1,\n", f"{HEADS}1,1,,1,1,1,1,\n"],
)
def test_missing_and_damaged_head_scores_are_omitted(tmp_path, content):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/heads.csv").write_text(content)
    assert load_heads(tmp_path) == []
    assert load_heads(tmp_path / "nothing") == load_heads(None) == []


def test_a_model_belongs_to_the_project_that_wrote_it(project, tmp_path, monkeypatch):
    assert find_training_project(project / "models/model") == project
    assert find_training_project(project / "models/export/atlas-q8_0.gguf") == project
    assert find_training_project(project / "models/downloaded") is None
    assert find_training_project(tmp_path.parent / "elsewhere.gguf") is None
    monkeypatch.chdir(project / "models")
    assert find_training_project((project / "models/model").relative_to(project / "models"))


def test_examples_are_the_projects_own_prompts_then_beginnings_of_val(project, opened, tokenizer):
    assert example_prompts(project, opened) == ()  # no text yet
    texts = [f"the {noun} holds the old lamp under the river" for noun in ("stone", "lamp")]
    write_val(project, tokenizer, *texts)
    beginnings = example_prompts(project, opened)
    assert len(beginnings) == 2
    assert all(text.startswith(start) for text, start in zip(texts, beginnings, strict=True))
    write_prompts(project, "", "a lamp", "a lamp", "long " * 400, "a river")
    assert example_prompts(project, opened) == ("a lamp", "a river", beginnings[0])
    (project / "params.yaml").write_text("train: [")
    assert example_prompts(project, opened) == beginnings


def test_tokens_of_another_tokenizer_give_no_examples(project, opened, tokenizer):
    other = SimpleNamespace(eos=tokenizer.eos, pad=tokenizer.pad, sha256="0" * 64)
    write_val(project, tokenizer, "the stone holds the lamp", known=other)
    assert example_prompts(project, opened) == ()
