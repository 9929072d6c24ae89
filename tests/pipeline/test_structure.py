"""dvc.yaml declares exactly what the stages read; imports run one way."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from dvc.repo import Repo

from tests.code_walk import ROOT, code_of, declared_code, imported_names
from tests.pipeline.checkout import STAGES
from tests.pipeline.reruns import RERUNS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# Each folder may import from those before it, and from itself.
ORDER = (
    "errors",
    "params",
    "pipeline",
    "corpora",
    "cleaning",
    "tokens",
    "model",
    "reference",
    "training",
    "inference",
    "evaluation",
    "export",
    "tools",
)
FORBIDDEN = {
    "model": {"tokens"},
    "inference": {"training", "reference"},
    "training": {"reference"},
    "evaluation": {"training", "reference"},
    "export": {"training", "reference", "evaluation"},
}


def test_the_stages_are_the_seven():
    assert tuple(PIPELINE) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage):
    deps = PIPELINE[stage]["deps"]
    assert len(deps) == len(set(deps))
    assert declared_code(deps) == code_of(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_section_it_reads(stage):
    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text())
    sections = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "params"
    }
    assert sections, "the stage reads no params"
    # A dotted key is a single param of another stage's section.
    assert {key.split(".")[0] for key in PIPELINE[stage]["params"]} == sections


def test_every_section_belongs_to_a_stage():
    declared = [key for stage in PIPELINE.values() for key in stage["params"] if "." not in key]
    assert sorted(declared) == sorted(PARAMS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_description_and_metrics_kept_by_git(stage):
    entry = PIPELINE[stage]
    assert entry["desc"]
    assert entry["cmd"] == f"python -m stages.{stage}"
    assert entry["metrics"][0] == {f"metrics/{stage}.json": {"cache": False}}
    assert all(
        settings == {"cache": False} for each in entry["metrics"] for settings in each.values()
    )


@pytest.fixture(scope="module")
def graph():
    return Repo(str(ROOT)).index.graph  # an edge leads from a stage to one it depends on


@pytest.mark.parametrize("param", RERUNS)
def test_a_param_reruns_its_stage_and_nothing_before_it(graph, param):
    """The slow counterpart in test_repro.py really runs each row of the table."""
    _, reruns = RERUNS[param]
    readers = {
        stage.name for stage in graph if param.split(".")[0] in PIPELINE[stage.name]["params"]
    }
    found = set(readers)
    while True:
        more = {a.name for a, b in graph.edges if b.name in found} - found
        if not more:
            break
        found |= more
    assert readers <= set(reruns) <= found


def test_the_table_has_two_params_of_each_stage():
    for stage in STAGES:
        assert len([key for key in RERUNS if key.split(".")[0] in PIPELINE[stage]["params"]]) >= 2


@pytest.mark.parametrize("stage", STAGES[:4])
def test_data_stages_start_without_torch(stage):
    code = f"import sys, stages.{stage}; print({{'torch', 'pandas'}} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == "set()\n"


def test_imports_run_one_way():
    for file in (ROOT / "src/atlas").rglob("*.py"):
        folder = file.relative_to(ROOT / "src/atlas").with_suffix("").parts[0]
        if folder == "__init__":
            continue
        for name in imported_names(file):
            target = name.split(".")
            if target[0] != "atlas" or len(target) < 2 or target[1] not in ORDER:
                continue
            assert ORDER.index(target[1]) <= ORDER.index(folder), f"{file} imports {name}"
            assert target[1] not in FORBIDDEN.get(folder, set()), f"{file} imports {name}"


def test_nothing_in_the_pipeline_depends_on_tools_or_the_reference():
    for stage in STAGES:
        for name in code_of(f"stages.{stage}"):
            assert not name.startswith(("src/atlas/tools/", "src/atlas/reference/")), stage


def test_the_readme_shows_the_pipeline_as_it_is():
    drawn = subprocess.check_output(
        [sys.executable, "-m", "dvc", "dag", "--md"], cwd=ROOT, text=True
    )
    assert re.sub(r"\s+", " ", drawn).strip() in re.sub(
        r"\s+", " ", (ROOT / "README.md").read_text()
    )
