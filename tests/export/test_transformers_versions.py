"""Exported folders as people use them, in transformers 5 and 4: the card's code, batches, chats."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas.cleaning.documents import Document
from atlas.export.bundle import ValidationData, encode_texts
from atlas.export.export import export_model
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.atlas import AtlasModel
from atlas.inference.generate import generate
from atlas.inference.sampling import GREEDY
from atlas.params.runtime_support import CLASSES, class_of
from tests.export.models import SHAPES, bundle_of, store
from tests.export.test_hugging_face import usual
from tests.small import text

READER = Path(__file__).with_name("transformers_reader.py")
FOUR = ("transformers==4.57.*", "tokenizers==0.22.*", "huggingface_hub==0.36.*")
MODELS = {row.model_type: usual(row) for row in CLASSES}
MODELS |= {"bos": SHAPES["llama"] | {"add_bos_token": True}}
PROMPTS = ["the", "one stone holds the lamp. And", "a river\n", "\u00e9\u20ac"]
CHATS = [
    [{"role": "user", "content": " the lamp\n"}],
    [
        {"role": "system", "content": "a stone."},
        {"role": "user", "content": "the lamp"},
        {"role": "assistant", "content": " sees"},
        {"role": "user", "content": "one"},
    ],
]
TOKENS = 20


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    """A folder per class of transformers, and one with a model card."""
    root = tmp_path_factory.mktemp("exported")
    for name, options in MODELS.items():
        (root / name).mkdir()
        model = store(root / name / "model", options, tokenizer)
        source = bundle_of(root / name / "model", tokenizer)
        write_hugging_face(root / name / "hf", source, class_of(model.config.model_dump()))
    texts = [text(900), text(901)]
    documents = [Document(str(number), "s", each) for number, each in enumerate(texts)]
    (root / "tokens").mkdir()
    split = encode_texts(texts, tokenizer, root / "tokens")
    data = ValidationData.load(documents, split, 96, prompts=1, greedy_tokens=5, max_windows=1)
    source = bundle_of(root / "llama/model", tokenizer, "mine")
    (root / "out").mkdir()
    export_model(source, ["hugging_face"], data, root / "out")
    (root / "llama/hf/README.md").write_bytes(
        (root / "out/mine-hugging_face/README.md").read_bytes()
    )
    return root


@pytest.fixture(scope="module")
def packages(request, tmp_path_factory):
    """A folder with other versions of packages, or None for the installed ones."""
    if not request.param:
        return None
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    done = subprocess.run([*pip, *request.param], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip can't install {request.param[0]}: {done.stderr.strip()[-200:]}")
    return folder


@pytest.mark.parametrize(
    ("packages", "version"),
    [
        pytest.param((), "5.", marks=pytest.mark.slow, id="installed"),
        pytest.param(FOUR, "4.57.", marks=pytest.mark.very_slow, id="4.57"),
    ],
    indirect=["packages"],
)
@torch.no_grad()
def test_transformers_of_each_version_does_as_pytorch(exported, tokenizer, packages, version):
    path = [str(packages)] if packages else []
    run = subprocess.run(
        [sys.executable, READER, *(str(exported / name / "hf") for name in MODELS)],
        input=json.dumps({"prompts": PROMPTS, "tokens": TOKENS, "chats": CHATS}),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "HF_HUB_OFFLINE": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("answer:")]
    answer = json.loads(line.removeprefix("answer:"))
    assert answer["version"].startswith(version)
    for name in MODELS:
        theirs = answer["folders"][str(exported / name / "hf")]
        model = bundle_of(exported / name / "model", tokenizer).model
        ours = AtlasModel(model.config, tokenizer, name, lambda model=model: model)
        ids = [ours.encode(prompt) for prompt in PROMPTS]
        assert theirs["ids"] == theirs["tokenizers"] == ids
        assert theirs["chats"] == [ours.encode_chat(chat) for chat in CHATS]
        for each, logits in zip(ids, theirs["logits"], strict=True):
            assert np.abs(model(torch.tensor([each]))[0].numpy() - np.array(logits)).max() < 1e-4
        new = [generate(model, tokenizer.encode(prompt), TOKENS, GREEDY) for prompt in PROMPTS]
        for kind in ("singles", "batch"):
            rows = zip(new, theirs[kind], strict=True)
            assert all(row[: len(mine)] == mine for mine, row in rows), (name, kind)
        assert len(theirs["pipeline"]) == len(PROMPTS)
        assert theirs["unlimited"] <= 96
        assert len(theirs["replies"]) == len(CHATS)
    assert answer["folders"][str(exported / "llama/hf")]["card"].strip()
