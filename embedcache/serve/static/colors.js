// Colours of groups: eight that most colour-blind people tell apart (after Okabe and Ito), a scale for numbers (viridis).

const dark = matchMedia("(prefers-color-scheme: dark)");
const CLASSES = {
  light: ["#0067a5", "#c94f00", "#00805c", "#a8327f", "#8a6d00", "#3f8fd6", "#6c4bb5", "#7a4a2b"],
  dark: ["#5cb3ff", "#ff9950", "#3fd6a5", "#f086c8", "#f2d34b", "#a8d8ff", "#b9a0ff", "#d9a27c"],
};
const SCALE = {
  light: ["#440154", "#443983", "#31688e", "#21918c", "#35a061", "#7fae27", "#c2a500"],
  dark: ["#7a5ea8", "#6b6fd0", "#4f92c9", "#35b0a9", "#50c878", "#a5db36", "#fde725"],
};
const REST = { light: "#8b8f97", dark: "#767b85" };
let groups = {};

export const onTheme = (tell) => dark.addEventListener("change", tell);

export function setUpColors(found) {
  groups = found;
}

// The colours of a column's groups, in their order.
export function palette(column) {
  const theme = dark.matches ? "dark" : "light";
  const all = groups[column] || [];
  const bins = all.filter((group) => group.role === "bin").length;
  let used = 0;
  return all.map((group) => {
    if (group.role === "class") return CLASSES[theme][used++ % 8];
    if (group.role === "bin") return SCALE[theme][bins > 1 ? Math.round((used++ * 6) / (bins - 1)) : 3];
    return group.role === "several" ? CLASSES[theme][7] : REST[theme];
  });
}

// Of the class with this number; from the ninth on there is one colour for all.
export const classColor = (place) => (place < 8 ? CLASSES : { light: [REST.light], dark: [REST.dark] })[dark.matches ? "dark" : "light"][place < 8 ? place : 0];

export const plain = () => CLASSES[dark.matches ? "dark" : "light"][0];

// Of one label or kept value, as the map has it; ``none`` where the map has no such column.
export function colorOf(column, label, none = REST[dark.matches ? "dark" : "light"]) {
  if (!(column in groups)) return none;
  const all = groups[column];
  const name = Array.isArray(label) ? (label.length === 1 ? label[0] : null) : label;
  let place = all.findIndex((group) => group.role === "class" && group.name === name);
  if (place < 0 && Array.isArray(label) && label.length > 1) place = all.findIndex((group) => group.role === "several");
  if (place < 0 && name !== null && all.some((group) => group.role === "bin")) {
    place = all.findLastIndex((group) => group.role === "bin" && Number(group.name.split(" to ")[0]) <= Number(name));
  }
  return place < 0 ? REST[dark.matches ? "dark" : "light"] : palette(column)[place];
}
