// Attention of every layer and head as a heat map, and of one of them in the text.

import { element, shade, shown, spoken, withNewlines } from "./text.js";

const AVERAGE = { label: "all", name: "The average of all heads" };

export class AttentionView {
  #root;
  #rows = [];
  #tokens = [];
  #row = 0;
  #column = null;

  constructor(root) {
    this.#root = root;
    this.list = root.querySelector(".heat-rows");
    this.cells = root.querySelector(".heat-cells");
    this.text = root.querySelector(".looked-at");
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("click", (event) => {
      const at = [...this.list.children].indexOf(event.target);
      if (at >= 0) this.#select(at, null);
    });
    this.cells.addEventListener("click", (event) => this.#select(...this.#cellAt(event)));
    this.cells.addEventListener("pointermove", (event) => this.#tell(...this.#cellAt(event)));
    this.cells.addEventListener("pointerleave", () => this.#tell(this.#row, this.#column));
  }

  hide() {
    this.#root.hidden = true;
  }

  // What is shown is of another token, until the weights of this one come.
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
        begins: head === 0,
        weights,
      })),
    );
    const average = tokens.map(
      (_, column) => heads.reduce((sum, { weights }) => sum + weights[column], 0) / heads.length,
    );
    this.#rows = [{ ...AVERAGE, weights: average }, ...heads];
    this.#root.style.setProperty("--columns", tokens.length);
    this.#root.style.setProperty("--rows", this.#rows.length);
    this.#root.style.setProperty("--heads", layers[0].length);
    this.#drawHeads();
    this.#drawCells();
    this.#select(Math.min(this.#row, this.#rows.length - 1), null);
    const box = this.#root.querySelector(".heat");
    box.scrollLeft = box.scrollWidth; // the newest tokens
  }

  #drawHeads() {
    this.list.replaceChildren(
      ...this.#rows.map(({ label, name, begins }, at) =>
        element(
          "span",
          {
            id: `head-${at}`, role: "option", "aria-label": name, title: name,
            "aria-selected": "false", class: begins ? "begins" : "",
          },
          label,
        ),
      ),
    );
    this.#root.querySelector(".heat-columns").replaceChildren(
      ...this.#tokens.map((token) => element("span", { title: shown(token) }, shown(token))),
    );
  }

  // One pixel for each weight, which the style sheet enlarges: thousands cost little.
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
    [...this.list.children].forEach((each, at) => each.setAttribute("aria-selected", at === row));
    this.list.setAttribute("aria-activedescendant", `head-${row}`);
    this.#root.style.setProperty("--row", row);
    this.text.replaceChildren(
      ...this.#tokens.map((token, at) => {
        const weight = this.#rows[row].weights[at];
        const made = element(
          "span",
          { title: `${shown(token)}  ${weight.toFixed(3)}` },
          ...withNewlines(token),
        );
        made.style.setProperty("--w", shade(weight));
        made.dataset.weight = weight;
        return made;
      }),
    );
    this.#tell(row, column);
  }

  // Says a weight in words; without a column, which tokens have the most.
  #tell(row, column) {
    const { name, weights } = this.#rows[row];
    const mark = this.cells.querySelector(".heat-column-mark");
    mark.hidden = column === null;
    [...this.text.children].forEach((each, at) => each.classList.toggle("told", at === column));
    if (column !== null) this.#root.style.setProperty("--column", column);
    const told = (at) => `“${this.#nameOf(at)}” (${weights[at].toFixed(2)})`;
    const most = weights.map((_, at) => at).sort((one, other) => weights[other] - weights[one]);
    const then = most.length > 1 ? `, then at ${most.slice(1, 3).map(told).join(" and ")}` : "";
    this.#root.querySelector(".readout").textContent =
      column === null
        ? `${name} looks most at ${told(most[0])}${then}.`
        : `${name} looks at token ${column + 1}, “${this.#nameOf(column)}”, ` +
          `with weight ${weights[column].toFixed(3)}.`;
  }

  #nameOf(at) {
    const token = this.#tokens[at];
    return token.trim() ? token : spoken(token);
  }

  #cellAt({ clientX, clientY }) {
    const box = this.cells.getBoundingClientRect();
    const part = (at, size, count) => Math.min(Math.max(Math.floor((at / size) * count), 0), count - 1);
    return [
      part(clientY - box.top, box.height, this.#rows.length),
      part(clientX - box.left, box.width, this.#tokens.length),
    ];
  }

  #key(event) {
    const lastRow = this.#rows.length - 1;
    const lastColumn = this.#tokens.length - 1;
    const column = this.#column ?? lastColumn + 1; // the first step left is to the newest token
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
