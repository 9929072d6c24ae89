// Small helpers for elements and for how tokens and numbers are written.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };

// A token as a table shows it: what has no shape of its own gets a sign.
export function shown(piece) {
  return piece.replace(/[ \n\t\r]/g, (found) => SIGNS[found]);
}

const WORDS = { " ": "space", "\n": "newline", "\t": "tab", "\r": "carriage return" };

// A token as it is read out: screen readers are silent about white space and most signs for it.
export function spoken(piece) {
  if (piece.trim()) return piece.trim();
  const names = [...piece].map((each) => WORDS[each] ?? each);
  const same = new Set(names).size === 1;
  return names.length > 1 && same ? `${names.length} times ${names[0]}` : names.join(" ");
}

// A text with a sign at each newline; the style sheet draws it, so that no copy has it.
export function withNewlines(text) {
  return text
    .split(/(?=\n)/)
    .flatMap((line) => (line.startsWith("\n") ? [element("i", { class: "newline" }), line] : [line]));
}

export function percent(probability) {
  const value = probability * 100;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value < 1 ? 2 : 1)} %`;
}

export const grouped = (number) => number.toLocaleString("en");

// Small probabilities and weights are most of them: the root sets them apart.
export const shade = (value) => Math.sqrt(Math.min(Math.max(value, 0), 1)).toFixed(3);
