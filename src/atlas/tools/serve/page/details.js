// What there is to know of a picked token: its alternatives, and where the model looked.

import { fetchAttention } from "./api.js";
import { AttentionView } from "./attention.js";
import { element, grouped, percent, shade, shown, spoken } from "./text.js";

const find = (id) => document.getElementById(id);

export class Details {
  #attention = new AttentionView(find("attention"));
  #request = new AbortController();

  // Returns when all of it stands, or throws what the server had against it.
  async show(token, model, alone) {
    this.#request.abort();
    this.#request = new AbortController();
    const probability = percent(Math.exp(token.logprob));
    const place = alone ? `Token ${token.number}` : `Token ${token.number} of text ${token.letter}`;
    find("details-title").replaceChildren(
      `${place}: `,
      element("span", { class: "piece" }, shown(token.piece)),
      ` ${probability}`,
    );
    find("details-hint").hidden = true;
    find("details-body").hidden = false;
    showAlternatives(token, model.vocab_size);
    find("details-title").scrollIntoView({ block: "nearest" });
    find("status").textContent = `${place}, ${spoken(token.piece)}: its alternatives are shown.`;
    if (!model.tells_attention || !token.idsBefore.length) {
      this.#attention.hide();
      return;
    }
    this.#attention.wait();
    try {
      const { tokens, layers } = await fetchAttention(token.idsBefore, this.#request.signal);
      this.#attention.show(tokens, layers);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#attention.hide();
      throw error;
    }
  }

  // Nothing is picked: a new text grows.
  clear() {
    this.#request.abort();
    find("details-title").textContent = "A token, looked into";
    find("details-hint").hidden = false;
    find("details-body").hidden = true;
  }
}

function showAlternatives({ piece, logprob, alternatives }, vocabulary) {
  const all = alternatives.some(([each]) => each === piece)
    ? [...alternatives]
    : [...alternatives, [piece, logprob]];
  all.sort(([, one], [, other]) => other - one);
  const rows = all.map(([each, value]) => row(shown(each), Math.exp(value), each === piece));
  const rest = 1 - all.reduce((sum, [, value]) => sum + Math.exp(value), 0);
  const others = vocabulary - all.length;
  if (others > 0) rows.push(row(`${grouped(others)} others`, Math.max(rest, 0), false, true));
  find("alternatives").tBodies[0].replaceChildren(...rows);
}

function row(label, probability, picked, rest = false) {
  const head = element("th", { scope: "row" });
  head.append(rest ? label : element("span", { class: "piece" }, label));
  if (picked) head.append(element("span", { class: "picked" }, "picked"));
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", probability.toFixed(4));
  bar.style.setProperty("--p", shade(probability));
  const cell = element("td", {}, element("span", { class: "number" }, percent(probability)), bar);
  const made = element("tr", {}, head, cell);
  if (picked) made.setAttribute("aria-current", "true");
  if (rest) made.className = "rest";
  return made;
}
