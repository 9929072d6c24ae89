/* Draw what DVC wrote, read as text, so that data never becomes markup: a line of JSON for each plot of
   Vega, and for pictures a line with their path, then two lines for each revision. */
const WRITTEN = /^ *var spec = (\{.*\});$|^ *<p>(.*)<\/p>$(?:\n *<img src="(.*)">$)?/gm;
const NOT_JSON = /("(?:[^"\\]|\\.)*")|-?\b(?:NaN|Infinity)\b/g;  // Python writes these numbers
const ink = getComputedStyle(document.documentElement).color;
const [labels, edge] = [{labelColor: ink, titleColor: ink}, "#7d8896"];
const options = {
  config: {
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: {...labels, gridColor: "#80808038", domainColor: edge, tickColor: edge},
    header: labels,
    legend: labels,
    title: {color: ink},
    view: {stroke: null},
  },
  actions: {export: true, source: false, compiled: false, editor: false},
};

function element(tag, content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

function card(content) {
  const made = element("div", content);
  made.className = "card";
  document.querySelector("main").append(made);
  return made;
}

async function drawPlot(json) {
  const spec = JSON.parse(json.replace(NOT_JSON, (_, string) => string ?? "null"));
  if (!spec.data?.values?.length) return;
  const place = card([]);
  try {
    await vegaEmbed(place, spec, options);
  } catch (error) {
    place.replaceChildren(`${spec.title?.text ?? spec.title}: ${error.message}`);
  }
}

function drawPicture(place, name, source) {
  const image = element("img", []);
  image.src = source.startsWith("data:") ? source : source.split("/").map(encodeURIComponent).join("/");
  image.alt = name;
  place.append(element("figure", [element("figcaption", [name]), image]));
}

document.addEventListener("DOMContentLoaded", () => {
  let pictures;
  for (const [, json, name, source] of document.querySelector("plaintext").textContent.matchAll(WRITTEN)) {
    if (json) drawPlot(json);
    else if (source) drawPicture(pictures ??= card([]), name, source);
    else pictures = card([element("h3", [name])]);
  }
});
