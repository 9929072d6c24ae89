// Requests to the server of this page.

import { load, save } from "./dom.js";

const KEY = "atlas.key";
const ALTERNATIVES = 8; // of each token
const UNREACHABLE = "No response from the server. Is it running, and is the network up?";
const INCOMPLETE = "The connection was lost before the output was complete.";

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let key = load("sessionStorage", KEY);

export function setKey(value) {
  key = value;
  save("sessionStorage", KEY, value);
}

export async function fetchModel() {
  return (await request("/atlas/model")).json();
}

export async function fetchAttention(ids, signal) {
  return (await post("/atlas/attention", { ids }, signal)).json();
}

// Yields the choice of each chunk of a streamed completion.
export async function* complete(options, signal) {
  const body = {
    ...options, stream: true, logprobs: ALTERNATIVES, return_token_ids: true,
    return_sampling_probs: true,
  };
  const response = await post("/v1/completions", body, signal);
  for await (const line of readLines(response.body)) {
    if (!line.startsWith("data: ")) continue;
    const data = line.slice("data: ".length);
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(sentence(chunk.error.message));
    if (chunk.choices.length) yield chunk.choices[0];
  }
  throw new ApiError(INCOMPLETE);
}

function post(path, body, signal) {
  return request(path, { method: "POST", body: JSON.stringify(body), signal });
}

async function request(path, options = {}) {
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await explain(fetch(path, { ...options, headers }), UNREACHABLE);
  if (!response.ok) throw new ApiError(await errorMessage(response), response.status);
  return response;
}

async function errorMessage(response) {
  if (response.status === 401) {
    return key ? "The server does not accept this API key." : "This server needs an API key.";
  }
  const body = await response.json().catch(() => null);
  const message = sentence(body?.error?.message ?? `status ${response.status}`);
  return response.status < 500 ? `Request refused: ${message}` : message;
}

const sentence = (message) => (/[.!?]$/.test(message) ? message : `${message}.`);

async function* readLines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await explain(reader.read(), INCOMPLETE);
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

// Replaces a browser's cryptic network errors; an abort passes through.
async function explain(promise, message) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(message);
  }
}
