import shutil

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import example, given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.transformer import Decoder
from atlas.params import presets
from atlas.params.schema import Params, load_params
from tests.code_walk import ROOT

NAMES = presets.available(ROOT)


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return tmp_path


def apply(project, values):
    """Write values into params.yaml; return a line per change."""
    text, changes = presets.apply(project, values)
    (project / "params.yaml").write_text(text)
    return changes


def test_the_documented_presets_exist():
    assert {"tiny", "small", "medium", "shakespeare", "char"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_preset_is_valid_and_can_be_passed_through_a_shell(name):
    flags = presets.as_flags(presets.overlay(ROOT, [name])).split()
    assert flags[::2] == ["-S"] * (len(flags) // 2)
    assert all("=" in flag for flag in flags[1::2])


def test_tiny_is_the_default():
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in presets.overlay(ROOT, ["tiny"]).items():
        section, name = key.split(".")
        assert tree[section][name] == value


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("tiny", 0.9e6, 1.1e6), ("small", 50e6, 150e6), ("medium", 330e6, 380e6)],
)
def test_sizes(project, name, least, most):
    apply(project, presets.overlay(project, [name]))
    params = load_params(project / "params.yaml")
    config = ModelConfig(
        **params.model.model_dump(),
        vocab_size=params.tokenizer.vocab_size,
        eos=1,
        separator=None,
        add_bos_token=False,
        tokenizer_sha256="",
        learned_tokens=0,
    )
    with torch.device("meta"):
        assert least < Decoder(config).parameter_count() < most


def test_a_later_preset_wins():
    assert presets.overlay(ROOT, ["tiny", "small"])["model.d_model"] == 768
    assert presets.overlay(ROOT, ["small", "tiny"])["model.d_model"] == 128


def test_apply_keeps_comments_and_names_each_change(project):
    before = (project / "params.yaml").read_text()
    changes = apply(project, {"train.lr": 3e-4, "train.steps": 1200})
    assert changes == ["train.lr: 0.004 -> 0.0003"]
    after = (project / "params.yaml").read_text()
    differing = [
        (a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b
    ]
    assert len(differing) == 1
    assert "# peak learning rate" in differing[0][1]
    assert load_params(project / "params.yaml").train.lr == 3e-4


def test_applying_current_values_changes_no_byte(project):
    before = (project / "params.yaml").read_bytes()
    assert apply(project, presets.overlay(project, ["tiny"])) == []
    assert (project / "params.yaml").read_bytes() == before


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(AtlasError, match="preset smal: no such preset: did you mean small"):
        presets.overlay(ROOT, ["smal"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("train: {lrr: 1}", "train.lrr is not a key of params.yaml"),
        ("train: {lr: {a: 1}}", "train.lr.a is not a key of params.yaml"),
        ("train: {steps: 0}", "params.yaml with these presets: train.steps is 0"),
        ("train: {steps: 1", "not readable as YAML"),
    ],
)
def test_a_wrong_preset_is_refused(project, content, expected):
    (project / "presets/mine.yaml").write_text(content)
    with pytest.raises(AtlasError, match=expected):
        presets.overlay(project, ["mine"])


def test_a_blank_in_a_value_cannot_be_passed_on(project):
    (project / "presets/mine.yaml").write_text("evaluate: {prompts: [to be]}")
    values = presets.overlay(project, ["mine"])
    with pytest.raises(AtlasError, match="contains whitespace"):
        presets.as_flags(values)
    apply(project, values)
    assert load_params(project / "params.yaml").evaluate.prompts == ("to be",)


def test_flags_are_in_dvcs_syntax():
    values = {"a.b": True, "a.c": 3e-4, "a.d": ["x", 2], "a.e": "text"}
    assert presets.as_flags(values) == "-S a.b=true -S a.c=0.0003 -S a.d=[x,2] -S a.e=text"
    mix = {"corpus.mix": ["stories", {"name": "files", "path": "data/own", "weight": 0.5}]}
    flag = "corpus.mix=[stories,{name:files,path:data/own,weight:0.5}]"
    assert presets.as_flags(mix) == f"-S {flag}"
    (override,) = OverridesParser.create().parse_overrides([flag])
    assert override.value() == mix["corpus.mix"]


NO_BLANK = st.text(st.characters(blacklist_categories=["Cs", "Z", "Cc"]), max_size=8)
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), NO_BLANK
)


@given(st.one_of(SCALARS, st.lists(SCALARS, max_size=3)))
@example(["true", "a,b", "ROMEO:", "null", "3", "'", '"', "[", "\\\\"])
@example(0.000123456789)
@example(1234567.0)
def test_dvc_reads_flags_as_they_were_meant(value):
    flag = presets.as_flags({"a.b": value}).removeprefix("-S ")
    (override,) = OverridesParser.create().parse_overrides([flag])
    assert unquoted(override.value()) == value


def unquoted(value):
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    return value.text if isinstance(value, QuotedString) else value


def test_a_preset_that_breaks_a_rule_of_several_keys_is_refused(project):
    (project / "presets/mine.yaml").write_text("model: {n_head: 3}")
    with pytest.raises(AtlasError, match="not divisible"):
        presets.overlay(project, ["mine"])
    assert isinstance(load_params(project / "params.yaml"), Params)
