// The text that is asked about with what the head says of it, and the list of similar ones.

import { el, labelText } from "./dom.js";
import { hash, read } from "./state.js";

const MOST_BARS = 12;

function bars(probabilities, kind) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const rows = sorted.slice(0, MOST_BARS).map(([name, value]) =>
    el("div", { class: "bar" },
      el("span", { class: "bar-name" }, name),
      el("span", { class: "bar-track", "aria-hidden": "true" }, el("span", { class: "bar-fill", style: { width: `${100 * value}%` } })),
      el("span", { class: "bar-value" }, `${(100 * value).toFixed(1)} %`)));
  const rest = sorted.length - rows.length;
  return el("div", { class: "bars", "data-kind": kind }, rows, rest > 0 ? el("p", { class: "note" }, `and ${rest} less likely`) : null);
}

function prediction(found) {
  const columns = found.columns ? Object.entries(found.columns) : [[null, found]];
  return el("div", { class: "prediction" }, columns.map(([name, one]) =>
    el("div", {},
      el("p", { class: "says" }, name === null ? "Predicted " : `Predicted ${name} `, el("strong", { class: "label" }, labelText(one.label))),
      Object.keys(one.probabilities).length ? bars(one.probabilities) : null)));
}

const labelled = (labels, colourOf) => Object.entries(labels).map(([column, label]) =>
  el("span", { class: "chip", title: column },
    el("span", { class: "dot", "aria-hidden": "true", style: { background: colourOf(column, label) } }),
    el("span", {}, Object.keys(labels).length > 1 ? `${column}: ${labelText(label)}` : labelText(label))));

export function askedText(text, found) {
  return el("article", { class: "panel asked" }, el("p", { class: "text" }, text), found ? prediction(found) : null);
}

export function askedRow(row, colourOf) {
  const columns = Object.entries(row.columns);
  return el("article", { class: "panel asked" },
    el("p", { class: "meta" }, el("span", {}, row.id === null ? `Row ${row.row}` : `Row ${row.row}, ${row.id}`), labelled(row.labels, colourOf)),
    el("p", { class: "text" }, row.text || "(no text)"),
    columns.length ? el("p", { class: "note columns" }, columns.map(([name, value]) => el("span", {}, `${name}: ${value}`))) : null,
    row.prediction ? prediction(row.prediction) : null);
}

export function found(one, colourOf) {
  const target = hash({ ...read(), row: one.row, query: "", k: 10 });
  return el("li", { "data-row": one.row },
    el("a", { href: target, class: "found" },
      el("span", { class: "text" }, one.text),
      el("span", { class: "meta" },
        el("span", { class: "score", title: "cosine similarity" }, one.score.toFixed(3)),
        labelled(one.labels, colourOf),
        el("span", { class: "note" }, one.id === null ? `row ${one.row}` : one.id))));
}
