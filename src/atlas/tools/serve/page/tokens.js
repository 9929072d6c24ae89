// Text of a model: one element per token, shaded by its probability.

import { element, ofLogprob, shade, spoken, visible, withNewlines } from "./dom.js";

const REPLACEMENT = /\ufffd/g; // decoded from part of a character

export class TokenText {
  #box;
  #onSelect;
  #elements = [];
  #pending = []; // tokens without text yet: part of a character, or of a stop string

  constructor(box, onSelect) {
    this.#box = box;
    this.#onSelect = onSelect;
    box.addEventListener("click", (event) => this.#select(this.#indexOf(event.target)));
    box.addEventListener("keydown", (event) => this.#onKey(event));
  }

  clear() {
    this.#box.replaceChildren();
    this.#elements = [];
    this.#pending = [];
  }

  // Adds a token and the text that arrived with it, which may belong to earlier tokens.
  add({ piece, logprob }, text) {
    const probability = logprob === null ? 0 : Math.exp(logprob);
    const span = element("span", {
      class: "token",
      role: "option",
      tabindex: this.#elements.length ? -1 : 0,
      title: `${visible(piece)}  ${ofLogprob(logprob)}`,
      "aria-label": `${spoken(piece)}, ${ofLogprob(logprob)}`,
      "aria-selected": "false",
      "data-probability": probability,
    });
    span.style.setProperty("--p", shade(probability));
    this.#elements.push(span);
    this.#pending.push({ span, piece });
    this.#assign(text);
    this.#box.append(span);
  }

  // Adds the last text, which arrives without a token.
  end(text) {
    const last = this.#elements.at(-1);
    if (text && last && !this.#pending.length) write(last, last.dataset.text + text);
    else this.#assign(text);
    for (const { span } of this.#pending) span.title += "  (not part of the output)";
  }

  // Assigns text to pending tokens. A character made of several tokens goes to the last of them.
  #assign(text) {
    let rest = text.replace(REPLACEMENT, "");
    while (rest && this.#pending.length > 1 && rest.startsWith(this.#pending[0].piece)) {
      const { span, piece } = this.#pending.shift();
      write(span, piece);
      rest = rest.slice(piece.length);
    }
    if (rest) {
      const { span: last } = this.#pending.pop();
      for (const { span } of this.#pending) write(span, "");
      this.#pending = [];
      write(last, rest);
    }
    for (const { span, piece } of this.#pending) {
      span.classList.add("bare");
      span.textContent = visible(piece);
    }
  }

  #onKey(event) {
    const index = this.#indexOf(event.target);
    const last = this.#elements.length - 1;
    const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last };
    if (event.key === "Enter" || event.key === " ") this.#select(index);
    else if (event.key in moves) this.#focus(Math.min(Math.max(moves[event.key], 0), last));
    else return;
    event.preventDefault();
  }

  #indexOf(target) {
    return this.#elements.indexOf(target.closest(".token"));
  }

  // Only one token is in the tab order, so that Tab leaves the text in one step.
  #focus(index) {
    for (const token of this.#box.querySelectorAll('[tabindex="0"]')) token.tabIndex = -1;
    this.#elements[index].tabIndex = 0;
    this.#elements[index].focus();
  }

  #select(index) {
    if (index < 0) return;
    this.#focus(index);
    this.#onSelect(index);
    for (const token of document.querySelectorAll('.token[aria-selected="true"]')) {
      token.setAttribute("aria-selected", "false");
    }
    this.#elements[index].setAttribute("aria-selected", "true");
  }
}

function write(span, text) {
  span.classList.remove("bare");
  span.classList.toggle("part", !text);
  span.dataset.text = text;
  span.replaceChildren(...withNewlines(text));
}
