// A text as it grows: an element for each token, coloured by its probability.

import { element, percent, shade, shown, spoken, withNewlines } from "./text.js";

const BROKEN = /\ufffd/g; // what a decoder gives for a part of a character

export class TokenText {
  #box;
  #onPick;
  #pending = []; // tokens whose text has not come: parts of a character, or of a stop string
  #elements = [];

  constructor(box, onPick) {
    this.#box = box;
    this.#onPick = onPick;
    box.addEventListener("click", (event) => this.#pick(this.#indexOf(event.target)));
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  clear() {
    this.#box.replaceChildren();
    this.#pending = [];
    this.#elements = [];
  }

  // Adds a token, and the text that came with it, which may be that of tokens before it.
  add(token, text) {
    const probability = Math.exp(token.logprob);
    const made = element("span", {
      class: "token",
      role: "option",
      tabindex: this.#elements.length ? -1 : 0,
      title: `${shown(token.piece)}  ${percent(probability)}`,
      "aria-label": `${spoken(token.piece)}, ${percent(probability)}`,
      "aria-selected": "false",
    });
    made.style.setProperty("--p", shade(probability));
    made.dataset.probability = probability;
    this.#elements.push(made);
    this.#pending.push({ made, piece: token.piece });
    this.#spread(text);
    this.#box.append(made);
  }

  // The last of the text, which comes without a token.
  end(text) {
    if (text && !this.#pending.length && this.#elements.length) {
      const last = this.#elements.at(-1);
      write(last, last.dataset.text + text);
    } else {
      this.#spread(text);
    }
    for (const { made } of this.#pending) {
      made.title += "  (not part of the text)";
    }
  }

  // Gives text to the tokens that wait for theirs; what only a later token completed is its.
  #spread(text) {
    let rest = text.replace(BROKEN, "");
    while (rest && this.#pending.length > 1 && rest.startsWith(this.#pending[0].piece)) {
      const { made, piece } = this.#pending.shift();
      write(made, piece);
      rest = rest.slice(piece.length);
    }
    if (rest) {
      const last = this.#pending.pop();
      for (const { made } of this.#pending) write(made, "");
      this.#pending = [];
      write(last.made, rest);
    }
    for (const { made, piece } of this.#pending) {
      made.classList.add("bare");
      made.textContent = shown(piece);
    }
  }

  #key(event) {
    const at = this.#indexOf(event.target);
    const last = this.#elements.length - 1;
    const targets = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last };
    if (event.key === "Enter" || event.key === " ") this.#pick(at);
    else if (event.key in targets) this.#focus(Math.min(Math.max(targets[event.key], 0), last));
    else return;
    event.preventDefault();
  }

  #indexOf(target) {
    return this.#elements.indexOf(target.closest(".token"));
  }

  // One token is in the order of Tab, so that Tab leaves the text in one step.
  #focus(index) {
    for (const each of this.#box.querySelectorAll('[tabindex="0"]')) each.tabIndex = -1;
    this.#elements[index].tabIndex = 0;
    this.#elements[index].focus();
  }

  #pick(index) {
    if (index < 0) return;
    this.#focus(index);
    this.#onPick(index);
    for (const each of document.querySelectorAll('.token[aria-selected="true"]')) {
      each.setAttribute("aria-selected", "false");
    }
    this.#elements[index].setAttribute("aria-selected", "true");
  }
}

function write(made, text) {
  made.classList.remove("bare");
  made.classList.toggle("part", !text);
  made.dataset.text = text;
  made.replaceChildren(...withNewlines(text));
}
