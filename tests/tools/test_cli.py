import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from atlas.params.presets import available
from atlas.tools import cli
from tests.code_walk import ROOT
from tests.export.models import SHAPES, store
from tests.pipeline.checkout import Checkout
from tests.tools.console import atlas

RUNNER = CliRunner()


def test_preset_prints_flags():
    code, printed, _ = atlas("preset", "shakespeare", "char")
    assert code == 0
    assert printed.startswith("-S corpus.name=shakespeare ")
    assert "-S tokenizer.kind=char" in printed


def test_preset_alone_lists_the_presets():
    code, printed, _ = atlas("preset")
    assert code == 0
    names = [line.split()[0] for line in printed.splitlines()[1:] if line[0] != " "]
    assert names == list(available(ROOT))


@pytest.mark.slow
def test_an_unknown_preset_also_fails_the_command_around_it():
    code, printed, error = atlas("preset", "smal")
    assert code == 1
    assert error == (
        "error: preset smal: no such preset: did you mean small? "
        f"(available: {', '.join(available(ROOT))})\n"
    )
    dvc = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "run", *printed.split()],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert dvc.returncode != 0
    assert "the-preset-was-refused' does not exist" in dvc.stderr
    assert atlas("preset", "tiny", "--aply")[1] == "the-preset-was-refused\n"


def test_apply_writes_params(tmp_path, monkeypatch):
    checkout = Checkout.create(tmp_path / "project")
    monkeypatch.chdir(checkout.root / "presets")  # works from any folder of the project
    applied = RUNNER.invoke(cli.app, ["preset", "tiny", "--apply"]).output
    assert "params.yaml: model.d_model: 32 -> 128\n" in applied
    assert RUNNER.invoke(cli.app, ["preset", "tiny", "--apply"]).output == (
        "params.yaml: no change\n"
    )
    result = RUNNER.invoke(cli.app, ["preset", "--quoted", "small"])
    assert "-S train.precision=bfloat16" in result.stdout
    assert "model.n_layer: 4 -> 12 (committed: 2)" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["report"],
        ["offline-plots"],
        ["preset", "tiny"],
        ["generate", "x"],
        ["chat"],
        ["serve"],
        ["tokenize", "x"],
        ["export"],
    ],
)
def test_outside_a_project_the_commands_say_so(tmp_path, command):
    code, _, error = atlas(*command, cwd=tmp_path)
    assert code == 1
    assert error.startswith("error: ")
    assert "not inside an Atlas project" in error
    assert error.count("\n") == 1


def test_before_the_first_run_the_commands_say_so(tmp_path):
    checkout = Checkout.create(tmp_path / "project")
    for command in (["show"], ["show", "--all"], ["report"]):
        code, _, error = atlas(*command, cwd=checkout.root)
        assert code == 1
        assert error.endswith("metrics: no results yet; run `dvc repro`\n")
    for command in (["generate", "x"], ["export"]):
        code, _, error = atlas(*command, cwd=checkout.root)
        assert (code, error) == (1, "error: models/model: no model yet; run `dvc repro`\n")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["generate", "--file", "nofile.txt"], "--file nofile.txt: No such file or directory"),
        (["generate", "--file", "."], "--file .: Is a directory"),
        (["generate", "x", "--model", "models/nothing"], "--model models/nothing: no such file or"),
        (["serve", "--model", "nothing"], "--model nothing: no such file or folder"),
        (["export", "nothing"], "nothing: no such file or folder"),
        (["generate", "x", "--temperature", "-1"], "--temperature is -1.0: it must be greater"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, command, expected):
    code, printed, error = atlas(*command, cwd=tmp_path)
    assert (code, printed, error.count("\n")) == (1, "", 1)
    assert error.startswith(f"error: {expected}")


def test_sampling_options_are_checked_before_slow_imports():
    code = (
        "import sys; from atlas.tools import cli; sys.argv[1:] = ['chat', '--top-p', '2']\n"
        "try: cli.run()\n"
        "except SystemExit: print({'torch', 'transformers', 'cyllama'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_tokenize_prints_pieces_and_ids(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "t")
    for where in (tmp_path / "t", tmp_path / "t/tokenizer.model"):
        code, printed, _ = atlas("tokenize", "the lamp", "--tokenizer", str(where))
        assert code == 0
        ids = [line.split()[0] for line in printed.splitlines()[1:-1]]
        assert ids == [str(identity) for identity in tokenizer.encode("the lamp")]
    code, _, error = atlas("tokenize", "x", "--tokenizer", str(tmp_path))
    assert code == 1
    assert error.startswith(f"error: {tmp_path}/tokenizer.model: no such tokenizer; name a ")
    code, _, error = atlas("tokenize", "x", "--tokenizer", str(ROOT / "README.md"))
    assert "README.md: not a sentencepiece model" in error


def test_export_and_inspect_a_model_from_anywhere(tmp_path, tokenizer):
    store(tmp_path / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    told = ("--to", "gguf:f16", "--author", "Ann", "--license", "mit")
    code, printed, error = atlas("export", "mine", *told, cwd=tmp_path)
    assert code == 0, error
    assert "mine-export/mine-f16.gguf" in printed
    code, printed, _ = atlas("inspect", "mine-export/mine-f16.gguf", cwd=tmp_path)
    assert code == 0
    assert "general.author" in printed
    assert "'mit'" in printed
    code, _, error = atlas("export", "mine", *told, cwd=tmp_path)
    assert (code, error.count("\n")) == (1, 1)
    assert "mine-export: already exists" in error
    code, _, error = atlas("inspect", "tokenizer/tokenizer.model", cwd=tmp_path)
    assert (code, error.count("\n")) == (1, 1)
    assert "tokenizer.model: not a GGUF file" in error


def test_a_prompt_comes_from_an_argument_a_file_or_stdin(tmp_path, tokenizer):
    store(tmp_path / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    told = ("--model", str(tmp_path / "mine"), "--tokens", "12", "--seed", "3")
    code, printed, error = atlas("generate", "the lamp", *told)
    assert (code, error) == (0, "")
    (tmp_path / "prompt.txt").write_text("the lamp\n")
    assert atlas("generate", "--file", str(tmp_path / "prompt.txt"), *told)[1] == printed
    for argument in ((), ("-",)):
        assert atlas("generate", *argument, *told, given="the lamp\n")[1] == printed
    _, lines, _ = atlas("generate", "the lamp", *told, "--json", "--count", "2")
    first, second = map(json.loads, lines.splitlines())
    assert f"the lamp{first['text']}\n" == printed
    assert first | {"text": ""} == {
        "prompt": "the lamp", "text": "", "tokens": 12, "finish_reason": "length", "seed": 3,
    }  # fmt: skip
    assert second["seed"] == 4
    stopped = json.loads(atlas("generate", "the lamp", *told, "--json", "--stop", "e")[1])
    assert first["text"].startswith(stopped["text"] + "e" * ("e" in first["text"]))
    assert atlas("generate", "x", *told, "--stop", "")[2].startswith("error: --stop is empty")
    assert (
        atlas("generate", "the lamp", "--model", ".", "--tokens", "1", cwd=tmp_path / "mine")[0]
        == 0
    )
    code, printed, error = atlas("generate", "the lamp " * 60, *told)
    assert code == 0
    assert re.fullmatch(r"warning: the prompt has \d+ tokens; the model sees the last 96\n", error)


def test_a_chat_through_a_pipe(tmp_path, tokenizer):
    store(tmp_path / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    lines = "the lamp\n/temperature 0\n/nothing\nthe lamp\n/quit\nnever\n"
    code, printed, error = atlas(
        "chat", "--model", str(tmp_path / "mine"), "--tokens", "9", given=lines
    )
    assert code == 0
    assert error.splitlines()[1:] == ["/nothing: no such command; /help lists them"]
    assert "never" not in printed


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(tmp_path, tokenizer):
    store(tmp_path / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    code = "from atlas.tools.cli import run; run()"
    told = ("generate", "the lamp", "--model", str(tmp_path / "mine"), "--tokens", "5000")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *told], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait(30)


def test_wrong_options_are_refused():
    code, _, error = atlas("generate", "x", "--top-p", "0")
    assert (code, error) == (1, "error: --top-p is 0.0: it must be greater than 0\n")
    code, _, error = atlas("generate", "x", "--temperature", "inf")
    assert (code, error) == (1, "error: --temperature is inf: it must be a finite number\n")
    code, _, error = atlas("chat", "--seed", str(2**64))
    assert (code, error.count("\n")) == (1, 1)
    assert "error: --seed is 18446744073709551616: it must be less than" in error
    assert atlas("generate", "x", "--tokens", "0")[0] == 2
    assert atlas("generate", "x", "--on-overflow", "x")[0] == 2
    code, _, error = atlas("generate", "x", "--file", "README.md")
    assert (code, error) == (
        1,
        "error: --file README.md: there is also a prompt; use only one of them\n",
    )


def test_typing_errors_get_a_suggestion():
    code, _, error = atlas("genrate", "x")
    assert (code, "Did you mean 'generate'?" in error) == (2, True)
    code, _, error = atlas("generate", "x", "--temprature", "1")
    assert (code, "--temperature" in error) == (2, True)


def test_an_engine_is_chosen(tmp_path, tokenizer):
    store(tmp_path / "mine", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    options = ("--model", str(tmp_path / "mine"), "--tokens", "5")
    code, printed, _ = atlas("generate", "the lamp", *options, "--engine", "torch")
    assert (code, printed) == (0, atlas("generate", "the lamp", *options)[1])
    for command in (("generate", "x", *options), ("chat", *options)):
        code, _, error = atlas(*command, "--engine", "llama.cpp")
        assert (code, error.count("\n")) == (1, 1)
        assert error.startswith("error: --engine llama.cpp: ")
        assert "run `dvc repro export`, or use --engine torch" in error
    code, _, error = atlas("generate", "x", "--engine", "onnx")
    assert (code, "llama.cpp" in error) == (2, True)


def test_help_names_each_command():
    code, printed, _ = atlas("--help")
    assert code == 0
    for name in ("generate", "chat", "serve", "tokenize", "preset", "show", "report"):
        assert name in printed
    for name in ("export", "inspect", "offline-plots"):
        assert name in printed


def test_model_prints_what_params_describe():
    code, printed, _ = atlas("model")
    assert code == 0
    assert re.search(r"total +1,000,576\n", printed)
    assert re.search(r"llama.cpp +architecture +llama\n", printed)
    code, printed, _ = atlas("model", "small")
    assert re.search(r"total +100,682,496\n", printed)
    code, _, error = atlas("model", "smal")
    assert code == 1
    assert "did you mean small?" in error


CLOSED = """
import sys
from atlas.tools import cli

def app():
    print("first", flush=True)
    sys.stdin.readline()
    print("second")
    sys.exit(1)

cli.app, sys.argv = app, ["atlas", "preset"]
cli.run()
"""


def test_a_reader_that_closes_the_pipe_is_no_error():
    command = [sys.executable, "-c", CLOSED]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, cwd=ROOT, env=buffered, **pipes) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert process.stderr.read() == b""
