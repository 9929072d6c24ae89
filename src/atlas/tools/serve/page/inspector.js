// Inspect a token: its alternatives, and the attention of every layer and head.

import { fetchAttention } from "./api.js";
import { byId, element, grouped, percent, shade, spoken, visible, withNewlines } from "./dom.js";

export class Inspector {
  #attention = new AttentionView(byId("attention"));
  #request = new AbortController();

  // Resolves when everything is shown; rejects if the server refuses.
  async show(token, model, label) {
    this.#request.abort();
    this.#request = new AbortController();
    byId("inspector-title").replaceChildren(
      `${label}: `, element("span", { class: "piece" }, visible(token.piece)),
      ` ${percent(Math.exp(token.logprob))}`,
    );
    byId("inspector-hint").hidden = true;
    byId("inspector-body").hidden = false;
    showAlternatives(token, model.vocab_size);
    byId("inspector-title").scrollIntoView({ block: "nearest" });
    byId("status").textContent = `${label}, ${spoken(token.piece)}: alternatives shown.`;
    if (!model.has_attention || !token.idsBefore.length) {
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

  clear() {
    this.#request.abort();
    byId("inspector-title").textContent = "Inspect a token";
    byId("inspector-hint").hidden = false;
    byId("inspector-body").hidden = true;
  }
}

function showAlternatives({ piece, logprob, alternatives }, vocabulary) {
  const all = alternatives.some(([each]) => each === piece)
    ? [...alternatives]
    : [...alternatives, [piece, logprob]];
  all.sort(([, a], [, b]) => b - a);
  const rows = all.map(([each, value]) => alternativeRow(visible(each), Math.exp(value), each === piece));
  const rest = 1 - all.reduce((sum, [, value]) => sum + Math.exp(value), 0);
  const others = vocabulary - all.length;
  if (others > 0) rows.push(alternativeRow(`${grouped(others)} others`, Math.max(rest, 0), false, true));
  byId("alternatives").tBodies[0].replaceChildren(...rows);
}

function alternativeRow(label, probability, sampled, isRest = false) {
  const head = element("th", { scope: "row" }, isRest ? label : element("span", { class: "piece" }, label));
  if (sampled) head.append(element("span", { class: "sampled" }, "sampled"));
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", probability.toFixed(4));
  bar.style.setProperty("--p", shade(probability));
  const cell = element("td", {}, element("span", { class: "number" }, percent(probability)), bar);
  const row = element("tr", { class: isRest ? "rest" : "" }, head, cell);
  if (sampled) row.setAttribute("aria-current", "true");
  return row;
}

// A heat map with a row per head and a column per token, and the text shaded by the selected row.
class AttentionView {
  #root;
  #rows = [];
  #tokens = [];
  #row = 0;
  #column = null;

  constructor(root) {
    this.#root = root;
    this.list = root.querySelector(".heat-rows");
    this.cells = root.querySelector(".heat-cells");
    this.text = root.querySelector(".shaded-text");
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
    this.list.addEventListener("click", (event) => {
      const row = [...this.list.children].indexOf(event.target);
      if (row >= 0) this.#select(row, null);
    });
    this.cells.addEventListener("click", (event) => this.#select(...this.#cellAt(event)));
    this.cells.addEventListener("pointermove", (event) => this.#describe(...this.#cellAt(event)));
    this.cells.addEventListener("pointerleave", () => this.#describe(this.#row, this.#column));
  }

  hide() {
    this.#root.hidden = true;
  }

  // Dims the weights of the previous token until new ones arrive.
  wait() {
    this.#root.setAttribute("aria-busy", "true");
  }

  // `layers` has, by layer and head, a weight for each token.
  show(tokens, layers) {
    this.#root.hidden = false;
    this.#root.setAttribute("aria-busy", "false");
    this.#tokens = tokens;
    const heads = layers.flatMap((layer, depth) =>
      layer.map((weights, head) => ({
        label: `${depth + 1}.${head + 1}`,
        name: `Head ${head + 1} of layer ${depth + 1}`,
        startsLayer: head === 0,
        weights,
      })),
    );
    const average = tokens.map(
      (_, column) => heads.reduce((sum, { weights }) => sum + weights[column], 0) / heads.length,
    );
    this.#rows = [{ label: "avg", name: "The average of all heads", weights: average }, ...heads];
    this.#setStyle({ columns: tokens.length, rows: this.#rows.length, heads: layers[0].length });
    this.list.replaceChildren(
      ...this.#rows.map(({ label, name, startsLayer }, row) =>
        element("span", {
          id: `head-${row}`, role: "option", "aria-label": name, title: name,
          class: startsLayer ? "starts-layer" : "",
        }, label),
      ),
    );
    this.#root.querySelector(".heat-columns").replaceChildren(
      ...tokens.map((token) => element("span", { title: visible(token) }, visible(token))),
    );
    this.#drawCells();
    this.#select(Math.min(this.#row, this.#rows.length - 1), null);
    const box = this.#root.querySelector(".heat");
    box.scrollLeft = box.scrollWidth; // the latest tokens
  }

  // One pixel per weight, scaled by the style sheet: thousands are cheap.
  #drawCells() {
    const canvas = this.cells.querySelector("canvas");
    canvas.width = this.#tokens.length;
    canvas.height = this.#rows.length;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(canvas).color;
    this.#rows.forEach(({ weights }, row) =>
      weights.forEach((weight, column) => {
        context.globalAlpha = shade(weight);
        context.fillRect(column, row, 1, 1);
      }),
    );
  }

  #select(row, column) {
    this.#row = row;
    this.#column = column;
    [...this.list.children].forEach((head, at) => head.setAttribute("aria-selected", at === row));
    this.list.setAttribute("aria-activedescendant", `head-${row}`);
    this.#setStyle({ row });
    this.text.replaceChildren(
      ...this.#tokens.map((token, at) => {
        const weight = this.#rows[row].weights[at];
        const title = `${visible(token)}  ${weight.toFixed(3)}`;
        const span = element("span", { title, "data-weight": weight }, ...withNewlines(token));
        span.style.setProperty("--w", shade(weight));
        return span;
      }),
    );
    this.#describe(row, column);
  }

  // Describes one weight in words; without a column, the largest weights of the row.
  #describe(row, column) {
    const { name, weights } = this.#rows[row];
    this.cells.querySelector(".heat-column-mark").hidden = column === null;
    [...this.text.children].forEach((span, at) => span.classList.toggle("marked", at === column));
    if (column !== null) this.#setStyle({ column });
    const quoted = (at) => `“${this.#tokens[at].trim() ? this.#tokens[at] : spoken(this.#tokens[at])}”`;
    const weighted = (at) => `${quoted(at)} (${weights[at].toFixed(2)})`;
    const largest = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
    const next = largest.length > 1 ? `, then to ${largest.slice(1, 3).map(weighted).join(" and ")}` : "";
    this.#root.querySelector(".readout").textContent =
      column === null
        ? `${name} attends most to ${weighted(largest[0])}${next}.`
        : `${name} attends to token ${column + 1}, ${quoted(column)}, ` +
          `with weight ${weights[column].toFixed(3)}.`;
  }

  #setStyle(properties) {
    for (const [name, value] of Object.entries(properties)) {
      this.#root.style.setProperty(`--${name}`, value);
    }
  }

  #cellAt({ clientX, clientY }) {
    const box = this.cells.getBoundingClientRect();
    const index = (at, size, count) => Math.min(Math.max(Math.floor((at / size) * count), 0), count - 1);
    return [
      index(clientY - box.top, box.height, this.#rows.length),
      index(clientX - box.left, box.width, this.#tokens.length),
    ];
  }

  #onKey(event) {
    const lastRow = this.#rows.length - 1;
    const lastColumn = this.#tokens.length - 1;
    const column = this.#column ?? lastColumn + 1; // the first step left goes to the latest token
    const moves = {
      ArrowUp: [Math.max(this.#row - 1, 0), this.#column],
      ArrowDown: [Math.min(this.#row + 1, lastRow), this.#column],
      ArrowLeft: [this.#row, Math.max(column - 1, 0)],
      ArrowRight: [this.#row, Math.min(column + 1, lastColumn)],
      Home: [0, this.#column],
      End: [lastRow, this.#column],
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.#select(...moves[event.key]);
    const marks = this.#root.querySelectorAll(".heat-row-mark, .heat-column-mark:not([hidden])");
    for (const mark of marks) mark.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}
