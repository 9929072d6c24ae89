// The controls of one sampling: number fields, each with a slider where one helps.

import { element } from "./text.js";

const CONTROLS = [
  {
    name: "temperature", label: "Temperature", value: 0.8, min: 0, max: 2, step: 0.01,
    slide: [0, 2, 0.05], help: "0: the likeliest; above 1: bolder",
  },
  {
    name: "top_k", label: "Top-k", value: 50, min: 0, max: 1000000, step: 1,
    slide: [0, 200, 1], help: "The k likeliest; 0: all",
  },
  {
    name: "top_p", label: "Top-p", value: 0.95, min: 0.01, max: 1, step: 0.01,
    slide: [0.01, 1, 0.01], help: "The likeliest that sum to p; 1: all",
  },
  {
    name: "min_p", label: "Min-p", value: 0, min: 0, max: 1, step: 0.01,
    slide: [0, 1, 0.01], help: "At least p × the likeliest; 0: all",
  },
  {
    name: "repetition_penalty", label: "Repetition penalty", value: 1, min: 0.1, max: 10,
    step: 0.01, slide: [0.5, 2, 0.05], help: "Above 1 repeats less",
  },
  {
    name: "max_tokens", label: "Most tokens", value: 80, min: 1, max: 4096, step: 1,
    slide: [1, 256, 1], help: "Where the text ends at the latest",
  },
  {
    name: "seed", label: "Seed", value: 1, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1,
    optional: true, help: "Same seed, same text; empty: new",
  },
  { name: "stop", label: "Stop string", value: "", text: true, help: "Ends the text; \\n for newline" },
];

export class Settings {
  constructor(box, prefix, changes = {}) {
    this.inputs = new Map();
    this.sliders = new Map();
    for (const control of CONTROLS) {
      box.append(this.#row(control, `${prefix}-${control.name}`, changes[control.name]));
    }
  }

  // Bounds that only the server knows.
  limit({ most_tokens: mostTokens, vocab_size: vocabulary }) {
    this.inputs.get("max_tokens").max = mostTokens;
    this.sliders.get("max_tokens").max = Math.min(256, mostTokens);
    this.inputs.get("top_k").max = vocabulary;
    this.sliders.get("top_k").max = Math.min(200, vocabulary);
  }

  stored() {
    return Object.fromEntries([...this.inputs].map(([name, input]) => [name, input.value]));
  }

  restore(stored = {}) {
    for (const [name, input] of this.inputs) {
      if (typeof stored[name] !== "string") continue;
      input.value = stored[name];
      this.#follow(name);
    }
  }

  // What a request has of them; call it only where they are valid.
  request(seedIfEmpty) {
    const request = {};
    for (const [name, input] of this.inputs) {
      if (name === "stop") continue;
      request[name] = input.value === "" ? seedIfEmpty : input.valueAsNumber;
    }
    const stop = unescaped(this.inputs.get("stop").value);
    return stop ? { ...request, stop } : request;
  }

  #row({ name, label, value, text, optional, slide, help, ...bounds }, id, changed) {
    const input = element("input", {
      id, form: "ask", "data-name": name, "aria-describedby": `${id}-help`,
      ...(text ? { type: "text", maxlength: 256, spellcheck: "false" } : { type: "number", ...bounds }),
    });
    input.required = !text && !optional;
    if (optional) input.placeholder = "a new one";
    input.value = changed ?? value;
    this.inputs.set(name, input);
    const row = element(
      "div", { class: text ? "control wide-input" : "control" },
      element("label", { for: id }, label), input,
    );
    if (slide) row.append(this.#slider(name, slide));
    row.append(element("small", { id: `${id}-help` }, help));
    return row;
  }

  // A slider is for pointers alone: the field before it does the same by keyboard, and says it.
  #slider(name, [min, max, step]) {
    const slider = element("input", {
      type: "range", min, max, step, tabindex: -1, "aria-hidden": "true",
    });
    this.sliders.set(name, slider);
    const input = this.inputs.get(name);
    slider.addEventListener("input", () => {
      input.value = slider.value;
    });
    input.addEventListener("input", () => this.#follow(name));
    this.#follow(name);
    return slider;
  }

  #follow(name) {
    const slider = this.sliders.get(name);
    if (slider) slider.value = this.inputs.get(name).value;
  }
}

// A one-line field has no newlines: they are written as programmers do.
function unescaped(text) {
  const meant = { n: "\n", t: "\t", "\\": "\\" };
  return text.replace(/\\([nt\\])/g, (_, letter) => meant[letter]);
}
