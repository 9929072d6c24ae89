// Elements, the notation of tokens and numbers, and storage.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SYMBOLS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };
const NAMES = { " ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return" };

// A token with visible white space. Special tokens of some models have no text.
export const visible = (piece) =>
  piece.replace(/[ \n\t\r]/g, (space) => SYMBOLS[space]) || "<special>";

// A token for screen readers, which skip white space and most symbols for it.
export function spoken(piece) {
  if (!piece) return "special token";
  if (piece.trim()) return piece.trim();
  const names = [...piece].map((space) => NAMES[space] ?? space);
  const repeated = names.length > 1 && new Set(names).size === 1;
  return repeated ? `${names.length} times ${names[0]}` : names.join(" ");
}

// Text with a symbol at each newline. The style sheet draws it, so that it is never copied.
export function withNewlines(text) {
  return text
    .split(/(?=\n)/)
    .flatMap((line) => (line.startsWith("\n") ? [element("i", { class: "newline" }), line] : [line]));
}

export function percent(probability) {
  const value = probability * 100;
  if (value === 0) return "0%";
  if (value < 0.01) return "< 0.01%";
  return `${value.toFixed(value < 1 ? 2 : 1)}%`;
}

// Probability of a token; the first token of a text has none.
export const ofLogprob = (logprob) => (logprob === null ? "no probability" : percent(Math.exp(logprob)));

export const grouped = (number) => number.toLocaleString("en");

// Color strength of a probability or weight; the root separates the many small ones.
export const shade = (value) => Math.sqrt(Math.min(Math.max(value, 0), 1)).toFixed(3);

// Storage ("localStorage" or "sessionStorage"), which a browser may forbid: then nothing is kept.
export function load(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

export function save(storage, name, value) {
  try {
    window[storage].setItem(name, value);
  } catch {
    // The page works without it.
  }
}
