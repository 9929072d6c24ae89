// The loss curves of a training run as a line chart in SVG.

import { element, grouped } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 12, right: 16, bottom: 44, left: 52 };
const SERIES = [
  { name: "train", label: "training, each step" },
  { name: "train_average", label: "training, average" },
  { name: "val", label: "validation" },
];

export class Chart {
  #box;
  #series;
  #at = null; // the step that is read out

  constructor(box, curves) {
    this.#box = box;
    this.#series = SERIES.filter(({ name }) => curves[name]?.length).map((each) => ({
      ...each,
      points: curves[each.name],
    }));
    this.readout = element("p", { class: "readout", "aria-live": "polite" });
    this.plot = element("div", { class: "plot" });
    box.replaceChildren(this.#legend(), this.plot, this.readout);
    this.steps = [...new Set(this.#series.flatMap(({ points }) => points.map(([step]) => step)))];
    this.steps.sort((one, other) => one - other);
    new ResizeObserver(() => this.#draw()).observe(this.plot);
  }

  #legend() {
    const items = this.#series.map(({ name, label }) =>
      element("li", {}, element("span", { class: `key-line ${name}` }), label),
    );
    return element("ul", { class: "chart-legend" }, ...items);
  }

  #draw() {
    const width = this.plot.clientWidth;
    const height = Math.round(Math.min(Math.max(width * 0.4, 220), 340));
    const inner = { width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
    if (inner.width < 50) return;
    const losses = this.#series.flatMap(({ points }) => points.map(([, loss]) => loss));
    const yTicks = ticks(Math.min(...losses), Math.max(...losses), inner.height / 34);
    const xTicks = ticks(0, this.steps.at(-1), inner.width / 90);
    const [low, high] = [Math.min(yTicks[0], ...losses), Math.max(yTicks.at(-1), ...losses)];
    this.x = (step) => MARGIN.left + (step / (this.steps.at(-1) || 1)) * inner.width;
    this.y = (loss) => MARGIN.top + (1 - (loss - low) / (high - low || 1)) * inner.height;
    const [left, right] = [MARGIN.left, MARGIN.left + inner.width];
    const [top, bottom] = [MARGIN.top, MARGIN.top + inner.height];
    const svg = node("svg", {
      width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
      "aria-label": this.#summary(),
    });
    for (const tick of yTicks) {
      svg.append(
        node("line", { class: "grid", x1: left, x2: right, y1: this.y(tick), y2: this.y(tick) }),
        node("text", { x: left - 8, y: this.y(tick) + 4, "text-anchor": "end" }, short(tick)),
      );
    }
    for (const tick of xTicks) {
      svg.append(
        node("line", { class: "tick", x1: this.x(tick), x2: this.x(tick), y1: bottom, y2: bottom + 5 }),
        node("text", { x: this.x(tick), y: bottom + 19, "text-anchor": "middle" }, grouped(tick)),
      );
    }
    svg.append(
      node("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      node("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, "step"),
      node(
        "text",
        { transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        "loss (nats per token)",
      ),
    );
    for (const { name, points } of this.#series) {
      const line = points.map(([step, loss]) => `${this.x(step).toFixed(1)},${this.y(loss).toFixed(1)}`);
      svg.append(node("polyline", { class: `line ${name}`, points: line.join(" ") }));
    }
    this.cursor = node("g", { class: "cursor" });
    this.cursorEnds = [top, bottom];
    svg.append(this.cursor);
    this.#listen(svg, width);
    const focused = this.plot.contains(document.activeElement);
    this.plot.replaceChildren(svg);
    if (focused) svg.focus();
    this.#tell(this.#at);
  }

  #listen(svg, width) {
    svg.addEventListener("pointermove", ({ clientX }) => {
      const box = svg.getBoundingClientRect();
      const at = ((clientX - box.left) / box.width) * width;
      this.#tell(nearest(this.steps, (step) => Math.abs(this.x(step) - at)));
    });
    svg.addEventListener("pointerleave", () => this.#tell(null));
    svg.addEventListener("focus", () => this.#tell(this.#at ?? this.steps.length - 1));
    svg.addEventListener("blur", () => this.#tell(null));
    svg.addEventListener("keydown", (event) => {
      const last = this.steps.length - 1;
      const at = this.#at ?? last;
      const page = Math.max(Math.round(last / 10), 1);
      const moves = {
        ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page,
        Home: 0, End: last,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.#tell(Math.min(Math.max(moves[event.key], 0), last));
    });
  }

  #tell(at) {
    this.#at = at;
    this.cursor.replaceChildren();
    if (at === null) {
      this.readout.textContent = this.#summary();
      return;
    }
    const [y1, y2] = this.cursorEnds;
    const step = this.steps[at];
    const found = this.#series.map(({ points, ...rest }) => ({
      ...rest,
      point: points[nearest(points, ([each]) => Math.abs(each - step))],
    }));
    this.cursor.append(node("line", { x1: this.x(step), x2: this.x(step), y1, y2 }));
    for (const { name, point } of found) {
      const centre = { cx: this.x(point[0]), cy: this.y(point[1]) };
      this.cursor.append(node("circle", { class: name, r: 4, ...centre }));
    }
    const losses = found.map(({ label, point: [own, loss] }) =>
      `${label} ${loss.toFixed(3)}${own === step ? "" : ` (at step ${grouped(own)})`}`,
    );
    this.readout.textContent = `Step ${grouped(step)}: ${losses.join("; ")}`;
  }

  #summary() {
    const parts = this.#series.map(({ label, points }) =>
      `${label} from ${points[0][1].toFixed(2)} to ${points.at(-1)[1].toFixed(2)}`,
    );
    return `Loss by step ${grouped(this.steps.at(-1))}: ${parts.join("; ")}.`;
  }
}

function node(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Round values in a range, about as many as asked for: 1, 2 or 5 times a power of ten apart.
function ticks(low, high, count) {
  const rough = (high - low || 1) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  if (last < first) return [low, high];
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

const short = (value) => String(Number(value.toPrecision(6)));

function nearest(items, distance) {
  let best = 0;
  for (let at = 1; at < items.length; at += 1) {
    if (distance(items[at]) < distance(items[best])) best = at;
  }
  return best;
}
