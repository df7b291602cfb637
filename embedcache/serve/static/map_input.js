// How the map is moved and pointed at: mouse, wheel, fingers, keyboard.

const REACH = 14; // pixels from a point at which it is meant

export class MapInput {
  // lasso: what is being drawn around points, as places on the screen. keys, touched: what was used last.
  constructor(map) {
    Object.assign(this, { map, pointers: new Map(), moved: 0, lasso: null, keys: false, touched: false });
  }

  listen() {
    const { map } = this;
    const { canvas } = map.points;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      map.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && map.hover(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => map.hover(null));
  }

  down(event) {
    this.map.points.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (this.pointers.size === 1) this.moved = 0;
    this.lasso = this.map.selecting && this.pointers.size === 1 ? [[event.offsetX, event.offsetY]] : null;
    if (this.lasso) this.map.hover(null);
    this.keys = false;
  }

  drag(event) {
    const last = this.pointers.get(event.pointerId);
    const now = [event.offsetX, event.offsetY];
    if (!last) {
      this.touched = false;
      this.map.hover(this.map.at(...now, REACH));
      return;
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.pointers.set(event.pointerId, now);
    this.moved += Math.hypot(now[0] - last[0], now[1] - last[1]);
    if (others.length) {
      const apart = (one) => Math.max(10, Math.hypot(one[0] - others[0][0], one[1] - others[0][1]));
      this.map.zoom(apart(now) / apart(last), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
    } else if (this.lasso) {
      this.lasso.push(now);
      this.map.show();
    } else if (this.moved > 4) {
      this.map.hover(null);
      this.map.pan(now[0] - last[0], now[1] - last[1]);
    }
  }

  up(event) {
    const single = this.pointers.size === 1;
    this.pointers.delete(event.pointerId);
    const { lasso } = this;
    this.lasso = null;
    if (lasso && lasso.length > 2) {
      this.map.encircle(lasso);
      return;
    }
    if (!single || this.moved > 4) return;
    const touch = event.pointerType !== "mouse";
    this.touched = touch;
    const row = this.map.at(event.offsetX, event.offsetY, touch ? 2 * REACH : REACH);
    // A finger cannot hover: its first tap shows the text, the second one opens it.
    if (touch && row !== this.map.hovered) this.map.hover(row);
    else if (row !== null) this.map.open(row);
  }

  key(event) {
    const { map } = this;
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) map.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") map.zoom(1.4);
    else if (event.key === "-") map.zoom(1 / 1.4);
    else if (event.key === "0") map.all();
    else if (event.key === "s") map.encircle([[0, 0], [map.width, 0], [map.width, map.height], [0, map.height]]);
    else if (event.key === "Enter" && map.hovered !== null) map.open(map.hovered);
    else if (event.key === "Escape") map.hover(null);
    else if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    this.keys = true;
    this.touched = false;
    if (event.key !== "Escape") requestAnimationFrame(() => map.hover(map.at(map.width / 2, map.height / 2, 1000)));
  }
}
