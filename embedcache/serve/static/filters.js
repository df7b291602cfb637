// What narrows the list and the map: labels and kept columns, each by what it holds.

import { $, el } from "./dom.js";
import { go, read } from "./state.js";

const MOST_CLASSES = 500;

function set(key, value) {
  const filters = { ...read().filters };
  if (value) filters[key] = value;
  else delete filters[key];
  go({ filters, k: 10 });
}

// A control whose value is kept under "operator.column".
function control(key, node, value = (text) => text) {
  node.dataset.filter = key;
  node.id = `filter-${key}`;
  node.addEventListener("change", () => set(key, value(node.value)));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || node.tagName === "SELECT") return;
    event.preventDefault(); // or else the question is sent
    set(key, value(node.value));
  });
  return node;
}

function choice(column, names, extra = []) {
  const option = (name) => el("option", { value: `=${name}` }, name);
  return control(`is.${column}`, el("select", {}, el("option", { value: "" }, "any"), names.map(option), extra), (value) => value.slice(1));
}

const named = (column, node, label = column) => [el("label", { for: node.id }, label), node];

function range(column, { low, high }) {
  const input = (key, shown) => control(key, el("input", { type: "number", step: "any", class: "bound", placeholder: String(shown), "aria-label": `${column} ${key.split(".")[0]}` }));
  return [el("span", { class: "range" }, el("span", { class: "filter-name" }, column), input(`from.${column}`, low), "to", input(`to.${column}`, high))];
}

const words = (column, label) => named(column, control(`has.${column}`, el("input", { type: "search", class: "words", maxlength: 200 })), label);

function kept(column, about) {
  if (about.kind === "classes") return named(column, choice(column, Object.keys(about.values)));
  return about.kind === "number" ? range(column, about) : words(column, `${column} contains`);
}

export function setUpFilters(info) {
  const place = $("filters");
  for (const [column, { kind, classes }] of Object.entries(info.labels)) {
    const names = Object.keys(classes);
    if (names.length > MOST_CLASSES) continue;
    const none = kind === "multilabel" ? el("option", { value: "=[]" }, "none of them") : null;
    place.append(...named(column, choice(column, names, [none])));
  }
  const others = Object.entries(info.kept);
  const taken = "text" in info.labels || info.columns.includes("text");
  const more = [taken ? [] : words("text", "text contains"), ...others.map(([column, about]) => kept(column, about))];
  const body = el("div", { class: "filters" }, ...more.map((nodes) => el("span", { class: "filter" }, ...nodes)));
  $("more-filters").append(el("summary", {}, others.length ? "Filter by words and columns" : "Filter by words"), body);
  const box = el("input", { type: "checkbox", id: "dedupe" });
  box.addEventListener("change", () => go({ dedupe: box.checked }));
  place.append(el("label", { class: "check" }, box, "hide near-identical texts"));
}

export function showFilters(state) {
  for (const node of document.querySelectorAll("[data-filter]")) {
    const value = state.filters[node.dataset.filter];
    node.value = value === undefined ? "" : node.tagName === "SELECT" ? `=${value}` : value;
    if (value !== undefined && node.closest("details")) node.closest("details").open = true;
  }
  $("dedupe").checked = state.dedupe;
  // A link may filter by what has no control here: it is shown, and can be taken away.
  const known = new Set([...document.querySelectorAll("[data-filter]")].map((node) => node.dataset.filter));
  const others = Object.entries(state.filters).filter(([key]) => !known.has(key));
  $("other-filters").replaceChildren(...others.map(([key, value]) => el("button", { type: "button", onclick: () => set(key, "") }, `${key.replace(".", " ")}: ${value} ×`)));
}
