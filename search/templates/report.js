"use strict";
// Draws the figures of a report from the data in the page. Texts are set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const points = data.points;
const details = new Map(data.details.map((detail) => [detail.number, detail]));
const byId = (id) => document.getElementById(id);
const narrow = () => window.innerWidth < 500;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const KINDS = {
  infeasible: { name: "outside the limits", symbol: "x-thin-open", size: 8, colour: "orange" },
  feasible: { name: "within the limits", symbol: "circle", size: 7, colour: "grey" },
  front: { name: "front", symbol: "circle", size: 10, colour: "blue" },
  baseline: { name: "baseline", symbol: "star", size: 15, colour: "ink" },
};
const hasWebGL = (() => {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl"));
  } catch {
    return false;
  }
})();

function scaled(value, units) {
  let power = 0;
  while (Math.abs(value) >= 1000 && power < units.length - 1) { value /= 1000; power += 1; }
  return `${Number(value.toPrecision(3))} ${units[power]}`.trim();
}

function readable(metric, value) {
  if (value === null || value === undefined) return "–";
  const kind = metric.split("_batch")[0];
  if (kind.endsWith("_bytes")) return scaled(value, ["B", "kB", "MB", "GB"]);
  if (kind.endsWith("_ms")) return `${Number(value.toPrecision(3))} ms`;
  if (Math.abs(value) >= 1000) return scaled(value, ["", "k", "M", "G"]);
  return String(Number(value.toPrecision(5)));
}

// Plotly reads a little HTML in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function wrapped(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines.at(-1) && lines.at(-1).length + word.length > width) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines.slice(0, 5).map(plain).join("<br>");
}

function layout(more) {
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("ink"), size: narrow() ? 11 : 13, family: "system-ui, Liberation Sans, sans-serif" },
    margin: { l: 8, r: 12, t: 8, b: 8 }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("soft"), font: { color: colour("ink"), size: 12 }, align: "left" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

const CONFIG = () => ({
  responsive: true, displaylogo: false, displayModeBar: false,
});

// A logarithm tells something only of values that differ by a factor.
function spans(metric, factor) {
  const values = points.values[metric].filter((value) => value !== null);
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  return least > 0 && values.reduce((a, b) => Math.max(a, b), 0) >= factor * least;
}

function axisOf(metric, isLog) {
  const values = points.values[metric].filter((value) => value !== null);
  const large = values.some((value) => Math.abs(value) >= 10000);
  const ticks = isLog ? { type: "log", tickvals: roundNumbers(values) } : {};
  return { title: { text: plain(metric) }, ...(large ? { tickformat: "~s" } : {}), ...ticks };
}

// 1, 2 and 5 times the powers of ten: plotly itself writes all but the first as a lone digit.
function roundNumbers(values) {
  const [least, most] = [Math.min, Math.max].map((end) => Math.log10(values.reduce((a, b) => end(a, b))));
  const powers = [];
  for (let power = Math.floor(least); power <= Math.ceil(most); power++) powers.push(power);
  const digits = powers.length > 4 ? [1] : powers.length > 3 ? [1, 3] : [1, 2, 5];
  return powers.flatMap((power) => digits.map((digit) => Number(`${digit}e${power}`)));
}

function drawFront() {
  const x = byId("x").value, y = byId("y").value, log = byId("log").checked;
  const type = hasWebGL && points.numbers.length > 6000 ? "scattergl" : "scatter";
  const traces = [];
  for (const [kind, look] of Object.entries(KINDS)) {
    const chosen = points.numbers.map((_, i) => i).filter((i) => points.kinds[i] === kind);
    if (!chosen.length) continue;
    const line = look.symbol.endsWith("open") ? { width: 2, color: colour(look.colour) } : { width: 1, color: colour("card") };
    traces.push({
      type, mode: "markers", name: look.name, customdata: chosen.map((i) => points.numbers[i]),
      x: chosen.map((i) => points.values[x][i]), y: chosen.map((i) => points.values[y][i]),
      marker: { symbol: look.symbol, size: look.size, color: colour(look.colour), line },
      text: chosen.map((i) => hoverText(i, look.name)), hovertemplate: "%{text}<extra></extra>",
    });
  }
  const picked = points.numbers.indexOf(data.picked);
  if (picked >= 0) {
    traces.push({
      type, mode: "markers", name: "picked", hoverinfo: "skip",
      x: [points.values[x][picked]], y: [points.values[y][picked]],
      marker: { symbol: "circle-open", size: 19, color: colour("blue"), line: { width: 2, color: colour("blue") } },
    });
  }
  const shape = layout({ xaxis: axisOf(x, log && spans(x, 3)), yaxis: axisOf(y, log && spans(y, 3)) });
  Plotly.react("front", traces, shape, CONFIG());
}

function hoverText(i, kind) {
  const shown = data.columns.filter((name) => name in points.values);
  const width = narrow() ? 34 : 56;
  const detail = details.get(points.numbers[i]);  // it knows intervals
  const known = new Map((detail?.metrics ?? []).map(([name, value, bounds]) => [name, `${value} ${bounds}`.trim()]));
  const lines = shown.map((name) => `${plain(name)}: ${plain(known.get(name) ?? readable(name, points.values[name][i]))}`);
  for (const [limit, verdict] of Object.entries(detail?.verdicts ?? {})) lines.push(`${plain(limit)}: ${plain(verdict)}`);
  return [`<b>trial ${points.numbers[i]}</b>, ${kind}`, wrapped(points.labels[i], width), ...lines]
    .filter(Boolean).join("<br>");
}

function drawProgress() {
  const what = byId("what").value, over = byId("over").value, curve = data.progress;
  const isVolume = what === "hypervolume";
  const y = isVolume ? curve.hypervolume : curve.best[what];
  const x = over === "seconds" ? curve.seconds : curve.numbers.map((_, i) => i + 1);
  const trace = {
    x, y, type: "scatter", mode: x.length > 60 ? "lines" : "lines+markers",
    line: { shape: "hv", color: colour("blue"), width: 2 }, marker: { size: 5 },
    text: curve.numbers.map((number, i) => `after trial ${number}<br>${plain(what)}: ${readable(what, y[i])}`),
    hovertemplate: "%{text}<extra></extra>",
  };
  const title = over === "seconds" ? "seconds of searching" : "trials that ended";
  const axis = { title: { text: isVolume ? "hypervolume, share" : `best ${plain(what)}` } };
  if (isVolume) axis.range = [0, 1.03];
  else if (Math.max(...y.map(Math.abs)) >= 10000) axis.tickformat = "~s";
  Plotly.react("progress", [trace], layout({ xaxis: { title: { text: title }, rangemode: "tozero" }, yaxis: axis }), CONFIG());
}

function drawing(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Parallel coordinates as SVG, coloured by the style sheet: no WebGL, no repainting.
function drawLines() {
  const box = byId("lines"), { axes, kinds, numbers } = data.lines, side = 58, top = 36, height = 300;
  const room = box.parentElement.clientWidth - 2 * side - 2;
  const gap = Math.max(104, room / Math.max(1, axes.length - 1));
  const width = 2 * side + gap * (axes.length - 1);
  const svg = drawing("svg", { width, height, role: "img", "aria-label": "Parallel coordinates of knobs and objectives" });
  const scales = axes.map((axis) => {
    const values = axis.names.length ? axis.names.map((_, i) => i) : axis.values;
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    return { low, high, at: (value) => (high > low ? height - 16 - ((value - low) / (high - low)) * (height - 16 - top) : (height + top) / 2) };
  });
  const across = (i) => side + gap * i;
  for (const kind of ["infeasible", "feasible", "front"]) {
    numbers.forEach((number, row) => {
      if (kinds[row] !== kind) return;
      const places = axes.map((axis, i) => `${across(i).toFixed(1)},${scales[i].at(axis.values[row]).toFixed(1)}`);
      const line = drawing("polyline", { points: places.join(" "), class: kind, "data-number": number });
      line.append(drawing("title", {}, `trial ${number}`));
      svg.append(line);
    });
  }
  // `structured_pruning.ratio@layer1.0.conv1`: of a layer's knob its path tells most, and of that the end.
  const shortened = (name) => name.split("@")[1] ?? name.slice(name.indexOf(".") + 1);
  const cut = (text, isLayer) => (text.length <= 15 ? text : isLayer ? `…${text.slice(-14)}` : `${text.slice(0, 14)}…`);
  const short = axes.map((axis) => shortened(axis.name));
  axes.forEach((axis, i) => {
    const x = across(i), { low, high, at } = scales[i];
    svg.append(drawing("line", { x1: x, x2: x, y1: top, y2: height - 16 }));
    const label = short.filter((name) => name === short[i]).length === 1 ? short[i] : axis.name;
    const title = drawing("text", { x, y: 14, class: "title" }, cut(label, axis.name.includes("@")));
    title.append(drawing("title", {}, axis.name));
    svg.append(title);
    const ticks = axis.names.length ? axis.names.map((name, n) => [n, name]) : [low, high].map((v) => [v, readable(axis.name, v)]);
    for (const [value, text] of new Map(ticks)) {
      svg.append(drawing("text", { x, y: at(value) - (axis.names.length && value !== high ? 4 : value === high ? 6 : -13) }, text.slice(0, 14)));
    }
  });
  box.replaceChildren(svg);
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function listOf(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) list.append(element("dt", name), element("dd", value));
  return list;
}

function tableOf(header, rows) {
  const box = element("div", undefined, "scroll"), table = element("table");
  const cells = (name, texts) => {
    const row = element("tr");
    for (const text of texts) row.append(element(name, text));
    return row;
  };
  const head = element("thead"), body = element("tbody");
  head.append(cells("th", header));
  body.append(...rows.map((row) => cells("td", row)));
  table.append(head, body);
  box.append(table);
  box.tabIndex = 0;
  return box;
}

function show(number, isFocused) {
  const panel = byId("panel"), detail = details.get(number), at = points.numbers.indexOf(number);
  const title = element("h3", `Trial ${number}${detail ? `: ${detail.state}` : ""}`);
  title.tabIndex = -1;
  panel.replaceChildren(title);
  if (at >= 0 && points.labels[at]) panel.append(element("p", points.labels[at]));
  if (detail) {
    const verdicts = Object.entries(detail.verdicts);
    panel.append(listOf([...verdicts, ...detail.facts]));
    if (detail.export) {
      panel.append(element("p", "To have its files (with --store, where the study was run with it):", "soft"), element("pre", detail.export));
    }
    if (detail.metrics.length) panel.append(tableOf(["metric", "value", "interval", "n"], detail.metrics));
    if (detail.stages.length) panel.append(element("h3", "Stages"), tableOf(["stage", "options", "seconds", "cached", "note"], detail.stages));
    const knobs = element("details");
    knobs.append(element("summary", "All knobs"), listOf(Object.entries(detail.candidate)));
    panel.append(knobs);
  } else {
    const metrics = Object.keys(points.values);
    if (at >= 0) panel.append(listOf(metrics.map((name) => [name, readable(name, points.values[name][at])])));
    panel.append(element("p", "This page holds the details of the front and of the latest trials only. For this one:", "soft"));
    panel.append(element("pre", `${data.show} ${number}`));
  }
  panel.dataset.trial = String(number);
  if (isFocused) title.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

function draw() {
  if (points.numbers.length) drawFront();
  if (data.progress) drawProgress();
  if (data.lines) drawLines();
}

if (points.numbers.length) byId("log").checked = spans(byId("x").value, 8) || spans(byId("y").value, 8);
draw();
for (const id of ["x", "y", "log"]) byId(id)?.addEventListener("change", drawFront);
for (const id of ["what", "over"]) byId(id)?.addEventListener("change", drawProgress);
byId("front")?.on?.("plotly_click", (event) => {
  const number = event.points[0]?.customdata;
  if (number !== undefined) show(number, false);
});
document.addEventListener("click", (event) => {
  const number = event.target.closest?.("[data-number]")?.dataset.number;
  if (number !== undefined) show(Number(number), true);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  draw();
});
document.documentElement.dataset.ready = "yes";
