// Vercel's AI SDK against a server: node vercel_client.mjs URL MODEL
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embed, generateText, jsonSchema, streamText, tool } from "ai";

const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "atlas",
  baseURL: `${url}/v1`,
  apiKey: "none",
  includeUsage: true,
});
const asked = { prompt: "the lamp", maxOutputTokens: 8, seed: 1, maxRetries: 0 };
const models = [provider.chatModel(name), provider.completionModel(name)];

for (const model of models) {
  const done = await generateText({ model, ...asked });
  assert.equal(done.finishReason, "length");
  assert.equal(done.usage.outputTokens, 8);
  assert.ok(done.text);
  const result = streamText({ model, ...asked, onError: ({ error }) => { throw error; } });
  let streamed = "";
  for await (const part of result.textStream) streamed += part;
  assert.equal(streamed, done.text);
  assert.equal((await result.usage).outputTokens, 8);
}

const [model] = models;
const messages = [
  { role: "system", content: "one" },
  { role: "user", content: [{ type: "text", text: "the lamp" }] },
  { role: "assistant", content: "sees" },
  { role: "user", content: "a stone" },
];
const { prompt, ...options } = asked;
assert.ok((await generateText({ model, messages, ...options, allowSystemInMessages: true })).text);

const refused = async (call, status, words) =>
  assert.rejects(call, (error) => {
    assert.ok(APICallError.isInstance(error), String(error));
    assert.equal(error.statusCode, status);
    assert.ok(error.message.includes(words), error.message);
    return true;
  });
const other = provider.chatModel("other");
await refused(() => generateText({ model: other, ...asked }), 404, "not found");
const tools = { f: tool({ inputSchema: jsonSchema({ type: "object", properties: {} }) }) };
await refused(() => generateText({ model, tools, ...asked }), 400, "tools: not supported");
const embedder = provider.textEmbeddingModel(name);
await refused(() => embed({ model: embedder, value: "x", maxRetries: 0 }), 404, "no such path");

const controller = new AbortController();
const long = streamText({ model, ...asked, maxOutputTokens: 400, abortSignal: controller.signal });
for await (const _ of long.textStream) controller.abort();
const abortSignal = AbortSignal.timeout(1);
await assert.rejects(() => generateText({ model, ...asked, maxOutputTokens: 400, abortSignal }));
console.log("passed");
