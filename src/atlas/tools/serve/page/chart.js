// Loss curves of the training run as an SVG line chart.
//
// All positions are percentages of the plot, so that it resizes without being drawn again.

import { element, grouped, svg } from "./dom.js";

const LABELS = { train: "training", train_average: "training, average", val: "validation" };

// `curves` has, by name, a list of [step, loss].
export function drawChart(box, curves) {
  const series = Object.keys(LABELS).filter((name) => curves[name]?.length);
  const points = series.flatMap((name) => curves[name]);
  const steps = [...new Set(points.map(([step]) => step))].sort((a, b) => a - b);
  const losses = points.map(([, loss]) => loss);
  const lossTicks = ticks(Math.min(...losses), Math.max(...losses), 6);
  const low = Math.min(lossTicks[0], ...losses);
  const high = Math.max(lossTicks.at(-1), ...losses);
  const last = steps.length - 1;
  const x = (step) => (100 * step) / (steps[last] || 1);
  const y = (loss) => 100 * (1 - (loss - low) / (high - low || 1));
  const ends = series.map((name) => {
    const [first, final] = [curves[name][0], curves[name].at(-1)].map(([, loss]) => loss.toFixed(2));
    return `${LABELS[name]} from ${first} to ${final}`;
  });
  const summary = `Loss up to step ${grouped(steps[last])}: ${ends.join("; ")}.`;

  const area = svg("rect", { class: "area", width: "100%", height: "100%" });
  const lines = svg(
    "svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" },
    ...series.map((name) =>
      svg("polyline", {
        class: `line ${name}`,
        points: curves[name].map(([step, loss]) => `${x(step).toFixed(2)},${y(loss).toFixed(2)}`).join(" "),
      }),
    ),
  );
  const cursor = svg("g", { class: "cursor" });
  const plot = svg(
    "svg", { class: "plot", role: "img", tabindex: 0, "aria-label": summary },
    area,
    ...lossTicks.flatMap((loss) => [
      svg("line", { class: "grid", x2: "100%", y1: `${y(loss)}%`, y2: `${y(loss)}%` }),
      svg("text", { x: -8, y: `${y(loss)}%`, dy: 4, "text-anchor": "end" }, Number(loss.toPrecision(6))),
    ]),
    svg("line", { class: "axis", x2: "100%", y1: "100%", y2: "100%" }),
    ...ticks(0, steps[last], 6).map((step) =>
      svg("text", { x: `${x(step)}%`, y: "100%", dy: 19, "text-anchor": "middle" }, grouped(step)),
    ),
    svg("text", { x: "50%", y: "100%", dy: 38, "text-anchor": "middle" }, "step"),
    svg("text", { class: "loss-label", "text-anchor": "middle" }, "loss (nats per token)"),
    lines,
    cursor,
  );
  const readout = element("p", { class: "readout", "aria-live": "polite" });
  const legend = series.map((name) =>
    element("li", {}, element("span", { class: `key-line ${name}` }), LABELS[name]),
  );
  box.replaceChildren(element("ul", { class: "chart-legend" }, ...legend), plot, readout);

  let selected = null; // index of a step
  const select = (index) => {
    selected = index;
    cursor.replaceChildren();
    readout.textContent = summary;
    if (index === null) return;
    const step = steps[index];
    const at = `${x(step)}%`;
    cursor.append(svg("line", { x1: at, x2: at, y2: "100%" }));
    const values = series.map((name) => {
      const [own, loss] = nearest(curves[name], ([each]) => Math.abs(each - step));
      cursor.append(svg("circle", { class: name, r: 4, cx: `${x(own)}%`, cy: `${y(loss)}%` }));
      return `${LABELS[name]} ${loss.toFixed(3)}${own === step ? "" : ` (step ${grouped(own)})`}`;
    });
    readout.textContent = `Step ${grouped(step)}: ${values.join("; ")}`;
  };
  plot.addEventListener("pointermove", ({ clientX }) => {
    const { left, width } = area.getBoundingClientRect();
    const at = (100 * (clientX - left)) / width;
    select(steps.indexOf(nearest(steps, (step) => Math.abs(x(step) - at))));
  });
  plot.addEventListener("pointerleave", () => select(null));
  plot.addEventListener("focus", () => select(selected ?? last));
  plot.addEventListener("blur", () => select(null));
  plot.addEventListener("keydown", (event) => {
    const at = selected ?? last;
    const page = Math.max(Math.round(last / 10), 1);
    const moves = {
      ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page, Home: 0, End: last,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    select(Math.min(Math.max(moves[event.key], 0), last));
  });
  select(null);
}

// About `count` round values in a range: 1, 2 or 5 times a power of ten apart.
function ticks(low, high, count) {
  const spacing = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(spacing));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= spacing);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  if (last < first) return [low, high];
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

const nearest = (items, distance) =>
  items.reduce((best, item) => (distance(item) < distance(best) ? item : best));
