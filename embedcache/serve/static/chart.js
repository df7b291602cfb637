// Lines over a number, drawn as SVG: learning curves by epoch, scores by labels given.

import { number, svg } from "./dom.js";

export const SIZE = { wide: 640, tall: 280, left: 60, bottom: 48, top: 14, right: 22 };

export const scaled = (low, high, from, to) => (value) => from + (to - from) * (high > low ? (value - low) / (high - low) : 0.5);

// Axes with their ticks, and the children that draw (x, y) to places. xs, ys: [low, high]; whole: x has whole numbers.
export function frame({ xs, ys, title, label }, draw) {
  const x = scaled(...xs, SIZE.left, SIZE.wide - SIZE.right);
  const place = scaled(...ys, SIZE.tall - SIZE.bottom, SIZE.top);
  const y = (value) => place(Math.min(ys[1], Math.max(ys[0], value)));
  return svg("svg", { viewBox: `0 0 ${SIZE.wide} ${SIZE.tall}`, role: "img", "aria-label": label },
    ticks(...ys).map((value) => svg("g", { class: "tick" },
      svg("line", { x1: SIZE.left, x2: SIZE.wide - SIZE.right, y1: y(value), y2: y(value) }),
      svg("text", { x: SIZE.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)))),
    ticks(...xs).filter(Number.isInteger).map((value) => svg("text", { class: "tick", x: x(value), y: SIZE.tall - 28, "text-anchor": "middle" }, value.toLocaleString("en"))),
    svg("text", { class: "tick", x: (SIZE.left + SIZE.wide - SIZE.right) / 2, y: SIZE.tall - 6, "text-anchor": "middle" }, title),
    draw(x, y));
}

// A path through points [x, y] in places; null where the line is broken.
export const path = (points) => points.map((one, i) => (one === null ? "" : `${i && points[i - 1] !== null ? "L" : "M"}${one[0].toFixed(1)} ${one[1].toFixed(1)}`)).join("");

export function ticks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + 1e-9 * step; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}
