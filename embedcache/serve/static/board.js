// The leaderboard of each label column and its heads' learning curves, drawn as SVG.

import { frame, path } from "./chart.js";
import { el, fixed, number, plural, svg } from "./dom.js";

const SHOWN = 25;

export function showBoards(place, { columns, others, comparisons }, first) {
  if (place.childElementCount) return;
  const runs = { [first]: columns, ...others };
  const boards = el("div", {});
  const showRun = (name) => boards.replaceChildren(...Object.entries(runs[name]).map(([column, board]) => makeBoard(column, board)));
  place.replaceChildren(...Object.entries(comparisons).map(([column, one]) => comparison(column, one, columns[column])));
  if (Object.keys(others).length) {
    const select = el("select", { id: "board-run" }, Object.keys(runs).map((name) => el("option", { value: name }, name)));
    select.addEventListener("change", () => showRun(select.value));
    place.append(el("div", { class: "line board-run" }, el("label", { for: "board-run" }, "Heads of run"), select));
  }
  showRun(first);
  place.append(boards);
}

const between = (interval) => interval ? `${fixed(interval[0])} to ${fixed(interval[1])}` : "–";
const signed = (value) => `${value < 0 ? "−" : "+"}${fixed(Math.abs(value))}`;

// The runs on the texts that are test rows in all of them.
function comparison(column, found, board) {
  const title = el("h3", {}, "The runs side by side", el("span", { class: "note" }, ` ${column}`));
  if (found.problem) return el("section", { class: "panel compared" }, title, el("p", { class: "note" }, `Not compared: ${found.problem}.`));
  const score = board?.titles[`val_${found.score}`]?.replace("validation ", "") ?? found.score;
  const left = found.changed ? ` ${plural(found.changed, "text")} whose label the runs learned differently ${found.changed === 1 ? "is" : "are"} left out.` : "";
  const row = (name, ...cells) => el("tr", {}, el("th", { scope: "row" }, name), cells.map((cell) => el("td", {}, cell)));
  const head = (...names) => el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name))));
  return el("section", { class: "panel compared" }, title,
    el("p", { class: "note" }, `On ${plural(found.texts, "text")} that ${found.texts === 1 ? "is a test row" : "are test rows"} in all of them.${left}`),
    el("table", { class: "summary" }, head("run", score, "95% interval"),
      el("tbody", {}, found.runs.map((one) => row(one.run, fixed(one.score), between(one.interval))))),
    el("table", { class: "summary" }, head("paired difference", score, "95% interval", "verdict"),
      el("tbody", {}, found.pairs.map((one) => row(`${one.first} − ${one.second}`, signed(one.difference), between(one.interval), one.within_noise ? "within noise" : "differs")))));
}

function makeBoard(column, board) {
  const chart = el("div", { class: "chart" });
  const scores = board.drawn.filter((one) =>
    Object.values(board.curves).some((curves) => curves[one]));
  const id = `score-${column}`;
  const select = el("select", { id }, scores.map((one) => el("option", { value: one }, board.titles[one])));
  const state = { chosen: new Set(board.heads.slice(0, 3).map((head) => head.name)) };
  const redraw = () => chart.replaceChildren(curves(board, select.value, state.chosen));
  select.addEventListener("change", redraw);
  const table = makeTable(board, state.chosen, redraw);
  if (scores.length) redraw();
  return el("section", { class: "panel" },
    el("h3", {}, column, el("span", { class: "note" }, ` ${board.kind}, ${plural(board.count, "head")}`)),
    summary(board),
    scores.length ? el("div", { class: "line" }, el("label", { for: id }, "Learning curves:"), select) : null,
    scores.length ? chart : null, table);
}

function summary(board) {
  const score = board.score.replace("val_", "test_");
  const rows = Object.entries(board.baselines).map(([name, one]) => [board.titles[name], one[board.score], one[score]]);
  const best = board.heads[0];
  if (best) rows.unshift(["best head", best[board.score], board.test[score]]);
  if (!rows.length) return null;
  const what = board.titles[board.score].replace("validation ", "");
  return el("table", { class: "summary" },
    el("thead", {}, el("tr", {}, ["model", `${what}, validation`, "test"].map((one) => el("th", { scope: "col" }, one)))),
    el("tbody", {}, rows.map(([name, val, test]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, fixed(val)), el("td", {}, fixed(test))))));
}

function makeTable(board, chosen, redraw) {
  const columns = [...board.settings, ...board.scores, "best_epoch"];
  const head = el("thead", {}, el("tr", {}, ["curve", "rank", "name", ...columns.map((one) => board.titles[one])].map((one) => el("th", { scope: "col" }, one))));
  const rows = board.heads.map((one, i) => {
    const box = el("input", { type: "checkbox", "aria-label": `curve of ${one.name}`, disabled: !board.curves[one.name] });
    box.checked = chosen.has(one.name);
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(one.name);
      else chosen.delete(one.name);
      redraw();
    });
    return el("tr", { class: i === 0 ? "best" : null, hidden: i >= SHOWN }, el("td", {}, box), el("td", {}, one.rank), el("th", { scope: "row" }, one.name),
      columns.map((name) => el("td", {}, board.scores.includes(name) ? fixed(one[name], 4) : number(one[name], 4))));
  });
  const all = rows.length > SHOWN ? el("button", { type: "button", onclick: (event) => {
    for (const row of rows) row.hidden = false;
    event.target.remove();
  } }, `Show all ${rows.length}`) : null;
  return el("div", {}, el("p", { class: "note scroll-hint", "aria-hidden": "true" }, "Swipe the table for more columns →"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Heads, best first" },
    el("table", { class: "heads" }, head, el("tbody", {}, rows))), all);
}

function curves(board, score, chosen) {
  const lines = Object.entries(board.curves).filter(([, one]) => one[score]).map(([name, one]) => [name, one[score]]);
  const values = lines.flatMap(([, one]) => one).filter((one) => one !== null);
  const epochs = Math.max(1, ...lines.map(([, one]) => one.length));
  let [low, high] = values.length ? range(values) : [0, 1];
  if (high === low) [low, high] = [low - 0.5, high + 0.5];
  const picked = lines.filter(([name]) => chosen.has(name));
  const legend = el("ul", { class: "curves-legend" }, picked.map(([name], i) => el("li", {}, el("span", { class: `line-${i % 6}`, "aria-hidden": "true" }), name)));
  const label = `${board.titles[score]} by epoch of ${plural(lines.length, "head")}`;
  return el("figure", {},
    frame({ xs: [1, epochs], ys: [low, high], title: "epoch", label }, (x, y) => {
      const draw = ([name, one], kind) => svg("g", { class: kind },
        svg("title", {}, name),
        one.length > 1
          ? svg("path", { d: path(one.map((value, i) => (value === null ? null : [x(i + 1), y(value)]))) })
          : svg("circle", { cx: x(1), cy: y(one[0] ?? low), r: 3 }));
      return [lines.filter(([name]) => !chosen.has(name)).map((one) => draw(one, "other")), picked.map((one, i) => draw(one, `picked line-${i % 6}`))].flat();
    }),
    el("figcaption", {}, legend));
}

// Nearly all values: one head that diverged must not flatten the others.
function range(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
  return [sorted[0], Math.max(at(0.98), sorted[0])];
}
