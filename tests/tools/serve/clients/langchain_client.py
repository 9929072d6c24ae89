"""langchain-openai against a server: ``python langchain_client.py URL MODEL``."""

import asyncio
import sys

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from support import raises

url, model = sys.argv[1:]
asked = {"model": model, "base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}

chat = ChatOpenAI(max_tokens=8, seed=1, **asked)
done = chat.invoke([SystemMessage("one"), HumanMessage("the lamp")])
assert done.content
assert done.usage_metadata["output_tokens"] == 8
assert done.response_metadata["finish_reason"] == "length"
assert (
    "".join(chunk.content for chunk in chat.stream("the lamp")) == chat.invoke("the lamp").content
)
history = [HumanMessage("the lamp"), done, HumanMessage([{"type": "text", "text": "one"}])]
assert chat.invoke(history).usage_metadata["output_tokens"] == 8
assert chat.invoke([HumanMessage("x"), AIMessage(""), HumanMessage("y")]).content
chain = ChatPromptTemplate.from_messages([("human", "the {thing}")]) | chat
assert chain.batch([{"thing": "lamp"}, {"thing": "river"}])[0].content

scored = ChatOpenAI(max_tokens=3, logprobs=True, top_logprobs=2, **asked).invoke("the lamp")
assert len(scored.response_metadata["logprobs"]["content"]) == 3
usage = list(ChatOpenAI(max_tokens=3, stream_usage=True, **asked).stream("the lamp"))
assert sum(chunk.usage_metadata["output_tokens"] for chunk in usage if chunk.usage_metadata) == 3

writer = OpenAI(max_tokens=8, seed=1, **asked)
text = writer.invoke("the lamp")
assert "".join(writer.stream("the lamp")) == text
assert len(writer.generate(["the lamp", "one"]).generations) == 2
assert len(OpenAI(max_tokens=4, n=2, best_of=2, **asked).generate(["x"]).generations[0]) == 2


async def asynchronous() -> None:
    """Answer twice at once, and leave a stream."""
    both = await asyncio.gather(chat.ainvoke("the lamp"), chat.ainvoke("the lamp"))
    assert both[0].content == both[1].content
    async for _ in ChatOpenAI(max_tokens=400, **asked).astream("the lamp"):
        break


asyncio.run(asynchronous())


def lookup(name: str) -> str:
    """Look a name up."""
    return name


with raises(openai.NotFoundError, "not found"):
    ChatOpenAI(**asked | {"model": "other"}).invoke("x")
with raises(openai.BadRequestError, "tools: not supp"):
    chat.bind_tools([lookup]).invoke("the lamp")
json_mode = chat.bind(response_format={"type": "json_object"})
with raises(openai.BadRequestError, "response_format: not supported"):
    json_mode.invoke("the lamp")
slow = ChatOpenAI(max_tokens=400, timeout=0.001, **asked)
with raises(openai.APITimeoutError, ""):
    slow.invoke("the lamp")
embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **asked)
with raises(openai.NotFoundError, "no such path"):
    embeddings.embed_query("x")
print("passed")
