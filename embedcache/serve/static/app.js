// What is shown follows the URL's fragment: every change of it is a step that Back undoes.

import { call, hasToken, Problem, setToken } from "./api.js";
import { showBoards } from "./board.js";
import { markOf, setUpColors } from "./colors.js";
import { $, el, plural, show } from "./dom.js";
import { setUpFilters, showFilters } from "./filters.js";
import { LabelView } from "./label.js";
import { MapView } from "./map.js";
import { askedRow, askedText, found, showColored, welcome } from "./results.js";
import { Selection } from "./selection.js";
import { go, read, takeToken, where } from "./state.js";

const MORE = 20;
const SURE = 0.8; // the least probability of a level
const POLL = 3000; // milliseconds
let info = null;
let map = null;
let boards = null;
let labels = null;
let within = null; // rows that are searched alone, see searchInside
let asking = null; // what is on its way, to be dropped when something else is asked
let shown = ""; // what the results belong to

async function start() {
  const given = takeToken();
  if (given !== null) setToken(given);
  try {
    info = await call("info");
  } catch (problem) {
    if (problem.status !== 401) return complain(problem);
    askForToken();
    return undefined;
  }
  show($("token-form"), false);
  setUp();
  if (info.labelling && !new URLSearchParams(location.hash.slice(1)).has("view") && !read().query && read().row === null) go({ view: "label" });
  window.addEventListener("hashchange", render);
  render();
  if (info.role === "label") return undefined; // such a token reaches nothing else
  const colors = await call("map").catch(complain);
  if (colors) {
    setUpColors(colors.groups);
    const selection = new Selection({ label: info.labelling ? labelThese : null, search: searchInside });
    map = new MapView(colors, { open: openRow, textOf, selection });
    shown = "";
    render();
    if (info.labelling) followLabels();
  }
  return undefined;
}

// While a map is looked at that others' labels change: its colours follow, once a round of training has seen them.
async function followLabels(round = -1) {
  let now = round;
  if (map.points && document.body.dataset.view !== "label" && !document.hidden) {
    const who = encodeURIComponent($("who").value.trim());
    const found = await call(`labelling/progress?who=${who}`).catch(() => null); // a server that is gone for a moment
    now = found?.round ?? round;
    if (now !== round) await map.recolor().catch(complain);
  }
  setTimeout(() => followLabels(now), POLL);
}

function openLabels() {
  if (labels) return;
  labels = new LabelView();
  labels.opened = labels.open().catch((problem) => labels.complain(problem));
}

async function labelThese(rows) {
  openLabels();
  await labels.opened;
  go({ view: "label" });
  labels.labelThese(rows);
}

// Among the texts that were selected on the map alone, or (null) among all.
function searchInside(rows) {
  within = rows;
  show($("inside"), Boolean(rows));
  if (rows) {
    $("inside").replaceChildren(el("button", { type: "button", onclick: () => searchInside(null) }, `inside ${plural(rows.length, "selected text")} ×`));
    if (!matchMedia("(min-width: 1000px)").matches) go({ view: "search" });
    $("query").focus();
  }
  render();
}

function askForToken() {
  show($("token-form"));
  document.body.classList.add("locked");
  $("token").focus();
  $("token-form").onsubmit = async (event) => {
    event.preventDefault();
    setToken($("token").value);
    try {
      await call("info");
      document.body.classList.remove("locked");
      await start();
    } catch (problem) {
      $("token-note").textContent = problem.status === 401 ? "Wrong token." : problem.message;
    }
  };
}

function setUp() {
  const names = info.runs.map((one) => one.name).join(", ");
  const run = names ? `, ${info.runs.length > 1 ? "runs" : "run"} ${names}` : "";
  $("about").textContent = `${info.cache}${run}: ${plural(info.rows, "text")}`;
  show($("metrics-link"), !hasToken()); // a link cannot send it
  $("version").textContent = `embedcache ${info.version}`;
  document.title = `${info.cache} – embedcache`;
  const may = info.role === "all";
  show(document.querySelector("[data-view=label]"), info.labelling);
  for (const name of ["search", "map"]) show(document.querySelector(`[data-view=${name}]`), may);
  show(document.querySelector("[data-view=board]"), may && Boolean(info.run));
  if (!info.texts) {
    $("query").disabled = $("send").disabled = true;
    $("ask-note").textContent = `Texts cannot be searched here: ${info.why_no_texts}. Walk from text to text: on the map, or from the first row.`;
    show($("ask-note"));
  } else {
    $("send").textContent = info.run ? "Label and search" : "Search";
    $("ask-note").textContent = info.notes.map((note) => `Note: ${note}.`).join(" ");
    show($("ask-note"), info.notes.length > 0);
  }
  setUpFilters(info);
  show($("how"), Boolean(info.run && info.texts));
  show($("sure").parentElement, info.runs.length > 0 && info.runs.every((one) => one.levels));
  for (const box of ["reject", "sure", "explain"]) $(box).addEventListener("change", () => {
    const other = { reject: "sure", sure: "reject" }[box]; // of the two, one: they answer the same doubt
    if (other && $(box).checked) $(other).checked = false;
    render();
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask();
    }
  });
  $("color").addEventListener("change", () => showColored($("color").value));
  $("more").addEventListener("click", () => go({ k: Math.min(info.limits.k, read().k + MORE) }));
  $("results").addEventListener("keydown", walkList);
  $("results").addEventListener("pointerover", (event) => map?.point(rowOf(event.target)));
  $("results").addEventListener("focusin", (event) => map?.point(rowOf(event.target)));
  $("results").addEventListener("pointerleave", () => map?.point(null));
  if (!info.texts) $("ask-note").append(" ", el("a", { href: "#row=0" }, "First row"));
}

// From the map; where it fills a narrow screen, the text takes its place.
const openRow = (row) => go({ row, query: "", k: 10, view: matchMedia("(min-width: 1000px)").matches ? read().view : "search" });

const rowOf = (node) => {
  const item = node.closest("li");
  return item ? Number(item.dataset.row) : null;
};

function ask() {
  const query = $("query").value.trim();
  if (query) go({ view: "search", query, row: null, k: 10 });
  else $("query").focus();
}

// Up and down arrows walk the list as they do a menu; Tab does too.
function walkList(event) {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const links = [...$("results").querySelectorAll("a.found")];
  const next = links[links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

function complain(problem) {
  if (problem.name === "AbortError") return;
  if (!(problem instanceof Problem)) throw problem;
  $("problem").textContent = problem.message;
  show($("problem"));
  $("status").textContent = "";
}

async function render() {
  const state = read();
  document.body.dataset.view = state.view;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.dataset.view === state.view;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const target = new URLSearchParams(location.hash.slice(1));
    target.set("view", link.dataset.view);
    link.href = `#${target}`;
  }
  showFilters(state);
  if (state.view === "label" && info.labelling) openLabels();
  if (state.view === "label") return;
  if (state.view === "board" && info.run) {
    if (!boards) $("boards").textContent = "Loading…";
    boards ??= call("leaderboard").then((all) => {
      $("boards").replaceChildren();
      return all;
    });
    await boards.then((all) => showBoards($("boards"), all, info.run.name), complain);
  }
  if (labels?.changed) {
    labels.changed = false;
    await map?.recolor().catch(complain);
    shown = ""; // labels stand beside what was found
  }
  map?.show();
  map?.filter(where(state.filters)).catch(complain);
  await renderAnswer(state).catch(complain);
}

async function renderAnswer(state) {
  const { query, row, filters, dedupe, k } = state;
  const key = JSON.stringify([query, row, filters, dedupe, k, how(), within]);
  if (key === shown) return;
  const before = shown && JSON.parse(shown);
  const moved = !before || before[0] !== query || before[1] !== row;
  shown = key;
  asking?.abort();
  show($("problem"), false);
  if (moved && row === null && (before || query)) $("query").value = query; // else it may hold what is being typed
  if (row === null && !query) return clear();
  show($("welcome"), false);
  asking = new AbortController();
  const { signal } = asking;
  $("status").textContent = "Searching…";
  try {
    const asked = row === null ? { query } : { row };
    const asks = how();
    const [about, answer] = await Promise.all([
      row === null ? info.run && call("predict", { body: { texts: [query], ...asks }, signal }) : call(`rows/${row}`, { signal }),
      call("search", { body: { ...asked, k, where: where(filters), dedupe, ...(within ? { among: within } : {}) }, signal }),
    ]);
    if (signal.aborted) return undefined;
    const shownWith = { runs: info.runs, markOf };
    $("asked").replaceChildren(row === null ? askedText(query, about && about[0], { ...shownWith, sure: asks.sure ?? null }) : askedRow(about, shownWith));
    $("results").replaceChildren(...answer.results.map((one) => found(one, markOf)));
    show($("results-title"), answer.results.length > 0);
    show($("more"), answer.results.length === k && k < info.limits.k);
    $("status").textContent = `${plural(answer.results.length, "similar text")} found.`;
    map?.mark(row, answer.results.map((one) => one.row));
    if (moved) showTop();
  } catch (problem) {
    if (problem.name === "AbortError") return undefined;
    $("asked").replaceChildren();
    clearResults();
    throw problem;
  }
  return undefined;
}

// What is asked of a prediction beside the label.
const how = () => ({
  ...(info.runs.length > 1 ? { runs: "all" } : {}),
  ...($("reject").checked ? { reject: "auto" } : {}),
  ...($("sure").checked ? { sure: SURE } : {}),
  ...($("explain").checked ? { explain: true } : {}),
});

// The link that was followed is gone: the keyboard continues from the new list, and the eye from its top.
function showTop() {
  if (document.activeElement === document.body) $("results-title").focus({ preventScroll: true });
  if ($("search").getBoundingClientRect().top < 0) $("search").scrollIntoView({ block: "start" });
}

function clear() {
  $("welcome").replaceChildren(...welcome(info, markOf));
  show($("welcome"));
  $("asked").replaceChildren();
  $("status").textContent = "";
  clearResults();
}

function clearResults() {
  $("results").replaceChildren();
  show($("results-title"), false);
  show($("more"), false);
  map?.mark(null, []);
}

const texts = new Map();

async function textOf(row) {
  if (!texts.has(row)) {
    if (texts.size > 5000) texts.clear();
    texts.set(row, call(`rows/${row}`).catch((problem) => {
      texts.delete(row);
      throw problem;
    }));
  }
  return texts.get(row);
}

start().catch(complain);
