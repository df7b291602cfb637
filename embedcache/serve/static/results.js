// The text that is asked about with what the head says of it, and the list of similar ones.

import { binsOf, classMark, dot, palette } from "./colors.js";
import { $, el, labelText } from "./dom.js";
import { hash, read } from "./state.js";

const MOST_BARS = 12;
const MOST_WELCOMED = 3; // label columns

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// A label's share of something, in the label's colour.
const bar = (mark, name, share, value) => el("div", { class: "bar" },
  el("span", { class: "bar-name" }, dot(mark), el("span", { title: name }, name)),
  el("span", { class: "bar-track", "aria-hidden": "true" }, el("span", { class: "bar-fill", style: { width: `${100 * share}%`, background: mark.color } })),
  el("span", { class: "bar-value" }, value));

// markIn: the colour and shape of each label, see ``marksOf``.
function bars(probabilities, markIn) {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const rows = sorted.slice(0, MOST_BARS).map(([name, value]) => bar(markIn(name), name, value, percent(value)));
  const rest = sorted.length - rows.length;
  return el("div", { class: "bars" }, rows, rest > 0 ? el("p", { class: "note" }, `and ${rest} less likely`) : null);
}

// As on the map; where the cache has no such column, by the place of the label among those that the run knows.
const marksOf = (column, known, markOf) => (name) => markOf(column, name, null) ?? classMark(known.indexOf(name));

// The path to the label, from the top; with a least probability it ends where the head is not sure any more.
function levels(path, sure) {
  const last = path.length - 1;
  return el("ol", { class: "levels", "aria-label": "Levels, from the top" }, path.map((one, i) => el("li", i === last ? { class: "deepest" } : {},
    el("span", { class: "note" }, one.level),
    el("span", { class: "level-name" }, one.label, i === last && sure !== null ? el("span", { class: "note" }, " sure down to here") : null),
    el("span", { class: "bar-value" }, percent(one.probability)))));
}

// A prediction for a text of the run's training does not test the run.
const SIDES = {
  train: "The head was trained on this text and its label: this is not a test.",
  val: "This text helped to choose the head.",
  test: "This text was in the run's test set: the head did not learn from it.",
};

const REASONS = {
  unsure: "I don't know: nothing is probable enough.",
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

// Of several runs, what each says under its name. runs: of /info; sure: the least probability of a level, if any.
const prediction = (found, { runs, markOf, sure = null }) => found.runs
  ? el("div", { class: "by-run" }, Object.entries(found.runs).map(([name, one]) => el("section", {}, el("h4", {}, name),
    ofRun({ text: found.text, ...one }, runs.find((run) => run.name === name), markOf, sure))))
  : ofRun(found, runs[0], markOf, sure);

function ofRun(found, run, markOf, sure) {
  const columns = found.columns ? Object.entries(found.columns) : [[Object.keys(run.columns)[0], found]];
  return el("div", { class: "prediction" }, columns.map(([name, one]) =>
    el("div", {},
      el("p", { class: "says" }, found.columns ? `Predicted ${name} ` : "Predicted ", el("strong", { class: "label" }, one.reason ? "–" : labelText(one.label))),
      one.reason ? el("p", { class: "note reason" }, REASONS[one.reason]) : null,
      one.levels ? levels(one.levels, sure) : null,
      Object.keys(one.probabilities).length ? bars(one.probabilities, marksOf(name, Object.keys(one.probabilities), markOf)) : null,
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
    const bins = binsOf(column), marks = palette(column), markIn = marksOf(column, Object.keys(classes), markOf);
    const sorted = bins.length ? bins.map(({ name, rows }, i) => [name, rows, marks[i]])
      : Object.entries(classes).sort((a, b) => b[1] - a[1]).map(([name, rows]) => [name, rows, markIn(name)]);
    const all = sorted.reduce((sum, [, rows]) => sum + rows, 0);
    return [el("h3", {}, column), el("div", { class: "bars" }, sorted.slice(0, MOST_BARS).map(([name, rows, mark]) => bar(mark, name, rows / (all || 1), rows.toLocaleString("en"))),
    sorted.length > MOST_BARS ? el("p", { class: "note" }, `and ${sorted.length - MOST_BARS} more`) : null)];
  });
  const chance = () => hash({ ...read(), view: "search", row: Math.floor(Math.random() * info.rows), query: "", k: 10 });
  return [...columns.flat(), el("p", {}, info.texts ? "Write a text above, click a point on the map, or begin with " : "Click a point on the map, or begin with ",
    el("a", { href: chance(), onclick: (event) => { event.currentTarget.href = chance(); } }, "a text by chance"), ".")];
}

// about: see ``prediction``.
export function askedText(text, found, about) {
  return el("article", { class: "panel asked" }, el("p", { class: "text" }, text), found ? prediction(found, about) : null);
}

export function askedRow(row, about) {
  const { markOf } = about;
  const columns = Object.entries(row.columns);
  return el("article", { class: "panel asked" },
    el("p", { class: "meta" }, el("span", {}, row.id === null ? `Row ${row.row}` : `Row ${row.row}, ${row.id}`), labelled(row.labels, markOf)),
    el("p", { class: "text" }, row.text || "(no text)"),
    columns.length ? el("p", { class: "columns" }, keptValues(row, markOf, columns.length)) : null,
    row.prediction ? prediction(row.prediction, about) : null);
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
