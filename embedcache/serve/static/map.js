// The map: view, colours, legend, selection, tip. Points are drawn by points.js, rings of what is found above them, and
// map_input.js moves it.

import { call } from "./api.js";
import { dot, onTheme, palette, plain, setUpColors } from "./colors.js";
import { $, el, labelText, plural, show } from "./dom.js";
import { MapInput } from "./map_input.js";
import { makePoints, Nearest, rgb } from "./points.js";
import { inside } from "./selection.js";

const POLL = 1500; // milliseconds
const WAIT = 70; // milliseconds of hovering before the text is asked for
const REST = 160; // milliseconds without a movement, after which all points are drawn
const SLOW = 40; // milliseconds of a frame; then fewer points are drawn while the map moves
const FAST = 24;
const FEWEST = 2000; // points
const LONGEST = 280; // characters of a tip
const LEFT_OUT = 15; // the group of points that filters leave out; colours have places for 16

export class MapView {
  constructor(about, { open, textOf, selection }) {
    Object.assign(this, { about, open, textOf, selection, selecting: false, picked: null });
    Object.assign(this, { view: { x: 0, y: 0, scale: 1 }, hidden: new Set(), marked: [], asked: null });
    Object.assign(this, { pointed: null, hovered: null, frame: 0, fitted: false });
    Object.assign(this, { every: null, among: null, filtered: "[]" });
    Object.assign(this, { moving: false, share: 1, last: 0 });
    this.input = new MapInput(this);
    this.stage = $("stage");
    this.load().catch((problem) => this.say(problem.message));
  }

  say(text) {
    $("map-note").textContent = text;
  }

  async load() {
    while (this.about.status === "computing") {
      this.say("The map is being computed. That happens once.");
      await new Promise((done) => setTimeout(done, POLL));
      this.about = await call("map");
    }
    if (this.about.status === "failed") {
      this.say(`No map: ${this.about.problem}`);
      return;
    }
    this.places = new Float32Array(await call("map/points", { bytes: true }));
    this.nearest = new Nearest(this.places);
    this.points = makePoints($("points"), this.places);
    this.points.redraw = () => this.show();
    this.setUpColumns();
    await this.color($("color").value);
    this.input.listen();
    $("zoom-in").onclick = () => this.zoom(1.6);
    $("zoom-out").onclick = () => this.zoom(1 / 1.6);
    $("zoom-all").onclick = () => this.all();
    $("lasso").onclick = () => this.select(!this.selecting);
    this.selection.cleared = () => this.pick(null);
    this.say("");
    this.stage.dataset.ready = "true";
    new ResizeObserver(() => this.show()).observe(this.stage);
    onTheme(() => this.paint());
    this.show();
  }

  setUpColumns() {
    this.listColumns();
    $("color").addEventListener("change", () => this.color($("color").value).catch((problem) => this.say(problem.message)));
  }

  listColumns() {
    const columns = Object.keys(this.about.groups);
    const { value, options } = $("color");
    if (columns.join("\0") === [...options].map((one) => one.value).join("\0")) return; // it may be open
    $("color").replaceChildren(...columns.map((name) => el("option", { value: name, selected: name === value }, name)));
    show($("color"), columns.length > 1);
    show($("color-label"), columns.length > 1);
  }

  // Labels were given: points, legend and results have their colours. Classes that were hidden stay so.
  async recolor() {
    const about = await call("map");
    if (!this.points) return;
    const names = (groups) => groups.map((group) => group.name);
    const hidden = names(this.about.groups[this.column] || []).filter((_, i) => this.hidden.has(i));
    this.about = about;
    setUpColors(about.groups);
    this.listColumns();
    await this.color($("color").value);
    names(about.groups[this.column] || []).forEach((name, i) => hidden.includes(name) && this.hidden.add(i));
    if (hidden.length) this.paint();
  }

  async color(column) {
    this.column = column;
    this.hidden.clear();
    const bytes = column ? await call(`map/groups/${encodeURIComponent(column)}`, { bytes: true }) : this.places.length / 2;
    if (column !== this.column) return;
    this.every = new Uint8Array(bytes);
    this.regroup();
    this.paint();
  }

  // Points that the filters leave out are in a group that has no colour.
  regroup() {
    const { every: all, among } = this;
    this.groups = among ? all.map((group, row) => (among[row] ? group : LEFT_OUT)) : all;
    this.points.setGroups(this.groups);
    const seen = among ? among.reduce((sum, one) => sum + one, 0) : all.length;
    $("map-count").textContent = among ? `${seen.toLocaleString("en")} of ${plural(all.length, "text")}` : "";
    this.show();
  }

  async filter(conditions) {
    const key = JSON.stringify(conditions);
    if (key === this.filtered) return;
    this.filtered = key;
    const among = conditions.length ? new Uint8Array(await call("map/among", { body: { where: conditions }, bytes: true })) : null;
    if (key !== this.filtered) return;
    this.among = among;
    if (this.every) this.regroup();
  }

  paint() {
    const groups = this.about.groups[this.column] || [];
    const marks = this.column ? palette(this.column) : [plain()];
    const dense = this.places.length > 40_000;
    this.points.setMarks(marks.map(({ color, shape }, i) => ({ color: [...rgb(color), this.hidden.has(i) ? 0 : dense ? 0.6 : 0.8], shape })));
    const at = document.activeElement.closest("#legend > button")?.dataset.group;
    $("legend").replaceChildren(...groups.map((group, i) => group.rows > 0 && el("button",
      { type: "button", "aria-pressed": String(!this.hidden.has(i)), "data-group": group.name, onclick: () => this.toggle(i) },
      dot(marks[i]),
      el("span", {}, group.name), el("span", { class: "note" }, group.rows.toLocaleString("en")))).filter(Boolean));
    [...$("legend").children].find((one) => one.dataset.group === at)?.focus();
    this.show();
  }

  toggle(group) {
    if (!this.hidden.delete(group)) this.hidden.add(group);
    this.paint();
  }

  // ---- drawing ----

  show() {
    if (!this.points || this.frame) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = 0;
      this.pace(now);
      this.draw();
    });
  }

  // The map has moved: where the machine draws too slowly, only a sample is drawn until it rests.
  move() {
    this.moving = true;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.moving = false;
      this.show();
    }, REST);
    this.show();
  }

  pace(now) {
    const took = now - this.last;
    this.last = now;
    if (!this.moving || took > 4 * REST) return;
    if (took > SLOW) this.share = Math.max(this.share * 0.6, 0.01);
    else if (took < FAST) this.share = Math.min(this.share * 1.2, 1);
  }

  draw() {
    const box = this.stage.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    for (const canvas of [this.points.canvas, $("marks")]) {
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    }
    this.width = box.width;
    this.height = box.height;
    if (!this.fitted) this.fit();
    const count = this.places.length / 2;
    const zoomed = Math.sqrt(this.view.scale / this.least);
    const size = Math.max(1.5, Math.min(9, (count > 40_000 ? 2 : count > 5000 ? 3 : 4.5) * zoomed));
    const drawn = this.moving ? Math.max(Math.min(FEWEST, count), Math.round(count * this.share)) : count;
    this.points.draw({ ...this.view, scale: this.view.scale * ratio }, size * ratio, drawn);
    this.drawMarks(ratio, Math.max(5, size));
    this.stage.dataset.drawn = String(Number(this.stage.dataset.drawn || 0) + 1);
  }

  drawMarks(ratio, size) {
    const context = $("marks").getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const style = getComputedStyle(document.documentElement);
    const ring = (row, radius, width, color) => {
      const [x, y] = this.screen(row);
      context.beginPath();
      context.arc(x, y, radius, 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = style.getPropertyValue(color);
      context.stroke();
    };
    for (const row of this.marked) {
      ring(row, size + 2, 4, "--surface");
      ring(row, size + 2, 2, "--ink");
    }
    for (const row of [this.asked, this.pointed, this.hovered].filter((one) => one !== null)) {
      ring(row, size + 5, 6, "--surface");
      ring(row, size + 5, 3, "--accent");
    }
    const around = this.input.lasso ?? this.picked?.map(([x, y]) => this.toScreen(x, y));
    if (around) {
      context.beginPath();
      for (const place of around) context.lineTo(...place);
      context.closePath();
      Object.assign(context, { lineWidth: 2, strokeStyle: style.getPropertyValue("--accent"), fillStyle: style.getPropertyValue("--accent"), globalAlpha: 0.12 });
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
    if (document.activeElement === this.points.canvas && this.input.keys) {
      context.fillStyle = style.getPropertyValue("--ink");
      context.fillRect(this.width / 2 - 8, this.height / 2 - 0.5, 16, 1);
      context.fillRect(this.width / 2 - 0.5, this.height / 2 - 8, 1, 16);
    }
  }

  fit() {
    let [wide, tall] = [0.01, 0.01];
    for (let i = 0; i < this.places.length; i += 2) {
      wide = Math.max(wide, Math.abs(this.places[i]));
      tall = Math.max(tall, Math.abs(this.places[i + 1]));
    }
    this.least = 0.94 * Math.min(this.width / (2 * wide), this.height / (2 * tall));
    this.view = { x: 0, y: 0, scale: this.least };
    this.fitted = true;
  }

  screen(row) {
    return this.toScreen(this.places[2 * row], this.places[2 * row + 1]);
  }

  toScreen(px, py) {
    const { x, y, scale } = this.view;
    return [(px - x) * scale + this.width / 2, (y - py) * scale + this.height / 2];
  }

  place(x, y) {
    return [(x - this.width / 2) / this.view.scale + this.view.x, this.view.y - (y - this.height / 2) / this.view.scale];
  }

  at(x, y, reach) {
    const seen = (row) => !this.hidden.has(this.groups[row]);
    return this.nearest.find(...this.place(x, y), reach / this.view.scale, seen);
  }

  pan(dx, dy) {
    const inside = (value) => Math.max(-1.2, Math.min(1.2, value));
    this.view.x = inside(this.view.x - dx / this.view.scale);
    this.view.y = inside(this.view.y + dy / this.view.scale);
    this.move();
  }

  // The place under (x, y) stays where it is.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.max(this.least * 0.8, Math.min(this.least * 400, this.view.scale * factor));
    const [px, py] = this.place(x, y);
    this.view = { scale, x: px - (x - this.width / 2) / scale, y: py + (y - this.height / 2) / scale };
    this.move();
  }

  // ---- what others show ----

  mark(asked, rows) {
    this.asked = asked;
    this.marked = rows;
    this.pointed = null;
    this.show();
  }

  point(row) {
    if (row === this.pointed) return;
    this.pointed = row;
    this.show();
  }

  // ---- selecting and pointing ----

  // Drawing around points instead of moving the map.
  select(on) {
    this.selecting = on;
    $("lasso").setAttribute("aria-pressed", String(on));
    this.points.canvas.classList.toggle("selecting", on);
  }

  // corners: of what is selected, as places on the map.
  pick(corners) {
    this.picked = corners;
    this.show();
  }

  // Points that are seen and lie inside the corners, which are places on the screen.
  encircle(corners) {
    const rows = [];
    for (let row = 0; row < this.places.length / 2; row++) {
      const [x, y] = this.screen(row);
      if (!this.hidden.has(this.groups[row]) && this.groups[row] !== LEFT_OUT && inside(x, y, corners)) rows.push(row);
    }
    this.select(false);
    this.pick(corners.map((place) => this.place(...place)));
    this.selection.choose(rows, this.about.groups[this.column] || [], this.every, this.column ? palette(this.column) : [plain()]);
  }

  all() {
    this.fitted = false;
    this.show();
  }

  hover(row) {
    if (row === this.hovered) return;
    this.hovered = row;
    this.points.canvas.classList.toggle("over", row !== null);
    this.show();
    clearTimeout(this.waiting);
    if (row === null) show($("tip"), false);
    else this.waiting = setTimeout(() => this.tip(row).catch(() => show($("tip"), false)), WAIT);
  }

  async tip(row) {
    const about = await this.textOf(row);
    if (row !== this.hovered) return;
    const text = about.text.length > LONGEST ? `${about.text.slice(0, LONGEST)}…` : about.text;
    const kept = this.column in about.columns ? [`${this.column}: ${about.columns[this.column] || "blank"}`] : [];
    const labels = [...Object.values(about.labels).map(labelText), ...kept].join("; ");
    const notes = this.input.touched ? [labels, "Tap again to walk there."] : [labels];
    $("tip").replaceChildren(el("span", { class: "text" }, text || "(no text)"), ...notes.map((note) => el("span", { class: "note" }, note)));
    show($("tip"));
    const [x, y] = this.screen(row);
    const { offsetWidth: wide, offsetHeight: tall } = $("tip");
    $("tip").style.left = `${Math.max(4, Math.min(this.width - wide - 4, x - wide / 2))}px`;
    $("tip").style.top = `${y + 18 + tall < this.height ? y + 18 : Math.max(4, y - tall - 18)}px`;
  }
}
