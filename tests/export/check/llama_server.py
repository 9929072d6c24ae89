"""llama.cpp's own server, built by xllamacpp, to run in a separate process.

    python tests/export/check/llama_server.py FILE < request.json > answer.json

The request holds ``texts`` to tokenize, ``prompts`` (ids) and how many ``tokens`` continue each, up
to the end of a text; and ``chats``, whose prompts (ids) and replies are answered. An ``adapter`` is
a GGUF file with LoRA matrices to add to the model.
"""

import json
import sys
import urllib.request

import xllamacpp


def main() -> None:
    request = json.load(sys.stdin)
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = params.n_batch = params.n_ubatch = request["context_length"]
    params.n_parallel = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.fit_params = params.warmup = params.ctx_shift = False
    params.sampling.temp = 0
    if "adapter" in request:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = request["adapter"], 1.0
        params.lora_adapters = [adapter]
    server = xllamacpp.Server(params)

    def post(path, **body):
        data = json.dumps(body).encode()
        asked = urllib.request.Request(
            f"{server.listening_address}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as reply:
            return json.load(reply)

    answer = {
        "texts": [
            post("/tokenize", content=each, parse_special=False)["tokens"]
            for each in request["texts"]
        ],
        "continuations": [
            post(
                "/completion",
                prompt=ids,
                n_predict=request["tokens"],
                temperature=0,
                return_tokens=True,
                cache_prompt=False,
            )["tokens"]
            for ids in request["prompts"]
        ],
        "chats": [
            post("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
            for prompt in (
                post("/apply-template", messages=messages)["prompt"]
                for messages in request["chats"]
            )
        ],
        "replies": [
            post(
                "/v1/chat/completions",
                messages=messages,
                max_tokens=request["tokens"],
                temperature=0,
                return_tokens=True,
                verbose=True,
                cache_prompt=False,
            )["__verbose"]["tokens"]
            for messages in request["chats"]
        ],
    }
    print("answer:" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
