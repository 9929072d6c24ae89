"""LiteLLM against a server: ``python litellm_client.py URL MODEL``."""

import asyncio
import sys

import litellm
from support import raises

url, model = sys.argv[1:]
asked = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "num_retries": 0}
messages = [{"role": "user", "content": "the lamp"}]

done = litellm.completion(messages=messages, max_tokens=8, seed=1, **asked)
text = done.choices[0].message.content
assert text
assert done.choices[0].finish_reason == "length"
assert done.usage.completion_tokens == 8
again = [*messages, done.choices[0].message.model_dump(), *messages]
assert litellm.completion(messages=again, max_tokens=4, **asked).usage.completion_tokens == 4

chunks = list(
    litellm.completion(
        messages=messages, max_tokens=8, seed=1, stream=True,
        stream_options={"include_usage": True}, **asked,
    )
)  # fmt: skip
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
assert chunks[-1].usage.completion_tokens == 8

written = litellm.text_completion(prompt="the lamp", max_tokens=8, seed=1, **{
    **asked, "model": f"text-completion-openai/{model}"
})  # fmt: skip
assert written.choices[0].text == text

scored = litellm.completion(messages=messages, max_tokens=2, logprobs=True, top_logprobs=2, **asked)
assert len(scored.choices[0].logprobs.content) == 2

for changed, error, words in (
    ({"model": "openai/other"}, litellm.NotFoundError, "model 'other' not found"),
    ({"max_tokens": 10**6}, litellm.BadRequestError, "max_tokens: 1000000; at most"),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        litellm.BadRequestError,
        "tools: not supported; this server calls no tools",
    ),
    (
        {"messages": [{"role": "user", "content": "a b " * 5000}]},
        litellm.BadRequestError,
        "context",
    ),
    ({"timeout": 0.001, "max_tokens": 400}, litellm.Timeout, ""),
):
    with raises(error, words):
        litellm.completion(**asked | {"messages": messages} | changed)
with raises(litellm.NotFoundError, "no such path"):
    litellm.embedding(input=["x"], **asked)


async def cancelled() -> None:
    """Stop reading a stream."""
    stream = await litellm.acompletion(messages=messages, max_tokens=400, stream=True, **asked)
    async for _ in stream:
        break
    await stream.aclose()


asyncio.run(cancelled())
print("passed")
