"""lm-evaluation-harness against a server: ``python lm_eval_client.py URL MODEL TOKENIZER``.

Reads requests from standard input as JSON and prints their results: ``length`` (most tokens of a
prompt), ``pairs`` (context and continuation) and ``texts`` (scored as a whole).
"""

import json
import sys

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

url, model, tokenizer = sys.argv[1:]
asked = json.load(sys.stdin)


def harness(**options: object) -> LocalCompletionsAPI:
    """Return the harness's client."""
    return LocalCompletionsAPI(
        model=model, base_url=f"{url}/v1/completions", tokenizer=tokenizer,
        max_length=asked["length"] + 1,  # it leaves room for a token that it ignores
        **options,
    )  # fmt: skip


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    """Return requests of the harness."""
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=index)
        for index, each in enumerate(arguments)
    ]


pairs = instances("loglikelihood", [tuple(pair) for pair in asked["pairs"]])
texts = instances("loglikelihood_rolling", [(text,) for text in asked["texts"]])
until = [
    (context, {"until": ["\n"], "max_gen_toks": 8}) for context, _ in asked["pairs"] if context
]
results = {}
for name, options in (
    ("single", {}),
    ("batches", {"batch_size": 4}),
    ("concurrent", {"num_concurrent": 3, "batch_size": 2}),
):
    client = harness(**options)
    results[name] = {
        "pairs": client.loglikelihood(pairs, disable_tqdm=True),
        "texts": client.loglikelihood_rolling(texts, disable_tqdm=True),
        "generated": client.generate_until(instances("generate_until", until), disable_tqdm=True),
    }
json.dump(results, sys.stdout)
