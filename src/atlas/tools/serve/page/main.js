// The page: buttons, stored settings, and errors.

import { ApiError, fetchModel, setKey } from "./api.js";
import { drawChart } from "./chart.js";
import { byId, element, grouped, load, save } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Panel } from "./panel.js";

const STORED = "atlas.page";
const inspector = new Inspector();
const panels = [
  new Panel(byId("panel-a"), "A", {}, inspect),
  new Panel(byId("panel-b"), "B", { temperature: 0.3 }, inspect),
];
let model = null;
let loading = null; // a promise while the model is being fetched
let running = null; // the AbortController of a run
let retry = null; // what to repeat once there is a key

function inspect(token) {
  const output = byId("compare").checked ? ` of output ${token.letter}` : "";
  inspector.show(token, model, `Token ${token.number}${output}`).catch(report);
}

function report(error) {
  if (error.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
  } else if (!(error instanceof ApiError)) {
    throw error; // a bug of the page belongs in the console
  }
  byId("problem").textContent = error.message;
}

// Fetches the model once, for all callers.
function ready() {
  loading ??= loadModel().finally(() => {
    loading = null;
  });
  return loading;
}

async function loadModel() {
  try {
    model = await fetchModel();
  } catch (error) {
    retry ??= ready;
    report(error);
    return;
  }
  const facts = {
    Model: model.name,
    Engine: model.engine,
    Context: `${grouped(model.context_length)} tokens`,
    Vocabulary: `${grouped(model.vocab_size)} tokens`,
  };
  byId("model").replaceChildren(
    ...Object.entries(facts).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
  document.title = model.name === "atlas" ? "Atlas" : `Atlas: ${model.name}`;
  for (const panel of panels) panel.settings.limit(model);
  if (Object.keys(model.curves).length) {
    byId("curves").hidden = false;
    drawChart(byId("chart"), model.curves);
  }
}

async function generate() {
  if (!byId("ask").reportValidity()) return;
  running?.abort();
  const run = new AbortController();
  running = run;
  byId("problem").textContent = "";
  inspector.clear();
  if (!model) await ready();
  if (!model) {
    retry = generate;
    return;
  }
  byId("stop").disabled = false;
  byId("status").textContent = "Generating.";
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]; // shared, for a fair comparison
  const used = byId("compare").checked ? panels : panels.slice(0, 1);
  const prompt = byId("prompt").value;
  const results = await Promise.allSettled(
    used.map((panel) => panel.run(model.name, prompt, seed, run.signal)),
  );
  if (running !== run) return; // another run has started
  running = null;
  if (document.activeElement === byId("stop")) byId("generate").focus();
  byId("stop").disabled = true;
  const failed = results.find(({ status }) => status === "rejected");
  if (failed) {
    if (failed.reason.status === 401) retry = generate;
    report(failed.reason);
  }
  byId("status").textContent = results
    .map(({ value }, at) => value && `${used.length > 1 ? `Output ${used[at].letter}: ` : ""}${value}.`)
    .filter(Boolean)
    .join(" ");
}

function showPanels() {
  const compare = byId("compare").checked;
  panels[1].root.hidden = !compare;
  panels[1].fieldset.disabled = !compare; // hidden fields are not validated
  byId("panels").classList.toggle("compare", compare);
  for (const panel of panels) panel.setTitles(compare ? panel.letter : "");
}

function store() {
  const state = {
    prompt: byId("prompt").value,
    compare: byId("compare").checked,
    settings: panels.map((panel) => panel.settings.values()),
  };
  save("localStorage", STORED, JSON.stringify(state));
}

function restore() {
  let state = null;
  try {
    state = JSON.parse(load("localStorage", STORED));
  } catch {
    // The stored data is damaged: use the defaults.
  }
  if (typeof state?.prompt === "string") byId("prompt").value = state.prompt;
  byId("compare").checked = state?.compare === true;
  panels.forEach((panel, at) => panel.settings.restore(state?.settings?.[at]));
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("compare").addEventListener("change", showPanels);
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value);
  byId("key").value = "";
  byId("key-form").hidden = true;
  byId("problem").textContent = "";
  byId("generate").focus();
  const again = retry ?? ready;
  retry = null;
  again();
});
addEventListener("input", store);

restore();
showPanels();
ready();
