"""dvc.yaml says exactly what the stages read, and the house keeps its order."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from dvc.repo import Repo

from atlas.params import leaves
from tests.code_walk import MAY_NOT_SHAPE_AN_OUTPUT, ROOT, code_of, imported_names
from tests.pipeline.checkout import STAGES
from tests.pipeline.reruns import RERUNS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
ORDER = (
    "corpora",
    "cleaning",
    "tokens",
    "model",
    "reference",
    "generation",
    "training",
    "evaluation",
    "export",
    "serve",
    "report",
    "studies",
)


def test_the_stages_are_the_seven():
    assert tuple(PIPELINE) == STAGES


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_imports(stage):
    declared = [dep for dep in PIPELINE[stage]["deps"] if dep.endswith(".py")]
    assert len(declared) == len(set(declared))
    assert set(declared) == code_of(f"stages.{stage}")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_every_param_of_the_sections_it_reads(stage):
    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text())
    sections = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "params"
    }
    assert sections, "the stage reads no params"
    read = [key for key, _ in leaves(PARAMS) if key.split(".")[0] in sections]
    assert [key for key in PIPELINE[stage]["params"] if "." in key] == read
    assert {key for key in PIPELINE[stage]["params"] if "." not in key} == sections


def test_every_param_belongs_to_a_stage():
    declared = [key for stage in PIPELINE.values() for key in stage["params"] if "." in key]
    assert sorted(declared) == sorted(key for key, _ in leaves(PARAMS))


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
    return Repo(str(ROOT)).index.graph  # an edge leads from a stage to one that it needs


@pytest.mark.parametrize("param", RERUNS)
def test_a_param_reruns_its_stage_and_nothing_before_it(graph, param):
    """The slow test beside it in test_repro.py runs each row of the table for real."""
    _, reruns = RERUNS[param]
    readers = {stage.name for stage in graph if param in PIPELINE[stage.name]["params"]}
    found = set(readers)
    while True:
        more = {a.name for a, b in graph.edges if b.name in found} - found
        if not more:
            break
        found |= more
    assert readers <= set(reruns) <= found


def test_the_table_has_two_params_of_each_stage():
    for stage in STAGES:
        assert len([key for key in RERUNS if key in PIPELINE[stage]["params"]]) >= 2


@pytest.mark.parametrize("stage", STAGES[:4])
def test_data_stages_start_without_torch(stage):
    code = f"import sys, stages.{stage}; print({{'torch', 'pandas'}} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == "set()\n"


def test_imports_run_one_way():
    for file in (ROOT / "src/atlas").rglob("*.py"):
        parts = file.relative_to(ROOT / "src/atlas").parts
        for name in imported_names(file):
            target = name.split(".")
            if target[0] != "atlas" or len(target) < 2 or target[1] not in ORDER:
                continue
            if parts[0] not in ORDER:
                assert parts[0] == "commands", f"{file} imports {name}"
            else:
                assert ORDER.index(target[1]) <= ORDER.index(parts[0]), f"{file} imports {name}"


def test_folders_hand_nothing_on_so_that_imports_stay_exact():
    for file in (ROOT / "src/atlas").rglob("__init__.py"):
        (docstring,) = ast.parse(file.read_text()).body
        assert isinstance(docstring, ast.Expr), file


def test_what_no_stage_depends_on_is_left_out_on_purpose():
    library = {p.relative_to(ROOT).as_posix() for p in (ROOT / "src/atlas").rglob("*.py")}
    used = set().union(*(code_of(f"stages.{stage}") for stage in STAGES))
    rest = {name for name in library - used if not name.endswith("__init__.py")}
    names = (
        *("cli", "presets", "show", "model/summary", "tokens/byte_pair", "training/sanity"),
        *("console", "export/command", "export/gguf/inspect", "generation/command"),
        *("generation/chat", "generation/options", "generation/text_stream"),
    )
    tools = {f"src/atlas/{name}.py" for name in names}
    folders = ("commands", "generation/opened", "serve", "report", "studies")
    tools |= {
        name for name in library if any(name.startswith(f"src/atlas/{each}/") for each in folders)
    }
    tools = {name for name in tools if not name.endswith("__init__.py")}
    teaching = {name for name in library if name.startswith("src/atlas/reference/")}
    assert rest - teaching == MAY_NOT_SHAPE_AN_OUTPUT | tools


def test_files_stay_short():
    for folder in ("src", "stages", "bench", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 300, file


def test_the_readme_shows_the_pipeline_as_it_is():
    drawn = subprocess.check_output(
        [sys.executable, "-m", "dvc", "dag", "--md"], cwd=ROOT, text=True
    )
    assert re.sub(r"\s+", " ", drawn).strip() in re.sub(
        r"\s+", " ", (ROOT / "README.md").read_text()
    )
