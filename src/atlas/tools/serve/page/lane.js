// One sampling: its settings, its text, and the facts of its run.

import { complete } from "./api.js";
import { Settings } from "./settings.js";
import { TokenText } from "./tokens.js";
import { grouped } from "./text.js";

const SCALE = [0.01, 0.1, 0.25, 0.5, 1]; // what the legend names
const EVERY = 80; // milliseconds between looks at the layout, which costs more than a token

export class Lane {
  #text;
  #tokens = [];
  #promptIds = [];
  #times;
  #logprobs = 0; // of all tokens together
  #scrolled = 0;

  constructor(root, letter, changes, onPick) {
    this.root = root;
    root.append(document.getElementById("lane").content.cloneNode(true));
    const find = (selector) => root.querySelector(selector);
    this.fieldset = find("fieldset");
    this.settings = new Settings(find(".controls"), letter.toLowerCase(), changes);
    find("legend").textContent = `Sampling ${letter}`;
    this.box = find(".text");
    this.prompt = find(".prompt");
    this.facts = find(".facts");
    find(".tokens").setAttribute("aria-label", `Tokens of text ${letter}`);
    this.letter = letter;
    drawLegend(find(".legend-scale"));
    this.#text = new TokenText(find(".tokens"), (index) => onPick(this.pickedToken(index)));
  }

  // Alone, it needs no letter.
  name(alone) {
    this.root.querySelector(".settings-title").textContent = alone
      ? "Sampling"
      : `Sampling ${this.letter}`;
    this.root.querySelector(".output h2").textContent = alone ? "Text" : `Text ${this.letter}`;
  }

  // A token with all that its details need.
  pickedToken(index) {
    const before = this.#tokens.slice(0, index).map((token) => token.id);
    return {
      ...this.#tokens[index],
      number: index + 1,
      letter: this.letter,
      idsBefore: [...this.#promptIds, ...before],
    };
  }

  // Generates until the end, and says in words how it ended.
  async run(model, prompt, seed, signal) {
    this.#tokens = [];
    this.#promptIds = [];
    this.#text.clear();
    this.#scrolled = 0;
    this.prompt.textContent = prompt;
    this.root.querySelector(".empty").hidden = true;
    this.box.hidden = false;
    this.box.classList.add("running");
    this.facts.textContent = "Waiting for the first token …";
    this.#times = { asked: performance.now(), first: 0, last: 0 };
    this.#logprobs = 0;
    const request = { model, prompt, ...this.settings.request(seed) };
    let end = "";
    let timer = null;
    try {
      for await (const choice of complete(request, signal)) {
        this.#take(choice);
        if (choice.finish_reason) end = reason(choice, this.#tokens.length, request.max_tokens);
        timer ??= setTimeout(() => {
          timer = null;
          this.#tell(request.seed, "");
        }, EVERY);
      }
    } catch (error) {
      end = error.name === "AbortError" ? "you stopped it" : "an error";
      if (error.name !== "AbortError") throw error;
    } finally {
      clearTimeout(timer);
      this.box.classList.remove("running");
      this.#tell(request.seed, end);
    }
    return `${counted(this.#tokens.length)}; it ended: ${end}`;
  }

  #take(choice) {
    if (choice.prompt_token_ids) this.#promptIds = choice.prompt_token_ids;
    const told = choice.logprobs;
    if (told) {
      const token = {
        id: choice.token_ids[0],
        piece: told.tokens[0],
        logprob: told.token_logprobs[0],
        alternatives: Object.entries(told.top_logprobs[0]),
      };
      this.#times.last = performance.now();
      this.#times.first ||= this.#times.last;
      this.#logprobs += token.logprob;
      this.#tokens.push(token);
      this.#text.add(token, choice.text);
    }
    if (choice.finish_reason) this.#text.end(told ? "" : choice.text);
  }

  // Says how it goes, and keeps the end of the text in sight unless somebody scrolled away from it.
  #tell(seed, end) {
    const count = this.#tokens.length;
    const facts = [counted(count)];
    const { asked, first, last } = this.#times;
    if (last - first > EVERY) {
      facts.push(`${grouped(Math.round(((count - 1) * 1000) / (last - first)))} tokens/s`);
    }
    if (count) {
      facts.push(`first after ${Math.round(first - asked)} ms`);
      facts.push(`perplexity ${Math.exp(-this.#logprobs / count).toFixed(1)}`);
    }
    facts.push(`seed ${seed}`, end ? `ended: ${end}` : "running");
    this.facts.replaceChildren(
      ...facts.map((fact) => {
        const made = document.createElement("span");
        made.textContent = fact;
        return made;
      }),
    );
    if (this.box.scrollTop >= this.#scrolled) {
      this.box.scrollTop = this.box.scrollHeight;
      this.#scrolled = this.box.scrollTop;
    }
  }
}

// The server says "stop" for two things: a stop string ends a text together with a token.
function reason(choice, count, most) {
  if (choice.finish_reason === "stop") {
    return choice.token_ids.length ? "the stop string came" : "the model ended the text";
  }
  return count < most ? "the context is full" : "most tokens reached";
}

const counted = (count) => `${grouped(count)} ${count === 1 ? "token" : "tokens"}`;

function drawLegend(scale) {
  for (const value of SCALE) {
    const step = document.createElement("span");
    step.textContent = `${value * 100} %`;
    step.style.setProperty("--p", Math.sqrt(value));
    scale.append(step);
  }
}
