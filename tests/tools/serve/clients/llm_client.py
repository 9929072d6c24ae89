"""simonw's llm against a server: ``python llm_client.py URL MODEL``."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

url, model = sys.argv[1:]
MODELS = """
- model_id: {name}
  model_name: {model}
  api_base: "{url}/v1"
  completion: {completion}
  {more}
"""


def llm(folder: str, *words: str, succeeds: bool = True) -> str:
    """Run the command and return what it prints."""
    command = [str(Path(sys.executable).with_name("llm")), *words]
    run = subprocess.run(
        command, env=os.environ | {"LLM_USER_PATH": folder}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (run.returncode == 0) == succeeds, run.stdout + run.stderr
    return run.stdout + ("" if succeeds else run.stderr)


with tempfile.TemporaryDirectory() as folder:
    models = [
        ("chat", "false", model, ""),
        ("writer", "true", model, ""),
        ("other", "false", "x", ""),
    ]
    listed = (
        MODELS.format(name=name, completion=completion, model=real, url=url, more=more)
        for name, completion, real, more in models
    )
    Path(folder, "extra-openai-models.yaml").write_text("".join(listed))
    assert "chat" in llm(folder, "models")
    options = ["-o", "seed", "1", "-o", "max_tokens", "8"]
    text = llm(folder, "-m", "chat", "the lamp", *options)
    assert text.strip()
    assert llm(folder, "-m", "chat", "the lamp", *options, "--no-stream") == text
    assert llm(folder, "-m", "chat", "-c", "one", *options).strip()  # the conversation goes on
    assert llm(folder, "-m", "chat", "-s", "be kind", "the lamp", *options).strip()
    assert llm(folder, "-m", "writer", "the lamp", *options) == text
    assert llm(folder, "-m", "chat", "the lamp", "-o", "temperature", "0", *options, "-u").strip()
    assert "model 'x' not found" in llm(folder, "-m", "other", "the lamp", succeeds=False)
    bad = ["-o", "max_tokens", "1000000"]
    assert "max_tokens: 1000000; at most" in llm(folder, "-m", "chat", "x", *bad, succeeds=False)
print("passed")
