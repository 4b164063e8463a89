// Draws the map: layers down, experts across; and lets one be chosen. Knows colours and places.

const FADE_MS = 800;
const INSET = 0.22;
const LEFT = 26;
const LIGHT = {
  ground: "#ffffff", ink: "#55606e", absent: "#e6eaf0", here: "#9fc3e6", kept: "#3c78b4", mark: "#17202b",
  used: "#f2a900", read: "#d9480f", guessed: "#2f9e44", vain: "#c2255c",
  heat: ["#eef2f7", "#bcd7f0", "#5f9fd8", "#1d5fa3", "#0b2f5c"], a: "#c2410c", b: "#1558a6", same: "#e6eaf0",
};
const DARK = {
  ground: "#171c22", ink: "#a2aebb", absent: "#232b34", here: "#2f5278", kept: "#5794cf", mark: "#ffffff",
  used: "#ffd43b", read: "#ff7b47", guessed: "#51cf66", vain: "#f06595",
  heat: ["#202832", "#1f4468", "#2f78b8", "#74b9f5", "#e3f2ff"], a: "#ff9357", b: "#5fb0ff", same: "#2a333d",
};

export const FLASHES = ["vain", "guessed", "read", "used"];

export function palette() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  return dark ? DARK : LIGHT;
}

const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

/** A colour between two. */
export function mixed(from, to, part) {
  const [a, b] = [rgb(from), rgb(to)];
  const t = Math.max(0, Math.min(1, part));
  return `rgb(${a.map((value, n) => Math.round(value + (b[n] - value) * t)).join(" ")})`;
}

/** A colour on the way through several. */
export function ramp(colours, part) {
  const at = Math.max(0, Math.min(0.9999, part || 0)) * (colours.length - 1);
  return mixed(colours[Math.floor(at)], colours[Math.floor(at) + 1], at % 1);
}

export class ExpertMap {
  /** `choose` is told which place was chosen. */
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.choose = choose;
    this.chosen = null;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    canvas.addEventListener("pointerdown", (event) => this.#point(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Draw `paint(place)` for every place; returns whether something is still fading. */
  draw({ layers, n }, paint, flashes = null) {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const width = canvas.parentElement.clientWidth;
    const down = layers.length;
    const across = (width - LEFT) / n;
    const high = Math.max(5, Math.min(15, Math.round(Math.max(across, 300 / down))));
    this.shape = { n, down, across, high };
    const height = high * down + 18;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    const colours = palette();
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = colours.ground;
    pen.fillRect(0, 0, width, height);
    const gap = Math.min(across, high) >= 5 ? 1 : 0;
    const box = (place) => [LEFT + (place % n) * across, Math.floor(place / n) * high, across - gap, high - gap];
    for (let place = 0; place < n * down; place += 1) {
      pen.fillStyle = paint(place, colours);
      pen.fillRect(...box(place));
    }
    const fading = flashes ? this.#flash(pen, flashes, colours, box) : false;
    this.#write(pen, colours, layers);
    if (this.chosen !== null && this.chosen < n * down) {
      const [x, y, w, h] = box(this.chosen);
      pen.strokeStyle = colours.mark;
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, y - 1, w + 2, h + 2);
    }
    return fading;
  }

  #flash(pen, flashes, colours, box) {
    const now = performance.now();
    let fading = false;
    for (const name of FLASHES) {
      pen.fillStyle = colours[name];
      const times = flashes[name];
      for (let place = 0; place < times.length; place += 1) {
        const left = 1 - (now - times[place]) / FADE_MS;
        if (!(left > 0)) continue;
        fading = true;
        pen.globalAlpha = this.still.matches ? 1 : Math.min(1, left * 1.4);
        const [x, y, w, h] = box(place);
        // Where there is room, use is a mark within the cell: what is in memory stays to be seen.
        const [side, top] = name === "used" && Math.min(w, h) >= 7 ? [w * INSET, h * INSET] : [0, 0];
        pen.fillRect(x + side, y + top, w - 2 * side, h - 2 * top);
      }
    }
    pen.globalAlpha = 1;
    return fading;
  }

  /** Numbers of layers at the left, of experts below. */
  #write(pen, colours, layers) {
    const { n, down, across, high } = this.shape;
    pen.fillStyle = colours.ink;
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const rows = Math.max(1, Math.ceil(14 / high));
    for (let row = 0; row < down; row += rows) pen.fillText(String(layers[row]), LEFT - 6, (row + 0.5) * high);
    pen.textAlign = "center";
    const steps = [1, 2, 4, 8, 16, 32, 64, 128].find((step) => step * across >= 22) ?? 256;
    for (let expert = 0; expert < n; expert += steps) pen.fillText(String(expert), LEFT + (expert + 0.5) * across, down * high + 9);
  }

  #point(event) {
    if (!this.shape) return;
    const { n, down, across, high } = this.shape;
    const expert = Math.floor((event.offsetX - LEFT) / across);
    const row = Math.floor(event.offsetY / high);
    if (expert >= 0 && expert < n && row < down) this.#take(row * n + expert);
  }

  #key(event) {
    const { n, down } = this.shape ?? {};
    const at = this.chosen ?? -1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: n, ArrowUp: -n, Home: -(at % n), End: n - 1 - (at % n) }[event.key];
    if (!n || (step === undefined && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Escape") this.#take(null);
    else if (at < 0) this.#take(0);
    else if (at + step >= 0 && at + step < n * down) this.#take(at + step);
  }

  #take(place) {
    this.chosen = place;
    this.choose(place);
  }
}
