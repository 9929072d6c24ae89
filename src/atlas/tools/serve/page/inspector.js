// Inspect a token: its alternatives, and the attention of every layer and head.

import { fetchAttention } from "./api.js";
import {
  byId, element, grouped, ofLogprob, percent, shade, spoken, visible, withNewlines,
} from "./dom.js";

export class Inspector {
  #attention = new AttentionView(byId("attention"));
  #request = new AbortController();

  // Resolves when everything is shown; rejects if the server refuses.
  async show(token, model, label) {
    this.#request.abort();
    this.#request = new AbortController();
    byId("inspector").hidden = false;
    byId("inspector-title").replaceChildren(
      `${label}: `, element("span", { class: "piece" }, visible(token.piece)),
      ` ${ofLogprob(token.logprob)}`,
    );
    showAlternatives(token, model.vocab_size);
    byId("inspector-title").scrollIntoView({ block: "nearest" });
    byId("status").textContent = `${label}, ${spoken(token.piece)}: alternatives shown.`;
    if (!model.has_attention || token.idsBefore.length < 2) { // one token gets it all
      this.#attention.hide();
      return;
    }
    this.#attention.wait();
    try {
      const { tokens, layers } = await fetchAttention(token.idsBefore, this.#request.signal);
      this.#attention.show(tokens, layers, model.heads);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#attention.hide();
      throw error;
    }
  }

  clear() {
    this.#request.abort();
    byId("inspector").hidden = true;
  }
}

// Shows the model's own probabilities, and next to them those that the sampler used.
function showAlternatives({ piece, logprob, alternatives, sampling, inPrompt }, vocabulary) {
  const own = new Map(alternatives.map(([each, value]) => [each, Math.exp(value)]));
  if (logprob !== null) own.set(piece, Math.exp(logprob));
  const pieces = [...own.keys()].sort((a, b) => own.get(b) - own.get(a));
  const columns = [pieces.map((each) => own.get(each))];
  if (sampling) columns.push(pieces.map((each) => sampling[each]));
  const rows = pieces.map((each, at) => {
    const head = element("th", { scope: "row" }, element("span", { class: "piece" }, visible(each)));
    const row = element("tr", {}, head, ...columns.map((values) => probabilityCell(values[at])));
    if (each === piece) {
      row.setAttribute("aria-current", "true");
      head.append(element("span", { class: "chosen" }, inPrompt ? "in the prompt" : "sampled"));
    }
    return row;
  });
  const others = vocabulary - pieces.length;
  if (others > 0) {
    const head = element("th", { scope: "row" }, `${grouped(others)} others`);
    rows.push(element("tr", { class: "rest" }, head, ...columns.map(rest).map(probabilityCell)));
  }
  const table = byId("alternatives");
  table.hidden = !pieces.length;
  table.tHead.rows[0].cells[2].hidden = !sampling;
  table.tBodies[0].replaceChildren(...rows);
  byId("alternatives-note").textContent = note(pieces.length, inPrompt);
}

function note(count, inPrompt) {
  if (!count) return "No text precedes this token, so it has no probability.";
  return inPrompt
    ? "The model's own probabilities after the text before. The prompt is not sampled."
    : "Left, the model's own probabilities. Right, those that the token was drawn with, after " +
      "temperature, top-k, top-p, min-p and repetition penalty.";
}

// Probability of all other tokens; below the precision of the sum it counts as 0.
function rest(probabilities) {
  const left = 1 - probabilities.reduce((sum, each) => sum + each, 0);
  return left < 1e-6 ? 0 : left;
}

function probabilityCell(probability) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  bar.hidden = probability === 0;
  bar.style.setProperty("--share", probability.toFixed(4));
  return element("td", {}, element("span", { class: "number" }, percent(probability)), bar);
}

// What a head attends to, in the space of a row's name.
const shortKind = ({ kind, score }) => ` ${kind.replace(" token", "")} ${score.toFixed(2)}`;

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
    this.rowMark = root.querySelector(".heat-row-mark");
    this.columnMark = root.querySelector(".heat-column-mark");
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
    this.list.addEventListener("click", (event) => {
      const row = [...this.list.children].indexOf(event.target.closest("[role=option]"));
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
    this.#root.hidden = false;
    this.#root.setAttribute("aria-busy", "true");
    this.#root.querySelector(".readout").textContent = "Reading the attention …";
  }

  // `layers` has, by layer and head, a weight for each token; `roles`, what heads attend to most.
  show(tokens, layers, roles) {
    this.#root.hidden = false;
    this.#root.setAttribute("aria-busy", "false");
    this.#tokens = tokens;
    const heads = layers.flatMap((layer, depth) =>
      layer.map((weights, head) => ({
        label: `${depth + 1}.${head + 1}`,
        name: `Layer ${depth + 1} head ${head + 1}`,
        role: roles.find((each) => each.layer === depth + 1 && each.head === head + 1),
        startsLayer: head === 0,
        weights,
      })),
    );
    byId("head-legend").hidden = !heads.some(({ role }) => role);
    const average = tokens.map(
      (_, column) => heads.reduce((sum, { weights }) => sum + weights[column], 0) / heads.length,
    );
    this.#rows = [{ label: "avg", name: "Average of all heads", weights: average }, ...heads];
    const sizes = { columns: tokens.length, rows: this.#rows.length, heads: layers[0].length };
    const heat = this.#root.querySelector(".heat");
    for (const [name, size] of Object.entries(sizes)) heat.style.setProperty(`--${name}`, size);
    this.list.replaceChildren(
      ...this.#rows.map(({ label, role, startsLayer }, row) => {
        const name = this.#nameOf(row);
        const option = element("span", {
          id: `head-${row}`, role: "option", "aria-label": name, title: name,
        }, label);
        option.classList.toggle("starts-layer", startsLayer === true);
        option.classList.toggle("has-role", role?.is_role === true);
        if (role) option.append(element("span", { class: "kind" }, shortKind(role)));
        return option;
      }),
    );
    this.#root.querySelector(".heat-columns").replaceChildren(
      ...tokens.map((token) => element("span", { title: visible(token) }, visible(token))),
    );
    this.text.replaceChildren(...tokens.map((token) => element("span", {}, ...withNewlines(token))));
    this.#drawCells();
    this.#select(Math.min(this.#row, this.#rows.length - 1), null);
    heat.scrollLeft = heat.scrollWidth; // the latest tokens
  }

  #nameOf(row) {
    const { name, role } = this.#rows[row];
    if (!role) return name;
    return `${name}: ${role.kind} (${role.score.toFixed(2)})${role.is_role ? "" : ", a tendency"}`;
  }

  // One pixel per weight, scaled by the style sheet: thousands are cheap.
  #drawCells() {
    const canvas = this.cells.querySelector("canvas");
    canvas.width = this.#tokens.length;
    canvas.height = this.#rows.length;
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    this.#rows.forEach(({ weights }, row) =>
      weights.forEach((weight, column) => {
        image.data[4 * (row * canvas.width + column) + 3] = 255 * shade(weight); // opacity
      }),
    );
    context.putImageData(image, 0, 0);
    context.globalCompositeOperation = "source-in"; // the color, where there is opacity
    context.fillStyle = getComputedStyle(canvas).color;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }

  #select(row, column) {
    this.#row = row;
    this.#column = column;
    [...this.list.children].forEach((head, at) => head.setAttribute("aria-selected", at === row));
    this.list.setAttribute("aria-activedescendant", `head-${row}`);
    this.rowMark.style.setProperty("--row", row);
    this.#rows[row].weights.forEach((weight, at) => {
      const span = this.text.children[at];
      span.title = `${visible(this.#tokens[at])}  ${weight.toFixed(3)}`;
      span.dataset.weight = weight;
      span.style.setProperty("--w", shade(weight));
    });
    this.#describe(row, column);
  }

  // Describes one weight in words; without a column, the largest weights of the row.
  #describe(row, column) {
    const { weights } = this.#rows[row];
    const name = this.#nameOf(row);
    this.columnMark.hidden = column === null;
    this.columnMark.style.setProperty("--column", column);
    this.text.querySelector(".marked")?.classList.remove("marked");
    this.text.children[column]?.classList.add("marked");
    const quoted = (at) => `“${this.#tokens[at].trim() ? this.#tokens[at] : spoken(this.#tokens[at])}”`;
    const weighted = (at) => `${quoted(at)} (${weights[at].toFixed(2)})`;
    const largest = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
    const next = largest.length > 1 ? `, then to ${largest.slice(1, 3).map(weighted).join(" and ")}` : "";
    this.#root.querySelector(".readout").textContent =
      column === null
        ? `${name}. Attends most to ${weighted(largest[0])}${next}.`
        : `${name}. Attends to token ${column + 1}, ${quoted(column)}, ` +
          `with weight ${weights[column].toFixed(3)}.`;
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
    for (const mark of [this.rowMark, this.columnMark]) {
      mark.scrollIntoView({ block: "nearest", inline: "nearest" }); // a hidden one does nothing
    }
  }
}
