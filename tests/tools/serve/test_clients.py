"""The clients that people use, each in its own version, against a listening server.

    pytest tests/tools/serve/test_clients.py -m very_slow -rs

Clients are installed into a temporary folder, or into ``ATLAS_CLIENTS`` to keep them; those that
can't be installed are skipped. (``test_api.py`` uses OpenAI's package for Python.)
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.load import load_model
from atlas.params.runtime_support import class_of
from tests.export.models import SHAPES, bundle_of, store
from tests.small import text
from tests.tools.serve.support import running

pytestmark = pytest.mark.very_slow
SCRIPTS = Path(__file__).parent / "clients"
PYTHON = {  # packages by script
    "litellm": ["litellm"],
    "langchain": ["langchain-openai"],
    "llm": ["llm"],
}
NODE = {"openai": ["openai"], "vercel": ["ai", "@ai-sdk/openai-compatible"]}
HARNESS = ["lm-eval[api]", "transformers"]


@pytest.fixture(scope="module")
def environments(tmp_path_factory) -> Path:
    kept = os.environ.get("ATLAS_CLIENTS")
    return Path(kept) if kept else tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer) -> Path:
    """A small model, its tokenizer, and its export for transformers."""
    folder = tmp_path_factory.mktemp("model")
    store(folder / "small", SHAPES["llama"], tokenizer)
    tokenizer.save(folder / "tokenizer")
    source = bundle_of(folder / "small", tokenizer)
    write_hugging_face(folder / "exported", source, class_of(source.config.model_dump()))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "small", engine="torch")


@pytest.fixture(scope="module")
def server(model):
    with running(model) as address:
        yield address


def install(*command: str, **options) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900, **options)
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
        pytest.skip(f"{' '.join(command[:3])} ...: {' '.join(reason)}")


def python_with(environment: Path, packages: list[str]) -> str:
    """Install packages into a virtual environment and return its interpreter."""
    python = environment / "bin/python"
    if not python.exists():
        install(sys.executable, "-m", "venv", str(environment))
    install(str(python), "-m", "pip", "install", "-q", *packages)
    return str(python)


def check(command: list[str], folder: Path, stdin: str = "") -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    environment.pop("PYTHONPATH", None)
    run = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("name", PYTHON)
def test_python_clients(server, environments, tmp_path, name):
    python = python_with(environments / name, PYTHON[name])
    assert "passed" in check(
        [python, str(SCRIPTS / f"{name}_client.py"), server, "small"], tmp_path
    )


@pytest.mark.parametrize("name", NODE)
def test_node_clients(server, environments, name):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = environments / f"{name}-npm"
    folder.mkdir(parents=True, exist_ok=True)
    install("npm", "install", "--no-fund", "--no-audit", "--prefix", str(folder), *NODE[name])
    script = shutil.copy(SCRIPTS / f"{name}_client.mjs", folder)
    assert "passed" in check(["node", str(script), server, "small"], folder)


def test_lm_evaluation_harness(server, model, folder, environments, tmp_path):
    python = python_with(environments / "harness", HARNESS)
    length = model.context_length
    pairs = [
        ("the lamp", " sees the river"),
        ("one", " stone"),
        ("a small red", " letter. "),
        ("", "x"),
    ]
    texts = [text(seed, sentences) for seed, sentences in ((1, 3), (2, 1), (3, 12))]
    assert len(model.encode(texts[-1])) > length
    asked = {"length": length, "pairs": pairs, "texts": texts}
    command = [
        python,
        str(SCRIPTS / "lm_eval_client.py"),
        server,
        "small",
        str(folder / "exported"),
    ]
    found = json.loads(check(command, tmp_path, json.dumps(asked)).splitlines()[-1])
    expected = [own_score(model, *pair) for pair in pairs]
    whole = [own_rolling_score(model, each, length) for each in texts]
    for name, results in found.items():
        for (logprob, is_greedy), own in zip(results["pairs"], expected, strict=True):
            assert (logprob, is_greedy) == (pytest.approx(own[0], abs=1e-4), own[1]), name
        assert results["texts"] == pytest.approx(whole, abs=1e-4), name
        assert len(results["generated"]) == len(pairs) - 1  # the harness sends no id for ""


def own_score(model, context: str, continuation: str) -> tuple[float, bool]:
    """Log probability of a continuation, and whether each of its tokens is the most likely."""
    before = model.encode(context)
    after = model.tokenizer.encode(context + continuation)[len(before) if context else 0 :]
    return score(model, before, after)


def own_rolling_score(model, text: str, length: int) -> float:
    """Log probability of a text in adjacent windows; the last one reaches back."""
    ids, total, start = model.tokenizer.encode(text), 0.0, 0
    while start < len(ids):
        end = min(start + length - 1, len(ids))
        first = max(0, end - (length - 1))
        before = [model.tokenizer.eos] if first == 0 else [ids[first - 1]]
        total += score(model, [*before, *ids[first:start]], ids[start:end])[0]
        start = end
    return total


@torch.no_grad()
def score(model, before: list[int], after: list[int]) -> tuple[float, bool]:
    rows = model.model(torch.tensor([[*before, *after]]))[0].log_softmax(-1)[len(before) - 1 : -1]
    logprobs = rows[torch.arange(len(after)), torch.tensor(after)]
    return float(logprobs.sum(dtype=torch.float64)), rows.argmax(-1).tolist() == after
