// Points that were encircled on the map: how many of each label, and what can be done with them.

import { dot } from "./colors.js";
import { $, el, plural, show } from "./dom.js";

const MOST = 5000; // rows that the server takes

export class Selection {
  constructor({ label, search }) {
    Object.assign(this, { rows: [], label, search });
  }

  // groups: of the map, each with its name; of: the group of each row; marks: of the groups.
  choose(rows, groups, of, marks) {
    this.rows = rows;
    show($("selection"), true);
    if (!rows.length) {
      $("selection").replaceChildren(el("p", { class: "note" }, "No text is inside. Draw around the points that you want."));
      return;
    }
    const counts = new Map();
    for (const row of rows) counts.set(of[row], (counts.get(of[row]) ?? 0) + 1);
    const order = [...counts].sort((a, b) => b[1] - a[1]);
    const most = rows.length > MOST ? `. ${MOST.toLocaleString("en")} of them, evenly spread over the rows, are labelled or searched: draw around fewer for all of them.` : "";
    $("selection").replaceChildren(
      el("p", { role: "status" }, el("strong", {}, plural(rows.length, "text")), ` selected${most}`),
      el("ul", { class: "counts" }, order.map(([group, count]) => groups[group] && el("li", {},
        dot(marks[group]), el("span", { class: "count-name" }, groups[group].name),
        el("span", { class: "count" }, count.toLocaleString("en")), el("span", { class: "note count" }, `${((100 * count) / rows.length).toFixed(0)} %`))).filter(Boolean)),
      el("div", { class: "line" },
        this.label ? el("button", { type: "button", id: "label-selection", class: "save", onclick: () => this.label(this.taken) }, "Label these") : null,
        el("button", { type: "button", id: "search-selection", onclick: () => this.search(this.taken) }, "Search inside"),
        el("button", { type: "button", id: "clear-selection", onclick: () => this.clear() }, "Clear")));
  }

  get taken() {
    const { rows } = this;
    return rows.length > MOST ? Array.from({ length: MOST }, (_, i) => rows[Math.floor((i * rows.length) / MOST)]) : rows;
  }

  clear() {
    this.rows = [];
    show($("selection"), false);
    this.search(null);
    this.cleared?.();
  }
}

// Whether a place is inside a polygon [[x, y], ...]: a ray from it crosses an odd number of sides.
export function inside(x, y, corners) {
  let odd = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [[ax, ay], [bx, by]] = [corners[i], corners[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}
