// One panel: sampling settings, the generated text, and its statistics.

import { complete } from "./api.js";
import { byId, element, grouped } from "./dom.js";
import { Settings } from "./settings.js";
import { TokenText } from "./tokens.js";

const LEGEND = [0.01, 0.1, 0.25, 0.5, 1]; // probabilities
const REFRESH_MS = 80; // between updates of the statistics, as layout costs more than a token

export class Panel {
  #text;
  #tokens = [];
  #promptIds = [];
  #logprobs = 0; // sum over all tokens
  #times;
  #scrollTop = 0;

  constructor(root, letter, defaults, onSelect) {
    this.root = root;
    this.letter = letter;
    root.append(byId("panel").content.cloneNode(true));
    const find = (selector) => root.querySelector(selector);
    this.fieldset = find("fieldset");
    this.box = find(".text");
    this.prompt = find(".prompt");
    this.stats = find(".stats");
    this.settings = new Settings(find(".controls"), letter.toLowerCase(), defaults);
    find("legend").textContent = `Settings ${letter}`;
    find(".tokens").setAttribute("aria-label", `Tokens of output ${letter}`);
    for (const value of LEGEND) {
      const step = element("span", {}, `${value * 100}%`);
      step.style.setProperty("--p", Math.sqrt(value));
      find(".legend-scale").append(step);
    }
    this.#text = new TokenText(find(".tokens"), (index) => onSelect(this.#inspected(index)));
  }

  // The letter distinguishes two panels; a single one has none.
  setTitles(letter) {
    this.root.querySelector(".settings-title").textContent = `Settings ${letter}`.trim();
    this.root.querySelector(".output h2").textContent = `Output ${letter}`.trim();
  }

  // Generates to the end and resolves to a summary in words.
  async run(model, prompt, randomSeed, signal) {
    this.#tokens = [];
    this.#promptIds = [];
    this.#logprobs = 0;
    this.#scrollTop = 0;
    this.#times = { start: performance.now(), first: 0, last: 0 };
    this.#text.clear();
    this.prompt.textContent = prompt;
    this.root.querySelector(".empty").hidden = true;
    this.box.hidden = false;
    this.box.classList.add("running");
    this.stats.textContent = "Waiting for the first token …";
    const request = { model, prompt, ...this.settings.request(randomSeed) };
    let end = "";
    let timer = null;
    try {
      for await (const choice of complete(request, signal)) {
        this.#add(choice);
        if (choice.finish_reason) end = endReason(choice, this.#tokens.length, request.max_tokens);
        timer ??= setTimeout(() => {
          timer = null;
          this.#showStats(request.seed, "");
        }, REFRESH_MS);
      }
    } catch (error) {
      end = error.name === "AbortError" ? "stopped by you" : "error";
      if (error.name !== "AbortError") throw error;
    } finally {
      clearTimeout(timer);
      this.box.classList.remove("running");
      this.#showStats(request.seed, end);
    }
    return `${countTokens(this.#tokens.length)}, ${end}`;
  }

  #add(choice) {
    if (choice.prompt_token_ids) this.#promptIds = choice.prompt_token_ids;
    const { logprobs, text, token_ids: ids } = choice;
    if (logprobs) {
      const token = {
        id: ids[0],
        piece: logprobs.tokens[0],
        logprob: logprobs.token_logprobs[0],
        alternatives: Object.entries(logprobs.top_logprobs[0]),
      };
      this.#times.last = performance.now();
      this.#times.first ||= this.#times.last;
      this.#logprobs += token.logprob;
      this.#tokens.push(token);
      this.#text.add(token, text);
    }
    if (choice.finish_reason) this.#text.end(logprobs ? "" : text);
  }

  // A token with everything the inspector needs.
  #inspected(index) {
    const ids = this.#tokens.slice(0, index).map(({ id }) => id);
    return {
      ...this.#tokens[index],
      number: index + 1,
      letter: this.letter,
      idsBefore: [...this.#promptIds, ...ids],
    };
  }

  // Shows statistics, and follows the end of the text unless the user has scrolled up.
  #showStats(seed, end) {
    const count = this.#tokens.length;
    const stats = [countTokens(count)];
    const { start, first, last } = this.#times;
    if (last - first > REFRESH_MS) {
      stats.push(`${grouped(Math.round(((count - 1) * 1000) / (last - first)))} tokens/s`);
    }
    if (count) {
      stats.push(`first token after ${Math.round(first - start)} ms`);
      stats.push(`perplexity ${Math.exp(-this.#logprobs / count).toFixed(1)}`);
    }
    stats.push(`seed ${seed}`, end ? `finished: ${end}` : "running");
    this.stats.replaceChildren(...stats.map((each) => element("span", {}, each)));
    if (this.box.scrollTop >= this.#scrollTop) {
      this.box.scrollTop = this.box.scrollHeight;
      this.#scrollTop = this.box.scrollTop;
    }
  }
}

// The API has one word, "stop", for two reasons: a stop string ends the text with a token.
function endReason({ finish_reason: reason, token_ids: ids }, count, maxTokens) {
  if (reason === "stop") return ids.length ? "stop string" : "end of text";
  return count < maxTokens ? "context full" : "max tokens reached";
}

const countTokens = (count) => `${grouped(count)} ${count === 1 ? "token" : "tokens"}`;
