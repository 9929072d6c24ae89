// Sampling settings: number fields, most of them with a slider.

import { byId, element } from "./dom.js";

const FIELDS = [
  {
    name: "temperature", label: "Temperature", value: 0.8, min: 0, max: 2, step: 0.01,
    slider: [0, 2, 0.05], help: "0: most probable token; above 1: more random",
  },
  {
    name: "top_k", label: "Top-k", value: 50, min: 0, max: 1000000, step: 1,
    slider: [0, 200, 1], help: "Only the k most probable; 0: off",
  },
  {
    name: "top_p", label: "Top-p", value: 0.95, min: 0.01, max: 1, step: 0.01,
    slider: [0.01, 1, 0.01], help: "Most probable with a sum of p; 1: off",
  },
  {
    name: "min_p", label: "Min-p", value: 0, min: 0, max: 1, step: 0.01,
    slider: [0, 1, 0.01], help: "At least p × the highest; 0: off",
  },
  {
    name: "repetition_penalty", label: "Repetition penalty", value: 1, min: 0.1, max: 10,
    step: 0.01, slider: [0.5, 2, 0.05], help: "Above 1: fewer repetitions",
  },
  {
    name: "max_tokens", label: "Max tokens", value: 80, min: 0, max: 4096, step: 1,
    slider: [0, 256, 1], help: "Maximum length of the output; 0: none",
  },
  {
    name: "seed", label: "Seed", value: 1, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1,
    optional: true, help: "Same seed, same output; empty: random",
  },
  { name: "stop", label: "Stop string", value: "", text: true, help: "Ends the output; \\n is a newline" },
];

export class Settings {
  #inputs = new Map();
  #sliders = new Map();

  constructor(letter, defaults) {
    const prefix = letter.toLowerCase();
    this.root = byId(`settings-${prefix}`);
    this.root.append(byId("settings").content.cloneNode(true));
    this.root.querySelector("legend").textContent = `Settings ${letter}`;
    const box = this.root.querySelector(".controls");
    for (const field of FIELDS) {
      box.append(this.#row({ ...field, value: defaults[field.name] ?? field.value }, `${prefix}-${field.name}`));
    }
  }

  show(isShown, letter) {
    this.root.hidden = !isShown;
    this.root.disabled = !isShown; // hidden fields are not validated
    this.root.querySelector("h2").textContent = `Settings ${letter}`.trim();
  }

  // Applies the limits of the server and its model.
  limit({ max_tokens: maxTokens, vocab_size: vocabulary }) {
    for (const [name, max, sliderMax] of [["max_tokens", maxTokens, 256], ["top_k", vocabulary, 200]]) {
      const input = this.#inputs.get(name);
      input.max = max;
      if (input.valueAsNumber > max) input.value = max;
      this.#sliders.get(name).max = Math.min(sliderMax, max);
      this.#moveSlider(name);
    }
  }

  values() {
    return Object.fromEntries([...this.#inputs].map(([name, input]) => [name, input.value]));
  }

  restore(values = {}) {
    for (const [name, input] of this.#inputs) {
      if (typeof values[name] !== "string") continue;
      input.value = values[name];
      this.#moveSlider(name);
    }
  }

  // Options of a request; all fields must be valid.
  request(randomSeed) {
    const request = {};
    for (const [name, input] of this.#inputs) {
      if (name !== "stop") request[name] = input.value === "" ? randomSeed : input.valueAsNumber;
    }
    const stop = unescape(this.#inputs.get("stop").value);
    return stop ? { ...request, stop } : request;
  }

  #row({ name, label, value, text, optional, slider, help, ...bounds }, id) {
    const input = element("input", {
      id, form: "ask", "data-name": name, "aria-describedby": `${id}-help`,
      ...(text ? { type: "text", maxlength: 256, spellcheck: "false" } : { type: "number", ...bounds }),
    });
    input.required = !text && !optional;
    if (optional) input.placeholder = "random";
    input.value = value;
    this.#inputs.set(name, input);
    const row = element("div", { class: "control" }, element("label", { for: id }, label), input);
    if (slider) row.append(this.#slider(name, slider));
    row.append(element("small", { id: `${id}-help` }, help));
    return row;
  }

  // Sliders are for pointers only: keyboards and screen readers use the field.
  #slider(name, [min, max, step]) {
    const slider = element("input", {
      type: "range", min, max, step, tabindex: -1, "aria-hidden": "true",
    });
    this.#sliders.set(name, slider);
    const input = this.#inputs.get(name);
    slider.addEventListener("input", () => {
      input.value = slider.value;
    });
    input.addEventListener("input", () => this.#moveSlider(name));
    this.#moveSlider(name);
    return slider;
  }

  #moveSlider(name) {
    const slider = this.#sliders.get(name);
    if (slider) slider.value = this.#inputs.get(name).value;
  }
}

// A one-line field can't hold newlines: they are typed as in code.
function unescape(text) {
  const characters = { n: "\n", t: "\t", "\\": "\\" };
  return text.replace(/\\([nt\\])/g, (_, letter) => characters[letter]);
}
