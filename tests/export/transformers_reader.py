"""A program that only knows transformers, of any version, to run in a separate process.

    python tests/export/transformers_reader.py FOLDER ... < request.json > answer.json

The request holds ``prompts``, how many ``tokens`` continue each, and ``chats``. For each folder the
answer has what a user of transformers sees.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import tokenizers
import torch
import transformers


@torch.no_grad()
def read(folder, prompts, tokens, chats):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    greedy = {"do_sample": False, "max_new_tokens": tokens}
    inputs = [tokenizer(each, return_tensors="pt") for each in prompts]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    new = model.generate(**batch, **greedy)[:, batch["input_ids"].shape[1] :]
    pipe = transformers.pipeline("text-generation", model=folder)
    chat = tokenizer.apply_chat_template(chats, return_dict=True, padding=False)["input_ids"]
    alone = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    return {
        "ids": [each["input_ids"][0].tolist() for each in inputs],
        "tokenizers": [alone.encode(each).ids for each in prompts],
        "logits": [model(**each).logits[0].tolist() for each in inputs],
        "singles": [
            model.generate(**each, **greedy)[0, each["input_ids"].shape[1] :].tolist()
            for each in inputs
        ],
        "batch": new.tolist(),
        "pipeline": [
            pipe(each, return_full_text=False, **greedy)[0]["generated_text"] for each in prompts
        ],
        "unlimited": len(tokenizer(pipe(prompts[0], do_sample=False)[0]["generated_text"])),
        "chats": chat,
        "replies": [pipe(each, **greedy)[0]["generated_text"][-1]["content"] for each in chats],
        "card": run_card(folder),
    }


def run_card(folder):
    """Run the Python code of the model card in its folder, and return its output."""
    card = Path(folder, "README.md")
    if not card.exists():
        return None
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.chdir(folder):
        exec(code, {})
    return output.getvalue()


def main():
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    request = json.load(sys.stdin)
    answer = {folder: read(folder, **request) for folder in sys.argv[1:]}
    print("answer:" + json.dumps({"version": transformers.__version__, "folders": answer}))


if __name__ == "__main__":
    main()
