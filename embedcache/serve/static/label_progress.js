// How far the labelling is: scores before and after, wrong labels left, agreement, speed, and whether to stop.

import { frame, path } from "./chart.js";
import { el, number, plural, svg } from "./dom.js";

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)} %`;
const range = (interval, show) => (interval ? ` (${show(interval[0])} to ${show(interval[1])})` : "");
const METRICS = { accuracy: "accuracy", macro_f1: "macro F1", r2: "R²" };
const shown = (score) => (score.metric === "r2" ? number(score.value) : percent(score.value));
const scored = (score) => `${shown(score)}${range(score.interval, (one) => (score.metric === "r2" ? number(one) : percent(one)))}`;

const figure = (name, value, note = "") => [el("dt", {}, name), el("dd", {}, el("span", { class: "figure" }, value), note ? el("span", { class: "note" }, note) : null)];

export function showProgress(place, found, state) {
  const { estimates } = found;
  const { advice, wrong, wrong_by_audit: audited, agreement, rows_per_minute: speed } = estimates;
  const people = Object.keys(state.people).length;
  const figures = [
    figure("Labelled by people", state.checked.toLocaleString("en"), `${state.labelled.toLocaleString("en")} of ${state.rows.toLocaleString("en")} rows have a label`),
    speed === null ? [] : figure("Your rows a minute", speed.toFixed(0)),
    found.after ? figure(`Test ${METRICS[found.after.metric] ?? found.after.metric}`, shown(found.after), change(found)) : [],
    found.validation ? figure("Over all labels given", shown(found.validation), `${METRICS[found.validation.metric] ?? found.validation.metric}${range(found.validation.interval, percent)}`) : [],
    found.chance && found.chance.rows >= 10 ? figure("Over rows drawn by chance", shown(found.chance), `${plural(found.chance.rows, "row")}${range(found.chance.interval, percent)}`) : [],
    wrong ? figure("Wrong labels left", `about ${wrong.left.toLocaleString("en")}`, `${wrong.left_interval.map((one) => one.toLocaleString("en")).join(" to ")}; from ${plural(wrong.rows, "row")} drawn by chance`) : [],
    audited ? figure("Wrong by audit", `about ${audited.estimate.toLocaleString("en")}`, `${audited.interval.map((one) => one.toLocaleString("en")).join(" to ")}${unclear(audited.open)}`) : [],
    agreement ? figure("People agree on", percent(agreement.same, 0), `${plural(agreement.rows, "row")}${agreement.alpha === null ? "" : `, Krippendorff's alpha ${agreement.alpha.toFixed(2)}`}`) : [],
    people > 1 || found.disagreements ? figure("People differ on", plural(found.disagreements, "text")) : [],
  ];
  const said = el("p", { class: "advice", "data-stop": String(advice.stop) }, sentence(advice.reason));
  const training = found.training ? "Training…" : found.seconds === null ? "" : `Trained in ${found.seconds.toFixed(1)} s on ${plural(found.learned, "label")}.`;
  place.replaceChildren(...[said, el("dl", { class: "figures" }, figures.flat()), found.curve.length > 1 && curve(found.curve),
    el("p", { class: "note" }, found.problem ? `${sentence(found.problem)} ` : "", training)].filter(Boolean));
}

// Classes whose labels may all be right and hard, or many be wrong.
const unclear = ([first, ...more]) => first === undefined ? "" : `, much of it open: the heads can hardly tell ${first}${more.length ? ` and ${more.length} more` : ""}`;

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function change({ before, after, gain }) {
  const rows = `on ${plural(after.rows, "test row")}`;
  if (!gain || !before) return rows;
  const sign = gain.difference < 0 ? "−" : "+";
  return `before ${shown(before)}; ${sign}${percent(Math.abs(gain.difference), 2)}${range(gain.interval, (one) => percent(one, 2))} ${rows}`;
}

function curve(points) {
  const ends = points.flatMap((one) => [one.value, ...(one.interval ?? [])]);
  const xs = [points[0].labels, points.at(-1).labels];
  const label = `Score over labels given, from ${scored({ metric: "", ...points[0] })} to ${scored({ metric: "", ...points.at(-1) })}`;
  return el("figure", { class: "chart" },
    frame({ xs, ys: [Math.min(...ends), Math.max(...ends)], title: "labels given", label }, (x, y) => {
      const band = points.filter((one) => one.interval);
      const outline = [...band.map((one) => [x(one.labels), y(one.interval[1])]), ...band.toReversed().map((one) => [x(one.labels), y(one.interval[0])])];
      return [svg("path", { class: "band", d: `${path(outline)}Z` }),
        svg("g", { class: "picked line-0" }, svg("path", { d: path(points.map((one) => [x(one.labels), y(one.value)])) }))];
    }));
}
