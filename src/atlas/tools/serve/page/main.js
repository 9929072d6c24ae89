// The page: buttons, stored settings, and errors.

import { ApiError, fetchModel, setKey } from "./api.js";
import { drawChart } from "./chart.js";
import { byId, element, grouped, load, save } from "./dom.js";
import { Inspector } from "./inspector.js";
import { Panel } from "./panel.js";

const STORED = "atlas.page";
const inspector = new Inspector();
const panels = [
  new Panel("A", {}, inspect),
  new Panel("B", { temperature: 0.3 }, inspect),
];
let model = null;
let loading = null; // a promise while the model is being fetched
let running = null; // the AbortController of a run
let retry = null; // what to repeat once there is a key

function inspect(token) {
  const kind = token.inPrompt ? "Prompt token" : "Token";
  const output = byId("compare").checked ? ` of output ${token.letter}` : "";
  inspector.show(token, model, `${kind} ${token.number}${output}`).catch(report);
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
  showExamples(model.examples);
  if (Object.keys(model.curves).length) {
    byId("curves").hidden = false;
    drawChart(byId("chart"), model.curves);
  }
}

// Offers prompts from the text of the model. On the first visit, the first of them is continued.
function showExamples(examples) {
  byId("examples").hidden = !examples.length;
  byId("examples").replaceChildren(
    ...examples.map((text) => {
      const button = element("button", { type: "button", title: text }, text);
      button.addEventListener("click", () => {
        byId("prompt").value = text;
        ask();
      });
      return button;
    }),
  );
  if (!examples.length || running || load("localStorage", STORED)) return;
  byId("prompt").value = examples[0];
  generate();
}

// Generates where the user can see it.
function ask() {
  if (matchMedia("(pointer: coarse)").matches) byId("prompt").blur(); // closes a touch keyboard
  panels[0].box.scrollIntoView({ block: "nearest" });
  generate();
}

async function generate() {
  if (!byId("ask").reportValidity()) return;
  running?.abort();
  const run = new AbortController();
  running = run;
  byId("problem").textContent = "";
  byId("status").textContent = "Generating.";
  byId("stop").disabled = false;
  inspector.clear();
  const used = byId("compare").checked ? panels : panels.slice(0, 1);
  const prompt = byId("prompt").value;
  for (const panel of used) panel.start(prompt);
  if (!model) await ready();
  if (running !== run) return; // another run has started
  if (!model) {
    retry = generate;
    running = null;
    byId("stop").disabled = true;
    for (const panel of used) panel.setState("Not connected");
    return;
  }
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]; // shared, for a fair comparison
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
  document.querySelector("main").classList.toggle("compare", compare);
  panels[0].show(true, compare);
  panels[1].show(compare, compare);
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
  ask();
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
