// Requests to the server that served this page.

const KEY = "atlas.key";
const LOST = "The server does not answer. Does it still run, and is the network up?";
const BROKEN = "The connection broke off before the text was complete.";

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {
  // A browser may forbid storage: a key then lasts as long as the page.
}

export function useKey(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // As above.
  }
}

export async function fetchModel() {
  return (await ask("/atlas/model")).json();
}

export async function fetchAttention(ids, signal) {
  return (await post("/atlas/attention", { ids }, signal)).json();
}

// The choice of each chunk of a streamed completion.
export async function* complete(request, signal) {
  const body = { ...request, stream: true, logprobs: 8, return_token_ids: true };
  const response = await post("/v1/completions", body, signal);
  for await (const line of linesOf(response.body)) {
    if (!line.startsWith("data: ")) continue;
    const data = line.slice("data: ".length);
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(sentence(chunk.error.message));
    if (chunk.choices.length) yield chunk.choices[0];
  }
  throw new ApiError(BROKEN);
}

function post(path, body, signal) {
  return ask(path, { method: "POST", body: JSON.stringify(body), signal });
}

async function ask(path, options = {}) {
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await orLost(fetch(path, { ...options, headers }), LOST);
  if (!response.ok) throw new ApiError(await messageOf(response), response.status);
  return response;
}

async function messageOf(response) {
  if (response.status === 401) {
    return key ? "The server does not take this API key." : "This server asks for its API key.";
  }
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `it answered with status ${response.status}`;
  return response.status < 500 ? `The server refused: ${sentence(message)}` : sentence(message);
}

const sentence = (message) => (/[.!?]$/.test(message) ? message : `${message}.`);

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await orLost(reader.read(), BROKEN);
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines;
  }
}

// What a browser throws for a lost network says nothing to people; an abort is none.
async function orLost(promise, message) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(message);
  }
}
