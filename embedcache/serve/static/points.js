// Draws many points: with WebGL, or on a 2-D canvas where there is none. Both have the same methods.
// The points are shuffled first: no group lies above all others, and any first part of them is a fair sample.

const VERTEX = `
attribute vec2 place; attribute float group;
uniform vec2 center, zoom; uniform float size; uniform vec4 colors[16]; uniform float shapes[16];
varying vec4 color; varying float shape;
void main() {
  color = colors[int(group + 0.5)];
  shape = shapes[int(group + 0.5)];
  gl_Position = color.a == 0.0 ? vec4(9.0, 9.0, 9.0, 1.0) : vec4((place - center) * zoom, 0.0, 1.0);
  gl_PointSize = size;
}`;
const FRAGMENT = `
precision mediump float; varying vec4 color; varying float shape;
void main() {
  vec2 at = gl_PointCoord - 0.5, far = abs(at);
  float reach = shape < 0.5 ? length(at) : shape < 1.5 ? 1.1 * max(far.x, far.y) : shape < 2.5 ? far.x + far.y
    : max(1.1 * at.y, 1.9 * far.x - at.y);
  float edge = 1.0 - smoothstep(0.35, 0.5, reach);
  if (edge == 0.0) discard;
  gl_FragColor = vec4(color.rgb, 1.0) * color.a * edge;
}`;

export const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255);

class Shuffled {
  constructor(canvas, places) {
    const count = places.length / 2;
    this.canvas = canvas;
    this.order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1, seed = 1; i > 0; i--) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      const other = seed % (i + 1);
      [this.order[i], this.order[other]] = [this.order[other], this.order[i]];
    }
    this.places = new Float32Array(2 * count);
    this.order.forEach((row, i) => this.places.set(places.subarray(2 * row, 2 * row + 2), 2 * i));
    this.groups = new Uint8Array(count);
  }

  // groups: one byte of each row.
  setGroups(groups) {
    this.order.forEach((row, i) => (this.groups[i] = groups[row]));
  }
}

class GlPoints extends Shuffled {
  constructor(canvas, gl, places) {
    super(canvas, places);
    Object.assign(this, { gl, colors: new Float32Array(64), shapes: new Float32Array(16) });
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.build();
      this.redraw?.();
    });
    this.build();
  }

  build() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("the shaders do not link");
    gl.useProgram(program);
    this.at = Object.fromEntries(["center", "zoom", "size", "colors", "shapes"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.attribute(program, "place", this.places, 2, gl.FLOAT);
    this.groupBuffer = this.attribute(program, "group", this.groups, 1, gl.UNSIGNED_BYTE);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  attribute(program, name, data, width, kind) {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, kind, false, 0, 0);
    return buffer;
  }

  setGroups(groups) {
    super.setGroups(groups);
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.groupBuffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, this.groups, this.gl.STATIC_DRAW);
  }

  // marks: of each group its color, [red, green, blue, alpha] from 0 to 1, of which alpha 0 hides it, and its shape.
  setMarks(marks) {
    this.colors.fill(0);
    marks.forEach(({ color, shape }, i) => {
      this.colors.set(color, 4 * i);
      this.shapes[i] = shape;
    });
  }

  // view: center x, y and pixels per unit; size: of a point, in pixels; count: how many of them.
  draw(view, size, count) {
    const { gl, canvas, at } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(at.center, view.x, view.y);
    gl.uniform2f(at.zoom, (2 * view.scale) / canvas.width, (2 * view.scale) / canvas.height);
    gl.uniform1f(at.size, size);
    gl.uniform4fv(at.colors, this.colors);
    gl.uniform1fv(at.shapes, this.shapes);
    gl.drawArrays(gl.POINTS, 0, count);
  }
}

function outline(context, x, y, half, shape) {
  context.beginPath();
  if (shape === 0) context.arc(x, y, half, 0, 2 * Math.PI);
  else if (shape === 2) for (const [dx, dy] of [[0, -half], [half, 0], [0, half], [-half, 0]]) context.lineTo(x + dx, y + dy);
  else for (const [dx, dy] of [[0, -half], [half, half], [-half, half]]) context.lineTo(x + dx, y + dy);
  context.fill();
}

class FlatPoints extends Shuffled {
  constructor(canvas, places) {
    super(canvas, places);
    Object.assign(this, { marks: [], context: canvas.getContext("2d") });
  }

  setMarks(marks) {
    this.marks = marks;
  }

  draw(view, size, count) {
    const { canvas, context, places, groups, marks } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const [left, top] = [canvas.width / 2 - view.x * view.scale, canvas.height / 2 + view.y * view.scale];
    const several = marks.some(({ shape }) => shape);
    marks.forEach(({ color: [red, green, blue, alpha], shape }, group) => {
      if (!alpha) return;
      context.fillStyle = `rgba(${255 * red}, ${255 * green}, ${255 * blue}, ${alpha})`;
      for (let i = 0; i < count; i++) {
        if (groups[i] !== group) continue;
        const x = left + places[2 * i] * view.scale;
        const y = top - places[2 * i + 1] * view.scale;
        if (x > -size && y > -size && x < canvas.width + size && y < canvas.height + size) {
          if (several && shape !== 1) outline(context, x, y, size / 2, shape);
          else context.fillRect(x - size / 2, y - size / 2, size, size);
        }
      }
    });
  }
}

export function makePoints(canvas, places) {
  try {
    const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true });
    if (gl) return new GlPoints(canvas, gl, places);
  } catch { /* a driver that cannot: the 2-D canvas can */ }
  if (canvas.getContext("2d")) return new FlatPoints(canvas, places);
  const other = canvas.cloneNode(false); // a canvas has one kind of context for ever
  canvas.replaceWith(other);
  return new FlatPoints(other, places);
}

// Which point is nearest: points sorted into square cells.
export class Nearest {
  constructor(places) {
    const count = places.length / 2;
    this.places = places;
    this.side = Math.max(1, Math.min(1024, Math.ceil(Math.sqrt(count / 3))));
    const cells = new Int32Array(count);
    this.start = new Int32Array(this.side * this.side + 1);
    for (let i = 0; i < count; i++) {
      cells[i] = this.cell(places[2 * i + 1]) * this.side + this.cell(places[2 * i]);
      this.start[cells[i] + 1]++;
    }
    for (let c = 0; c < this.side * this.side; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice();
    this.rows = new Int32Array(count);
    for (let i = 0; i < count; i++) this.rows[next[cells[i]]++] = i;
  }

  cell(value) {
    return Math.max(0, Math.min(this.side - 1, Math.floor(((value + 1) / 2) * this.side)));
  }

  // The row nearest to (x, y) within a radius that may be seen; null where there is none.
  find(x, y, radius, seen) {
    let [best, least] = [null, radius * radius];
    for (let row = this.cell(y - radius); row <= this.cell(y + radius); row++) {
      for (let column = this.cell(x - radius); column <= this.cell(x + radius); column++) {
        const cell = row * this.side + column;
        for (let i = this.start[cell]; i < this.start[cell + 1]; i++) {
          const one = this.rows[i];
          const distance = (this.places[2 * one] - x) ** 2 + (this.places[2 * one + 1] - y) ** 2;
          if (distance <= least && seen(one)) [best, least] = [one, distance];
        }
      }
    }
    return best;
  }
}
