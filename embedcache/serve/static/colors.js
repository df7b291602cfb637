// Colours of groups: eight that most colour-blind people tell apart (after Okabe and Ito), a scale for numbers (viridis).
// From the ninth class on the same colours come again with another shape. A mark is {color, shape}.

import { el } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const CLASSES = {
  light: ["#0067a5", "#c94f00", "#00805c", "#a8327f", "#8a6d00", "#3f8fd6", "#6c4bb5", "#7a4a2b"],
  dark: ["#5cb3ff", "#ff9950", "#3fd6a5", "#f086c8", "#f2d34b", "#a8d8ff", "#b9a0ff", "#d9a27c"],
};
const SCALE = {
  light: ["#440154", "#443983", "#31688e", "#21918c", "#35a061", "#7fae27", "#c2a500"],
  dark: ["#7a5ea8", "#6b6fd0", "#4f92c9", "#35b0a9", "#50c878", "#a5db36", "#fde725"],
};
export const SHAPES = ["circle", "square", "diamond", "triangle"];
const REST = { light: "#8b8f97", dark: "#767b85" };
let groups = {};

export const onTheme = (tell) => dark.addEventListener("change", tell);

export function setUpColors(found) {
  groups = found;
}

const theme = () => (dark.matches ? "dark" : "light");
const plainMark = (color) => ({ color, shape: 0 });

// Of the class with this number.
export const classMark = (place) => ({ color: CLASSES[theme()][place % 8], shape: Math.floor(place / 8) % SHAPES.length });

export const dot = ({ color, shape }, attributes = {}) => el("span", { class: "dot", "aria-hidden": "true", "data-shape": SHAPES[shape], style: { background: color }, ...attributes });

// Of a column of numbers: its bins, in their order, before all other groups.
export const binsOf = (column) => (groups[column] || []).filter((group) => group.role === "bin");

// The marks of a column's groups, in their order.
export function palette(column) {
  const bins = binsOf(column).length;
  let used = 0;
  return (groups[column] || []).map((group) => {
    if (group.role === "class") return classMark(group.place);
    if (group.role === "bin") return plainMark(SCALE[theme()][bins > 1 ? Math.round((used++ * 6) / (bins - 1)) : 3]);
    return plainMark(group.role === "several" ? CLASSES[theme()][7] : REST[theme()]);
  });
}

// Also with a decimal comma.
const number = (text) => Number(/^[^,]*,[^,]*$/.test(text) ? text.replaceAll(".", "").replace(",", ".") : text);

export const plain = () => classMark(0);

// Of one label or kept value, as the map has it; ``none`` where the map has no such column.
export function markOf(column, label, none = plainMark(REST[theme()])) {
  if (!(column in groups)) return none;
  const all = groups[column];
  const name = Array.isArray(label) ? (label.length === 1 ? label[0] : null) : label;
  let place = all.findIndex((group) => group.role === "class" && group.name === name);
  if (place < 0 && Array.isArray(label) && label.length > 1) place = all.findIndex((group) => group.role === "several");
  if (place < 0 && name !== null && binsOf(column).length) {
    place = all.findLastIndex((group) => group.role === "bin" && Number(group.name.split(" to ")[0]) <= number(name));
  }
  return place < 0 ? plainMark(REST[theme()]) : palette(column)[place];
}
