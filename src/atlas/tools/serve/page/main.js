// The page: what its buttons do, what it remembers, and what it says when something fails.

import { ApiError, fetchModel, useKey } from "./api.js";
import { Chart } from "./chart.js";
import { Details } from "./details.js";
import { Lane } from "./lane.js";
import { element, grouped } from "./text.js";

const STORED = "atlas.page";
const find = (id) => document.getElementById(id);
const details = new Details();
const pick = (token) => details.show(token, model, !find("compare").checked).catch(report);
const lanes = [
  new Lane(find("lane-a"), "A", {}, pick),
  new Lane(find("lane-b"), "B", { temperature: 0.3 }, pick),
];
let model = null;
let loading = null;
let running = null; // the AbortController of a run
let retry = null; // what to do again once there is a key

function report(error) {
  if (error.status === 401) {
    find("key-form").hidden = false;
    find("key").focus();
  } else if (!(error instanceof ApiError)) {
    throw error; // a mistake of the page itself belongs in the console
  }
  find("problem").textContent = error.message;
}

// Asks once, however many wait for it.
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
  const facts = [
    ["Model", model.name],
    ["Form", model.form],
    ["Context", `${grouped(model.context_length)} tokens`],
    ["Vocabulary", `${grouped(model.vocab_size)} tokens`],
  ];
  find("model").replaceChildren(
    ...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
  document.title = model.name === "atlas" ? "Atlas" : `Atlas: ${model.name}`;
  for (const lane of lanes) lane.settings.limit(model);
  if (Object.keys(model.curves).length) {
    find("curves").hidden = false;
    new Chart(find("chart"), model.curves);
  }
}

async function generate() {
  if (!find("ask").reportValidity()) return;
  running?.abort();
  const run = new AbortController();
  running = run;
  find("problem").textContent = "";
  details.clear();
  if (!model) await ready();
  if (!model) {
    retry = generate;
    return;
  }
  find("stop").disabled = false;
  find("status").textContent = "Generating.";
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]; // one for both, to compare fairly
  const used = find("compare").checked ? lanes : lanes.slice(0, 1);
  const prompt = find("prompt").value;
  const results = await Promise.allSettled(
    used.map((lane) => lane.run(model.name, prompt, seed, run.signal)),
  );
  if (running !== run) return; // another run has begun
  running = null;
  if (document.activeElement === find("stop")) find("generate").focus();
  find("stop").disabled = true;
  const failed = results.find(({ status }) => status === "rejected");
  if (failed) {
    if (failed.reason.status === 401) retry = generate;
    report(failed.reason);
  }
  find("status").textContent = results
    .map(({ value }, at) => value && `${used.length > 1 ? `Text ${used[at].letter}: ` : ""}${value}.`)
    .filter(Boolean)
    .join(" ");
}

function showLanes() {
  const compares = find("compare").checked;
  lanes[1].root.hidden = !compares;
  lanes[1].fieldset.disabled = !compares; // what is not shown is not checked either
  find("lanes").classList.toggle("compares", compares);
  for (const lane of lanes) lane.name(!compares);
}

function store() {
  const state = {
    prompt: find("prompt").value,
    compare: find("compare").checked,
    lanes: lanes.map((lane) => lane.settings.stored()),
  };
  try {
    localStorage.setItem(STORED, JSON.stringify(state));
  } catch {
    // A browser may forbid storage: the page works without it.
  }
}

function restore() {
  let state = null;
  try {
    state = JSON.parse(localStorage.getItem(STORED));
  } catch {
    // As above, or what is there is none of ours.
  }
  if (typeof state?.prompt === "string") find("prompt").value = state.prompt;
  find("compare").checked = state?.compare === true;
  lanes.forEach((lane, at) => lane.settings.restore(state?.lanes?.[at]));
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
find("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  find("ask").requestSubmit();
});
find("stop").addEventListener("click", () => running?.abort());
find("compare").addEventListener("change", showLanes);
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(find("key").value);
  find("key").value = "";
  find("key-form").hidden = true;
  find("problem").textContent = "";
  find("generate").focus();
  const again = retry ?? ready;
  retry = null;
  again();
});
addEventListener("input", store);

restore();
showLanes();
ready();
