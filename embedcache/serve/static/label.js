// The queue: one text at a time, a key a label. The next rows are there before the key is pressed, and labels are saved
// behind the person's back, in order, each with an id of its own: what is sent twice is written once.

import { call } from "./api.js";
import { classMark, dot } from "./colors.js";
import { $, el, labelText, plural, show } from "./dom.js";
import { showProgress } from "./label_progress.js";

const AHEAD = 8; // rows that are fetched before they are needed
const KEYS = "123456789qwertyopadfgjklzxvbm"; // of the classes; others stand on buttons: c h n s u
const AGAIN = 2000; // milliseconds before what could not be saved is sent again
const POLL = 1500;
const NEIGHBOURS = 5;

const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export class LabelView {
  constructor() {
    Object.assign(this, { rows: [], current: null, done: [], unsaved: [], chosen: new Set(), round: -1, among: null, near: new Map() });
    Object.assign(this, { filling: null, saving: false, polling: 0, wanted: 0 });
  }

  async open() {
    this.state = await call("labelling");
    this.lists = this.state.kind === "multilabel";
    this.numbers = this.state.kind === "regression";
    $("queue").replaceChildren(...this.state.queues.map((name) => el("option", { value: name }, QUEUES[name] ?? name)));
    $("who").value = localStorage.getItem("embedcache-who") || "";
    this.listen();
    this.makeButtons();
    await this.fill();
    this.poll();
  }

  get who() {
    return $("who").value.trim();
  }

  listen() {
    $("who").addEventListener("change", () => {
      localStorage.setItem("embedcache-who", this.who);
      this.restart();
    });
    $("queue").addEventListener("change", () => {
      this.among = null;
      this.restart();
    });
    $("hide-guess").addEventListener("change", () => this.showGuess());
    $("label-skip").addEventListener("click", () => this.skip());
    $("label-undo").addEventListener("click", () => this.undo());
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.unsaved.length) event.preventDefault();
    });
  }

  key(event) {
    if (document.body.dataset.view !== "label" || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const field = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && field) return field.blur();
    if (field) return this.keyInField(event, field);
    if (event.key === "Enter" && this.lists && !event.target.closest("button, a")) return this.give([...this.chosen]);
    const pressed = event.key.toLowerCase();
    const button = document.querySelector(`#label-buttons [data-key="${CSS.escape(pressed)}"]`);
    const named = { s: $("label-skip"), u: $("label-undo") }[pressed];
    if (button || named) (button || named).click();
    else if (pressed === "h") $("hide-guess").click();
    else if (pressed === "c") $("label-comment").focus();
    else if (pressed === "n" && $("new-class")) $("new-class").focus();
    else return undefined;
    return event.preventDefault();
  }

  keyInField(event, field) {
    if (event.key !== "Enter") return undefined;
    event.preventDefault();
    if (field.id === "new-class") return this.addClass();
    if (field.id === "label-number") return this.giveNumber();
    return field.blur();
  }

  // ---- what is shown ----

  makeButtons() {
    const { classes } = this.state;
    if (this.numbers) {
      $("label-buttons").replaceChildren(
        el("label", { for: "label-number" }, this.state.column), el("input", { id: "label-number", type: "number", step: "any", autocomplete: "off" }),
        el("button", { type: "button", onclick: () => this.giveNumber() }, "Save ", el("kbd", {}, "Enter")));
      return;
    }
    const buttons = classes.map((name, i) => el("button", {
      type: "button", class: "label-button", "data-key": KEYS[i] ?? null, "data-class": name, "aria-pressed": this.lists ? "false" : null,
      "aria-keyshortcuts": KEYS[i] ?? null, onclick: () => this.press(name),
    }, KEYS[i] ? el("kbd", {}, KEYS[i]) : null, dot(classMark(i)), el("span", { class: "label-name" }, name)));
    const save = this.lists ? el("button", { type: "button", class: "save", onclick: () => this.give([...this.chosen]) }, "Save ", el("kbd", {}, "Enter")) : null;
    const fresh = el("span", { class: "line" }, el("label", { class: "hidden-title", for: "new-class" }, "New class"),
      el("input", { id: "new-class", maxlength: 200, placeholder: "New class (n)", autocomplete: "off" }),
      el("button", { type: "button", onclick: () => this.addClass() }, "Add"));
    $("label-buttons").replaceChildren(...buttons, ...[save, fresh].filter(Boolean));
  }

  press(name) {
    if (!this.lists) return this.give(name);
    if (!this.chosen.delete(name)) this.chosen.add(name);
    return this.showChosen();
  }

  showChosen() {
    for (const button of document.querySelectorAll("#label-buttons [data-class]")) {
      if (this.lists) button.setAttribute("aria-pressed", String(this.chosen.has(button.dataset.class)));
    }
  }

  addClass() {
    const name = $("new-class").value.trim();
    if (!name) return $("new-class").focus();
    $("new-class").value = "";
    $("new-class").blur();
    if (!this.state.classes.includes(name)) {
      this.state.classes.push(name);
      this.makeButtons();
    }
    if (this.lists) {
      this.chosen.add(name);
      return this.showChosen();
    }
    return this.give(name);
  }

  giveNumber() {
    const field = $("label-number");
    if (field.value === "" || !Number.isFinite(field.valueAsNumber)) return field.focus();
    const value = field.valueAsNumber;
    return this.give(value);
  }

  next() {
    this.current = this.rows.shift() ?? null;
    this.chosen = new Set(this.lists && Array.isArray(this.current?.label) ? this.current.label : []);
    $("label-comment").value = "";
    if ($("label-number")) {
      $("label-number").value = "";
      $("label-number").focus();
    }
    this.showCurrent();
    this.fill().catch((problem) => this.complain(problem));
  }

  showCurrent() {
    const { current } = this;
    $("label-card").dataset.row = current ? String(current.row) : "";
    $("label-reason").textContent = current ? current.reason : "";
    $("label-text").textContent = current ? current.text : this.filling ? "Loading…" : "Nothing is left to show here. Choose another queue above, or look at the rows that people differ on.";
    $("label-comments").replaceChildren(...(current?.comments ?? []).map((one) => el("p", { class: "note" }, `${one.who || "somebody"}: ${one.comment}`)));
    for (const button of $("label-card").querySelectorAll("button")) if (button.id !== "label-undo") button.disabled = !current;
    $("label-undo").disabled = !this.done.length;
    this.showChosen();
    this.showGuess();
  }

  // What may lead: the label that the row has, the guess, and the labels of its neighbours.
  showGuess() {
    const { current } = this;
    const hidden = $("hide-guess").checked;
    const parts = [];
    if (current && !hidden) {
      if (current.label !== null) parts.push(el("span", { class: "line" }, "Has the label", el("strong", {}, this.chip(current.label))));
      if (current.guess !== null) parts.push(el("span", { class: "line" }, "Guess", el("strong", {}, this.numbers ? labelText(current.guess) : this.chip(current.guess)), current.probability === null ? "" : ` ${Math.round(100 * current.probability)} %`));
    }
    parts.push(el("span", { class: "note" }, current ? (current.id === null ? `row ${current.row}` : current.id) : ""));
    $("label-now").replaceChildren(...parts);
    show($("label-near"), Boolean(current) && !hidden);
    if (current && !hidden) this.showNeighbours(current.row);
  }

  async showNeighbours(row) {
    const found = await this.neighbours(row).catch(() => []);
    if (this.current?.row !== row) return;
    $("label-neighbours").replaceChildren(...found.map((one) => el("li", {},
      el("span", { class: "score" }, one.score.toFixed(3)), el("span", { class: "text" }, one.text),
      this.chip(one.labels[this.state.column]))));
  }

  // A label with its colour, as on its button.
  chip(label) {
    const place = this.state.classes.indexOf(Array.isArray(label) ? label[0] : label);
    return el("span", { class: "chip" }, place < 0 ? null : dot(classMark(place)), labelText(label));
  }

  neighbours(row) {
    if (!this.near.has(row)) {
      if (this.near.size > 200) this.near.clear();
      this.near.set(row, call("search", { body: { row, k: NEIGHBOURS, dedupe: true } }).then((answer) => answer.results));
    }
    return this.near.get(row);
  }

  // ---- rows ahead ----

  get held() {
    return [this.current, ...this.rows, ...this.unsaved.map((one) => one.shown)].filter(Boolean).map((one) => one.row);
  }

  fill() {
    if (this.filling || this.rows.length >= AHEAD / 2) return this.filling ?? Promise.resolve();
    const wanted = this.wanted;
    this.filling = call("labelling/next", { body: { who: this.who, count: AHEAD, queue: $("queue").value, held: this.held, ...(this.among ? { among: this.among } : {}) } })
      .then(({ rows, notes }) => {
        this.filling = null;
        if (wanted !== this.wanted) return this.fill();
        this.rows.push(...rows);
        $("label-reason").title = notes.join("; ");
        if (this.among) this.among = this.among.filter((row) => !rows.some((one) => one.row === row));
        if (this.among && !this.among.length) this.among = null;
        for (const one of rows.slice(0, 2)) if (!$("hide-guess").checked) this.neighbours(one.row).catch(() => {});
        if (!this.current && this.rows.length) this.next();
        else if (!this.current) this.showCurrent();
        return undefined;
      }, (problem) => {
        this.filling = null;
        throw problem;
      });
    return this.filling;
  }

  // Another queue or person: what was fetched is not for them.
  restart() {
    this.wanted += 1;
    this.rows = [];
    this.current = null;
    show($("label-problem"), false);
    this.showCurrent();
    this.fill().catch((problem) => this.complain(problem));
  }

  // The texts that were chosen on the map.
  labelThese(rows) {
    this.among = [...rows];
    $("label-chosen").replaceChildren(`${plural(rows.length, "text")} that you chose on the map. `, el("button", { type: "button", onclick: () => {
      this.among = null;
      show($("label-chosen"), false);
      this.restart();
    } }, "Back to the queue"));
    show($("label-chosen"));
    this.restart();
  }

  // ---- what is given ----

  give(label) {
    if (!this.current) return;
    const names = Array.isArray(label) ? label : [label];
    const fresh = !this.numbers && names.some((name) => !(name in this.state.counts));
    this.write({ action: "label", label, ...(fresh ? { new: true } : {}) });
  }

  skip() {
    if (this.current) this.write({ action: "skip" });
  }

  write(what) {
    const comment = $("label-comment").value.trim();
    const shown = this.current;
    const one = { id: random(), row: shown.row, who: this.who, queue: shown.queue, ...what, ...(comment ? { comment } : {}) };
    this.done.push({ one, shown });
    this.unsaved.push({ one, shown });
    $("label-saved").textContent = "Saving…";
    this.next();
    this.save();
  }

  undo() {
    const last = this.done.pop();
    if (!last) return;
    this.unsaved.push({ one: { id: random(), row: last.one.row, who: last.one.who, action: "undo", undoes: last.one.id }, shown: last.shown });
    if (this.current) this.rows.unshift(this.current);
    this.rows.unshift(last.shown);
    this.next();
    this.save();
  }

  async save() {
    if (this.saving || !this.unsaved.length) return;
    this.saving = true;
    const batch = this.unsaved.slice(0, 50);
    try {
      const { state } = await call("labelling/labels", { body: { labels: batch.map(({ one }) => one) } });
      this.unsaved.splice(0, batch.length);
      show($("label-problem"), false);
      this.tell(batch.at(-1).one);
      this.take(state);
      this.changed = true; // the map is coloured anew when it is looked at
    } catch (problem) {
      const lasting = problem.status >= 400 && problem.status < 500 && problem.status !== 429 && problem.status !== 408;
      if (lasting && batch.length === 1) this.giveBack(problem);
      else if (lasting) await this.saveOneByOne(batch);
      else {
        this.complain(problem, `${plural(this.unsaved.length, "label")} not saved yet, sent again in a moment: `);
        await new Promise((done) => setTimeout(done, AGAIN));
      }
    }
    this.saving = false;
    this.save();
  }

  async saveOneByOne(batch) {
    for (const { one } of batch) {
      try {
        await call("labelling/labels", { body: { labels: [one] } });
        this.unsaved.shift();
      } catch (problem) {
        this.giveBack(problem);
      }
    }
  }

  // The server will never take it: the row comes back, with the reason.
  giveBack(problem) {
    const { one, shown } = this.unsaved.shift();
    this.done = this.done.filter((other) => other.one.id !== one.id);
    if (this.current) this.rows.unshift(this.current);
    this.rows.unshift(shown);
    this.next();
    this.complain(problem, "Not saved: ");
  }

  tell(one) {
    const what = { skip: "Skipped", undo: "Undone" }[one.action] ?? `Saved: ${labelText(one.label)}`;
    $("label-saved").textContent = this.unsaved.length ? `${what}, ${this.unsaved.length} to go` : what;
  }

  take(state) {
    const classes = [...state.classes, ...this.state.classes.filter((name) => !state.classes.includes(name))];
    const changed = classes.join("\0") !== this.state.classes.join("\0");
    this.state = { ...state, classes };
    if (changed && !this.numbers) {
      this.makeButtons();
      this.showChosen();
    }
  }

  complain(problem, before = "") {
    if (problem.name === "AbortError") return;
    $("label-problem").textContent = before + problem.message;
    $("label-saved").textContent = "";
    show($("label-problem"));
  }

  // ---- progress ----

  async poll() {
    let training = false;
    if (document.body.dataset.view === "label" && !document.hidden) {
      try {
        const found = await call(`labelling/progress?who=${encodeURIComponent(this.who)}`);
        training = found.training;
        showProgress($("label-figures"), found, this.state);
        if (found.round !== this.round) this.ranked(found.round);
      } catch (problem) {
        if (!this.unsaved.length) this.complain(problem);
      }
    }
    this.polling = setTimeout(() => this.poll(), training ? POLL : 2 * POLL);
  }

  // The queue was ranked anew: what was fetched for later is dropped; what comes next stays, it may be read already.
  ranked(round) {
    const first = this.round < 0;
    this.round = round;
    this.changed = !first || this.changed;
    if (first || this.among || this.rows.length < 2) return;
    this.rows.splice(1);
    this.fill().catch((problem) => this.complain(problem));
  }
}

const QUEUES = {
  mixed: "a mix", errors: "likely errors", uncertain: "uncertain", unlike: "unlike any labelled", rare: "rare classes", typical: "typical", random: "by chance",
};
