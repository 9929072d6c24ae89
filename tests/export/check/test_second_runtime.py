"""The server of another llama.cpp build gives the same results."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from atlas.export.check.agreement import expect
from atlas.export.gguf.adapter import export_adapter
from atlas.export.gguf.writer import write_gguf
from atlas.inference.backends.atlas import AtlasModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import GREEDY
from atlas.params.runtime_support import architecture_of
from tests.export.gguf.test_adapter import tune
from tests.export.models import SHAPES, bundle_of, store
from tests.small import text

pytest.importorskip("xllamacpp", reason="not installed: pip install '.[server]'")
SERVER = Path(__file__).with_name("llama_server.py")
VAL = [text(seed, sentences=6) for seed in range(500, 503)]


def ask(file, **request):
    """Run the server and return its answer without its log."""
    run = subprocess.run(
        [sys.executable, SERVER, file],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"no_proxy": "127.0.0.1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    (answer,) = [line for line in run.stdout.splitlines() if line.startswith("answer:")]
    return json.loads(answer.removeprefix("answer:"))


@pytest.mark.parametrize("shape", ["llama", "qwen3-eps", "gpt2-bias-untied", "mpt-six"])
def test_the_server_gives_the_same_tokens_and_the_same_greedy_text(tmp_path, tokenizer, shape):
    model = store(tmp_path / "model", SHAPES[shape], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    source = bundle_of(tmp_path / "model", tokenizer)
    write_gguf(tmp_path / "m.gguf", source, architecture, "f32")
    expected = expect(model, tokenizer, VAL, prompts=3, greedy_tokens=60)
    answer = ask(
        tmp_path / "m.gguf",
        context_length=model.config.context_length,
        texts=[each for each, _ in expected.texts],
        prompts=[ids for ids, _ in expected.prompts],
        tokens=60,
        chats=[],
    )
    assert answer["texts"] == [ids for _, ids in expected.texts]
    for (_, ours), theirs in zip(expected.prompts, answer["continuations"], strict=True):
        ended = ours.index(tokenizer.eos) if tokenizer.eos in ours else len(ours)
        assert theirs[:ended] == ours[:ended]
        assert len(theirs) >= ended


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["llama", "gpt2-bias-untied"])
def test_the_server_adds_an_adapter_to_its_base(tmp_path, tokenizer, shape):
    targets = ("query", "key", "value", "output", "up", "down")
    bundle, architecture = tune(tmp_path, SHAPES[shape], tokenizer, targets)
    export_adapter(tmp_path / "a.gguf", bundle, architecture, tmp_path / "exact.gguf")
    base = replace(bundle, folder=tmp_path / "base")
    write_gguf(tmp_path / "base.gguf", base, architecture, "f32")
    expected, before = (
        [ids for _, ids in expect(each.model, tokenizer, VAL, 3, greedy_tokens=60).prompts]
        for each in (bundle, base)
    )
    request = {"context_length": 96, "texts": [], "tokens": 60, "chats": []}
    request["prompts"] = [tokenizer.encode(each)[:16] for each in VAL]
    request["adapter"] = str(tmp_path / "a.gguf")
    for ours, theirs in zip(
        expected, ask(tmp_path / "base.gguf", **request)["continuations"], strict=True
    ):
        ended = ours.index(tokenizer.eos) if tokenizer.eos in ours else len(ours)
        assert theirs[:ended] == ours[:ended]
    assert expected != before


MESSAGES = (
    ("user", "the lamp"),
    ("assistant", " sees"),
    ("user", " one\n\n garden \n"),
    ("system", "a stone."),
    ("user", "\u00e9\u20ac and"),
)


@pytest.mark.parametrize("kind", ["plain", "bos", "questions"])
def test_a_chat_continues_the_plain_text_of_its_messages(tmp_path, tokenizer, kind):
    options = {"add_bos_token": kind != "plain"}
    options |= {"separator": tokenizer.encode(".")[-1]} if kind == "questions" else {}
    model = store(tmp_path / "model", SHAPES["llama"] | options, tokenizer)
    ours = AtlasModel(model.config, tokenizer, "m", lambda: model)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(tmp_path / "m.gguf", bundle_of(tmp_path / "model", tokenizer), architecture, "f32")
    messages = [{"role": role, "content": content} for role, content in MESSAGES]
    chats = [messages[:1], messages[:3], messages[3:], messages]
    length = model.config.context_length
    answer = ask(
        tmp_path / "m.gguf", context_length=length, texts=[], prompts=[], tokens=15, chats=chats
    )
    ids = [ours.encode_chat(chat) for chat in chats]
    assert answer["chats"] == ids
    sequences = [TokenSequence(each, 15, GREEDY) for each in ids]
    list(ours.run(sequences))
    replies = [
        reply[: len(each.output_ids)]
        for reply, each in zip(answer["replies"], sequences, strict=True)
    ]
    assert replies == [each.output_ids for each in sequences]
