// The openai package of npm against a server: node openai_client.mjs URL MODEL
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "the lamp" }];

const listed = [];
for await (const each of client.models.list()) listed.push(each.id);
assert.deepEqual(listed, [model]);

const asked = { model, messages, max_tokens: 8, seed: 1 };
const done = await client.chat.completions.create(asked);
const text = done.choices[0].message.content;
assert.equal(done.choices[0].finish_reason, "length");
assert.equal(done.usage.completion_tokens, 8);
const again = [...messages, done.choices[0].message, ...messages];
assert.ok(await client.chat.completions.create({ ...asked, messages: again }));

let streamed = "";
let usage;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.equal(usage.completion_tokens, 8);
const helper = client.chat.completions.stream(asked);
assert.equal((await helper.finalChatCompletion()).choices[0].message.content, text);

const prompt = { model, prompt: "the lamp", max_tokens: 8, seed: 1 };
assert.equal((await client.completions.create(prompt)).choices[0].text, text);
const scored = await client.completions.create({ ...prompt, echo: true, logprobs: 1, max_tokens: 0 });
assert.equal(scored.choices[0].text, "the lamp");
assert.equal(scored.choices[0].logprobs.token_logprobs[0], null);
assert.ok(scored.choices[0].logprobs.token_logprobs[1] < 0);

const refused = async (call, kind, words) =>
  assert.rejects(call, (error) => error instanceof kind && error.message.includes(words));
const create = (changed, options) => client.chat.completions.create({ ...asked, ...changed }, options);
await refused(() => create({ model: "other" }), OpenAI.NotFoundError, "not found");
const tools = [{ type: "function", function: { name: "f", parameters: {} } }];
await refused(() => create({ tools }), OpenAI.BadRequestError, "tools: not supported");
await refused(() => create({ n: 999 }), OpenAI.BadRequestError, "n: ");
await refused(() => create({ max_tokens: 400 }, { timeout: 1 }), OpenAI.APIConnectionTimeoutError, "");
const input = { model, input: "x" };
await refused(() => client.embeddings.create(input), OpenAI.NotFoundError, "no such path");
await refused(() => client.responses.create(input), OpenAI.NotFoundError, "this server has");

const stream = await create({ max_tokens: 400, stream: true });
for await (const _ of stream) break; // which aborts the request
const controller = new AbortController();
const waiting = create({ max_tokens: 400 }, { signal: controller.signal });
controller.abort();
await refused(() => waiting, OpenAI.APIUserAbortError, "");
console.log("passed");
