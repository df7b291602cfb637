// The text that is asked about with what the head says of it, and the list of similar ones.

import { dot } from "./colors.js";
import { $, el, labelText } from "./dom.js";
import { hash, read } from "./state.js";

const MOST_BARS = 12;
const MOST_WELCOMED = 3; // label columns

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

// A prediction for a text of the run's training does not test the run.
const SIDES = {
  train: "The head was trained on this text and its label: this is not a test.",
  val: "This text helped to choose the head.",
  test: "This text was in the run's test set: the head did not learn from it.",
};

const REASONS = {
  unsure: "I don't know: no label is probable enough.",
  unfamiliar: "I don't know: this text is unlike those that the run learned from.",
};

// The text, each word that matters shaded by what the label loses without it.
function words({ words: found }, text) {
  const parts = [];
  let end = 0;
  const characters = [...text]; // the server counts code points
  const piece = (from, to) => characters.slice(from, to).join("");
  for (const one of [...found].sort((a, b) => a.start - b.start)) {
    const side = one.effect > 0 ? "carries" : "opposes";
    parts.push(piece(end, one.start), el("mark", {
      class: `word ${side}`, title: `without it: ${one.effect > 0 ? "−" : "+"}${Math.abs(one.effect).toFixed(3)}`,
      style: { "--strength": `${Math.round(100 * Math.min(1, Math.abs(one.effect) * 3))}%` },
    }, piece(one.start, one.end)));
    end = one.end;
  }
  return el("p", { class: "words-why" }, ...parts, piece(end));
}

const neighbours = (title, rows) => rows.length === 0 ? null : el("div", {},
  el("p", { class: "note" }, title),
  el("ul", { class: "why" }, rows.map((one) => el("li", {}, el("a", { href: hash({ ...read(), row: one.row, query: "", k: 10 }) }, one.text), ` (${labelText(one.label)}, ${one.similarity.toFixed(3)})`))));

function why(found, text) {
  return el("div", { class: "explanation" },
    words(found, text),
    found.nearest && found.label !== null ? el("p", { class: "note" }, `${found.agreeing} of the ${found.nearest} nearest training texts have the label ${found.label}.`) : null,
    neighbours("For it", found.supporting), neighbours("Against it", found.opposing));
}

// Of several runs, what each says under its name.
const prediction = (found) => found.runs
  ? el("div", { class: "by-run" }, Object.entries(found.runs).map(([name, one]) => el("section", {}, el("h4", {}, name), ofRun({ text: found.text, ...one }))))
  : ofRun(found);

function ofRun(found) {
  const columns = found.columns ? Object.entries(found.columns) : [[null, found]];
  return el("div", { class: "prediction" }, columns.map(([name, one]) =>
    el("div", {},
      el("p", { class: "says" }, name === null ? "Predicted " : `Predicted ${name} `, el("strong", { class: "label" }, one.reason ? "–" : labelText(one.label))),
      one.reason ? el("p", { class: "note reason" }, REASONS[one.reason]) : null,
      Object.keys(one.probabilities).length ? bars(one.probabilities) : null,
      one.explanation ? why(one.explanation, found.text) : null,
      one.side ? el("p", { class: `note side side-${one.side}` }, SIDES[one.side]) : null)));
}

const labelled = (labels, markOf) => Object.entries(labels).map(([column, label]) =>
  el("span", { class: "chip", title: column },
    dot(markOf(column, label)),
    el("span", {}, Object.keys(labels).length > 1 ? `${column}: ${labelText(label)}` : labelText(label))));

// Kept columns; the one that colours the map has its colours.
const MOST_KEPT = 6;
const LONGEST = 80; // characters of a value

function keptValues({ columns, labels, id }, markOf, most) {
  const given = Object.entries(columns).filter(([name, value]) => value && !(name in labels) && value !== id).slice(0, most);
  return given.map(([name, value]) => {
    const mark = markOf(name, value, null);
    return el("span", { class: "chip kept", title: name, "data-column": name },
      mark ? dot(mark, { hidden: name !== $("color").value }) : null,
      el("span", { class: "note" }, `${name}: ${value.length > LONGEST ? `${value.slice(0, LONGEST)}…` : value}`));
  });
}

export function showColored(column) {
  for (const chip of document.querySelectorAll(".kept")) {
    for (const dot of chip.querySelectorAll(".dot")) dot.hidden = chip.dataset.column !== column;
  }
}

// Before anything is asked: what the cache holds, and ways to begin.
export function welcome(info, markOf) {
  const columns = Object.entries(info.labels).slice(0, MOST_WELCOMED).map(([column, { classes }]) => {
    const sorted = Object.entries(classes).sort((a, b) => b[1] - a[1]);
    const all = sorted.reduce((sum, [, rows]) => sum + rows, 0);
    return [el("h3", {}, column), el("div", { class: "bars" }, sorted.slice(0, MOST_BARS).map(([name, rows]) =>
      el("div", { class: "bar" }, el("span", { class: "bar-name" }, name),
        el("span", { class: "bar-track", "aria-hidden": "true" }, el("span", { class: "bar-fill", style: { width: `${(100 * rows) / (all || 1)}%`, background: markOf(column, name, null)?.color ?? null } })),
        el("span", { class: "bar-value" }, rows.toLocaleString("en")))),
    sorted.length > MOST_BARS ? el("p", { class: "note" }, `and ${sorted.length - MOST_BARS} more`) : null)];
  });
  const chance = () => hash({ ...read(), view: "search", row: Math.floor(Math.random() * info.rows), query: "", k: 10 });
  return [...columns.flat(), el("p", {}, info.texts ? "Write a text above, click a point on the map, or begin with " : "Click a point on the map, or begin with ",
    el("a", { href: chance(), onclick: (event) => { event.currentTarget.href = chance(); } }, "a text by chance"), ".")];
}

export function askedText(text, found) {
  return el("article", { class: "panel asked" }, el("p", { class: "text" }, text), found ? prediction(found) : null);
}

export function askedRow(row, markOf) {
  const columns = Object.entries(row.columns);
  return el("article", { class: "panel asked" },
    el("p", { class: "meta" }, el("span", {}, row.id === null ? `Row ${row.row}` : `Row ${row.row}, ${row.id}`), labelled(row.labels, markOf)),
    el("p", { class: "text" }, row.text || "(no text)"),
    columns.length ? el("p", { class: "columns" }, keptValues(row, markOf, columns.length)) : null,
    row.prediction ? prediction(row.prediction) : null);
}

export function found(one, markOf) {
  const target = hash({ ...read(), row: one.row, query: "", k: 10 });
  return el("li", { "data-row": one.row },
    el("a", { href: target, class: "found" },
      el("span", { class: "text" }, one.text),
      el("span", { class: "meta" },
        el("span", { class: "score", title: "cosine similarity" }, one.score.toFixed(3)),
        labelled(one.labels, markOf),
        keptValues(one, markOf, MOST_KEPT),
        el("span", { class: "note" }, one.id === null ? `row ${one.row}` : one.id))));
}
