// Elements are made here, and texts only ever become text nodes: nothing from the data is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(
    (child) => (child instanceof Node ? child : document.createTextNode(String(child))),
  ));
  return node;
}

export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function show(node, visible = true) {
  node.hidden = !visible;
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const small = Math.abs(value) < 0.001;
  return small ? value.toExponential(0).replace("e-0", "e-") : value.toFixed(digits).replace(/0+$/, "").replace(/\.$/, "");
}

// With so many digits always, so that a column of them is aligned.
export const fixed = (value, digits = 3) => (typeof value === "number" && (value === 0 || Math.abs(value) >= 0.001) ? value.toFixed(digits) : number(value, digits));

// A label, several of one row, a number, or none.
export function labelText(label) {
  if (label === null || label === undefined) return "no label";
  if (Array.isArray(label)) return label.length ? label.join(", ") : "none of them";
  return typeof label === "number" ? number(label, 4) : label;
}
