import re
import shutil
import subprocess

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import example, given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.model.transformer import Decoder
from atlas.params import presets
from atlas.params.overrides import leaves
from atlas.params.schema import Params, load_params
from tests.code_walk import ROOT
from tests.small import small_config

NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture
def project(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    (tmp_path / "models/own").mkdir(parents=True)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(project, *arguments):
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=project, check=True)


def commit(project):
    git(project, "add", "-A")
    git(project, "commit", "-qm", "Params")


def apply(project, *names):
    """Write presets into params.yaml; return a line per change."""
    changes = presets.changes(project, names)
    edit(project, **{change.key: change.new for change in changes})
    return [str(change) for change in changes]


def edit(project, **values):
    (project / "params.yaml").write_text(presets.apply(project, values))


def values_of(project):
    return dict(leaves(yaml.safe_load((project / "params.yaml").read_text())))


def flags(project, *names, quoted=False):
    values = {change.key: change.new for change in presets.changes(project, names)}
    return presets.as_flags(values, quoted=quoted)


def test_the_documented_presets_exist():
    assert {"tiny", "small", "medium", "shakespeare", "char"} <= set(NAMES)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"lora"}))
def test_each_preset_is_valid_and_can_be_passed_through_a_shell(project, name):
    words = flags(project, name).split()
    assert words[::2] == ["-S"] * (len(words) // 2)
    assert all("=" in word for word in words[1::2])


def test_lora_follows_the_preset_of_a_base(project):
    base = project / "models/base"
    base.mkdir(parents=True)
    small_config(**load_params(project / "params.yaml").model.model_dump()).write(base)
    (base / "model.safetensors").touch()
    values = {"train": {"start": "models/base"}, "tokenizer": {"path": "a.model"}}
    (base / "preset.yaml").write_text(yaml.safe_dump(values))
    train = presets.with_presets(project, ["base", "lora"]).train
    assert (train.start, train.lora.rank, train.lora.alpha) == ("models/base", 8, 16)
    with pytest.raises(AtlasError, match=r"start from a model \(`atlas preset base lora`\)"):
        presets.with_presets(project, ["lora"])


def test_tiny_holds_every_default():
    tiny, params = (
        yaml.safe_load((ROOT / f"{name}.yaml").read_text()) for name in ("presets/tiny", "params")
    )
    assert tiny == params


def test_each_preset_is_listed_with_a_sentence():
    listed = dict(presets.described(ROOT))
    assert list(listed)[-len(NAMES) :] == NAMES  # those of imported models are before them
    assert all(30 > len(sentence.split()) > 2 for sentence in listed.values()), listed


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("tiny", 0.9e6, 1.1e6), ("small", 50e6, 150e6), ("medium", 330e6, 380e6)],
)
def test_sizes(project, name, least, most):
    apply(project, name)
    params = load_params(project / "params.yaml")
    config = small_config(**params.model.model_dump(), vocab_size=params.tokenizer.vocab_size)
    with torch.device("meta"):
        assert least < Decoder(config).parameter_count() < most


def test_a_later_preset_wins(project):
    assert presets.with_presets(project, ["tiny", "small"]).model.d_model == 768
    assert presets.with_presets(project, ["small", "tiny"]).model.d_model == 128


@pytest.mark.parametrize("later", [["shakespeare"], ["tiny"], ["char", "stories"]])
@pytest.mark.parametrize("first", [["arithmetic"], ["small"], ["grokking"], ["speedrun-gpu"]])
def test_nothing_of_an_earlier_preset_stays(project, first, later):
    expected = values_of(project) | presets.collect(project, later)
    for name in (first, later):  # separate commands
        apply(project, *name)
    assert values_of(project) == expected


def test_flags_set_an_earlier_preset_back(project):
    apply(project, "arithmetic")
    printed = flags(project, "shakespeare")
    assert "-S tokenizer.kind=bpe " in printed
    assert "-S model.context_length=128" in printed
    apply(project, "shakespeare")
    assert flags(project, "shakespeare") == ""


def test_tiny_restores_every_default_after_a_commit_of_others(project):
    defaults = (project / "params.yaml").read_bytes()
    apply(project, "arithmetic")
    commit(project)
    apply(project, "tiny")
    assert yaml.safe_load((project / "params.yaml").read_text()) == yaml.safe_load(defaults)


def test_committed_values_stay_and_edited_ones_are_named(project):
    edit(project, **{"corpus.name": "files", "export.author": "Jane"})
    commit(project)
    edit(project, **{"train.lr": 0.01, "train.steps": 30, "model.d_ff": 2048})
    changes = apply(project, "small")
    assert "params.yaml: train.lr: 0.01 -> 0.0006 (committed: 0.004)" in changes
    assert "params.yaml: train.steps: 30 -> 20000 (committed: 1200)" in changes
    assert "params.yaml: model.d_model: 128 -> 768" in changes
    assert not any("d_ff" in change for change in changes)  # edited to the preset's own value
    params = load_params(project / "params.yaml")
    assert (params.corpus.name, params.export.author) == ("files", "Jane")
    edit(project, **{"train.beta1": 0.5})
    assert apply(project, "small") == ["params.yaml: train.beta1: 0.5 -> 0.9 (as committed)"]


def test_without_a_commit_presets_start_from_the_file(project):
    shutil.rmtree(project / ".git")
    edit(project, **{"train.beta1": 0.5})
    apply(project, "small")
    assert load_params(project / "params.yaml").train.beta1 == 0.5


def test_a_committed_file_with_other_keys(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("  lr: ", "  rate: "))
    commit(project)
    (project / "params.yaml").write_text(text)
    assert apply(project, "tiny") == []
    assert load_params(project / "params.yaml").train.lr == 4e-3


def test_apply_keeps_comments_and_names_each_change(project):
    before = (project / "params.yaml").read_text()
    (project / "presets/mine.yaml").write_text("train: {lr: 0.0003, steps: 1200}")
    assert apply(project, "mine") == ["params.yaml: train.lr: 0.004 -> 0.0003"]
    after = (project / "params.yaml").read_text()
    differing = [
        (a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b
    ]
    assert len(differing) == 1
    assert "# peak learning rate" in differing[0][1]
    assert load_params(project / "params.yaml").train.lr == 3e-4


def test_applying_current_values_changes_no_byte(project):
    before = (project / "params.yaml").read_bytes()
    assert apply(project, "tiny") == []
    edit(project)
    assert (project / "params.yaml").read_bytes() == before


def test_an_imported_model_has_a_preset(project):
    with pytest.raises(AtlasError, match=r"preset base: no models/base yet; `atlas import SOURCE`"):
        presets.changes(project, ["base"])
    for name in ("base", "other", ".base.partial"):
        (project / f"models/{name}").mkdir(parents=True)
        text = f"# Start from {name}. More.\ntrain: {{lr: 0.0001}}\n"
        (project / f"models/{name}/preset.yaml").write_text(text)
    assert list(presets.described(project))[:2] == [
        ("base", "Start from base"), ("other", "Start from other"),
    ]  # fmt: skip
    assert apply(project, "base") == ["params.yaml: train.lr: 0.004 -> 0.0001"]
    with pytest.raises(AtlasError, match=r"no such preset: did you mean other\?"):
        presets.changes(project, ["othr"])


@pytest.mark.parametrize("name", ["smal", "../params", "", "tiny.yaml", "../presets/tiny", "/tmp"])
def test_an_unknown_preset_is_refused_with_the_nearest(name):
    hint = ": did you mean small?" if name == "smal" else ""
    message = re.escape(f"preset {name}: no such preset{hint}")
    with pytest.raises(AtlasError, match=message):
        presets.changes(ROOT, [name])


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
        presets.changes(project, ["mine"])


@pytest.mark.parametrize("prompt", ["to be", 'it\'s "so"  $HOME', "a\nb\tc", "\\"])
def test_a_blank_in_a_value_needs_quotes(project, prompt):
    preset = {"evaluate": {"prompts": [prompt]}, "train": {"steps": 30}}
    (project / "presets/mine.yaml").write_text(yaml.safe_dump(preset))
    if any(map(str.isspace, prompt)):
        with pytest.raises(AtlasError, match="has a blank, at which a shell splits"):
            flags(project, "mine")
    shell = f'printf "%s\\0" {flags(project, "mine", quoted=True)}'
    words = subprocess.check_output(["sh", "-c", shell], text=True).split("\0")[:-1]
    assert words[::2] == ["-S", "-S"]
    parsed = OverridesParser.create().parse_overrides(sorted(words[1::2]))
    assert [unquoted(each.value()) for each in parsed] == [[prompt], 30]
    apply(project, "mine")
    assert load_params(project / "params.yaml").evaluate.prompts == (prompt,)


def test_a_default_never_needs_quotes():
    """Otherwise `$(atlas preset ...)` could not set it back."""
    assert presets.as_flags(values_of(ROOT))


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
        presets.changes(project, ["mine"])
    assert isinstance(load_params(project / "params.yaml"), Params)
