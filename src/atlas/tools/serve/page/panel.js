// One output: its text and statistics, generated with its own settings.

import { complete } from "./api.js";
import { byId, element, grouped } from "./dom.js";
import { Settings } from "./settings.js";
import { TokenText } from "./tokens.js";

const LEGEND = [0.01, 0.1, 0.25, 0.5, 1]; // probabilities
const REFRESH_MS = 80; // between updates, which wait longer when the layout of a long text is slow
const MAX_SCORED = 4000; // characters of a prompt; a longer one would delay the first token

export class Panel {
  #promptText;
  #text;
  #promptTokens = [];
  #tokens = [];
  #promptIds = [];
  #logprobs = 0; // sum over all tokens
  #times;
  #scrollTop = 0;

  constructor(letter, defaults, onSelect) {
    this.letter = letter;
    this.root = byId(`panel-${letter.toLowerCase()}`);
    this.settings = new Settings(letter, defaults);
    this.root.append(byId("output").content.cloneNode(true));
    const find = (selector) => this.root.querySelector(selector);
    this.box = find(".text");
    this.prompt = find(".prompt");
    this.state = find(".state");
    this.stats = find(".stats");
    this.noText = find(".no-text");
    this.prompt.setAttribute("aria-label", `Input tokens of output ${letter}`);
    find(".tokens").setAttribute("aria-label", `Tokens of output ${letter}`);
    for (const value of LEGEND) {
      const step = element("span", {}, `${value * 100}%`);
      step.style.setProperty("--p", Math.sqrt(value));
      find(".legend-scale").append(step);
    }
    this.#promptText = new TokenText(this.prompt, (at) => onSelect(this.#inspected(at, true)));
    this.#text = new TokenText(find(".tokens"), (at) => onSelect(this.#inspected(at, false)));
    this.setState("Press Generate to continue the prompt.");
  }

  // Shows or hides output and settings; the letter distinguishes two of them.
  show(isShown, isCompared) {
    const letter = isCompared ? this.letter : "";
    this.root.hidden = !isShown;
    this.root.querySelector("h2").textContent = `Output ${letter}`.trim();
    this.settings.show(isShown, letter);
  }

  setState(text, isRunning = false) {
    this.state.textContent = text;
    this.box.classList.toggle("running", isRunning);
  }

  // Removes the last output and shows at once that a new one is on its way.
  start(prompt) {
    this.#promptTokens = [];
    this.#tokens = [];
    this.#promptIds = [];
    this.#logprobs = 0;
    this.#scrollTop = 0;
    this.#promptText.clear();
    this.#text.clear();
    this.prompt.textContent = prompt;
    this.stats.replaceChildren();
    this.noText.hidden = true;
    this.setState("Waiting for the first token …", true);
  }

  // Generates to the end and resolves to a summary in words.
  async run(model, prompt, randomSeed, signal) {
    this.#times = { start: performance.now(), first: 0, last: 0 };
    const echo = prompt.length <= MAX_SCORED; // with the prompt's tokens and their probabilities
    const request = { model, prompt, echo, ...this.settings.request(randomSeed) };
    const received = []; // not yet shown
    let last = {};
    let end = "error";
    let timer = null;
    let delay = 0;
    const refresh = () => {
      const started = performance.now();
      for (const choice of received.splice(0)) this.#add(choice);
      this.#showStats(request.seed);
      delay = Math.max(REFRESH_MS, 4 * (performance.now() - started));
      timer = null;
    };
    try {
      for await (last of complete(request, signal)) {
        if (last.token_ids.length) this.#times.last = performance.now();
        this.#times.first ||= this.#times.last;
        received.push(last);
        timer ??= setTimeout(refresh, delay);
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      end = "stopped by you";
    } finally {
      clearTimeout(timer);
      refresh();
      const count = this.#tokens.length;
      if (last.finish_reason) {
        end = endReason(last, count, request.max_tokens);
        this.noText.hidden = count > 0 || request.max_tokens === 0;
      }
      this.setState(`Finished: ${end}`);
    }
    return `${countTokens(this.#tokens.length)}, ${end}`;
  }

  #add({ prompt_token_ids: promptIds, token_ids: ids, logprobs, text, ...choice }) {
    let rest = text;
    let at = 0;
    if (promptIds) {
      this.#promptIds = promptIds;
      if (logprobs?.tokens.length >= promptIds.length) {
        rest = this.#showPrompt(text, logprobs);
        at = promptIds.length;
      }
    }
    if (ids.length) {
      const token = { id: ids[0], ...scored(logprobs, at), sampling: choice.sampling_probs?.[at] };
      this.#logprobs += token.logprob;
      this.#tokens.push(token);
      this.#text.add(token, rest);
    }
    if (choice.finish_reason) this.#text.end(ids.length ? "" : rest);
  }

  // Replaces the plain prompt by its tokens, and returns the text that follows them.
  #showPrompt(text, logprobs) {
    const characters = [...text]; // offsets count characters, not UTF-16 units
    const textBetween = (start, end) => characters.slice(start, end).join("");
    const { text_offset: offsets } = logprobs;
    this.#promptText.clear();
    this.#promptTokens = this.#promptIds.map((id, at) => ({ id, ...scored(logprobs, at) }));
    this.#promptTokens.forEach((token, at) => {
      this.#promptText.add(token, textBetween(offsets[at], offsets[at + 1]));
    });
    return textBetween(offsets[this.#promptIds.length] ?? characters.length);
  }

  // A token with everything the inspector needs.
  #inspected(index, inPrompt) {
    const tokens = inPrompt ? this.#promptTokens : this.#tokens;
    const before = tokens.slice(0, index).map(({ id }) => id);
    return {
      ...tokens[index],
      inPrompt,
      number: index + 1,
      letter: this.letter,
      idsBefore: inPrompt ? before : [...this.#promptIds, ...before],
    };
  }

  // Shows statistics, and follows the end of the text unless the user has scrolled up.
  #showStats(seed) {
    const count = this.#tokens.length;
    const stats = [countTokens(count)];
    const { start, first, last } = this.#times;
    if (last - first > REFRESH_MS) {
      stats.push(`${grouped(Math.round(((count - 1) * 1000) / (last - first)))} tokens/s`);
    }
    if (count) {
      this.setState("Generating …", true);
      stats.push(`first token after ${Math.round(first - start)} ms`);
      stats.push(`perplexity ${Math.exp(-this.#logprobs / count).toFixed(1)}`);
    }
    stats.push(`seed ${seed}`);
    this.stats.replaceChildren(...stats.map((each) => element("span", {}, each)));
    if (this.box.scrollTop >= this.#scrollTop) {
      this.box.scrollTop = this.box.scrollHeight;
      this.#scrollTop = this.box.scrollTop;
    }
  }
}

// One token of a response. The first of a text has no probability, because nothing precedes it.
function scored({ tokens, token_logprobs: logprobs, top_logprobs: top }, at) {
  return { piece: tokens[at], logprob: logprobs[at], alternatives: Object.entries(top[at] ?? {}) };
}

// The API has one word, "stop", for two reasons: a stop string ends the text with a token.
function endReason({ finish_reason: reason, token_ids: ids }, count, maxTokens) {
  if (reason === "stop") return ids.length ? "stop string" : "end of text";
  return count < maxTokens ? "context full" : "max tokens reached";
}

const countTokens = (count) => `${grouped(count)} ${count === 1 ? "token" : "tokens"}`;
