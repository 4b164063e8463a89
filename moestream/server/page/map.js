// Draws the map: layers down, experts across; and lets one be chosen. Knows places and pixels.

import { mixed, palette, pixel } from "./colours.js";

const FADE_MS = 800;
const INSET = 0.22;
const [LEFT, TOP, BELOW] = [26, 6, 18];
const NARROWEST = 2;
const [LOWEST, HIGHEST, MAP_HEIGHT] = [5, 15, 300];
const GAP_FROM = 5;
const INSET_FROM = 7;
const FLASHES = ["used", "vain", "guessed", "read"]; // a later one hides those before it
const COVER = 0.8; // of what a cell is, by what happens in it

export class ExpertMap {
  /** `choose` is told which place was chosen. */
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.choose = choose;
    this.chosen = null;
    this.small = document.createElement("canvas"); // a pixel an expert
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    canvas.addEventListener("pointerdown", (event) => this.#point(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Draw: `fill` sets a pixel a place; `flashes` tell when, by kind. Returns whether one fades still. */
  draw({ layers, n }, fill, flashes = null) {
    const down = layers.length;
    this.#fit(n, down);
    const { across, high } = this.shape;
    const pen = this.canvas.getContext("2d");
    const colours = palette();
    const scale = devicePixelRatio || 1;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = colours.ground;
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const image = new ImageData(n, down);
    const pixels = new Uint32Array(image.data.buffer);
    fill(pixels);
    const inner = Math.min(across, high) >= INSET_FROM ? [] : null;
    const fading = flashes ? this.#flash(pixels, flashes, colours, inner) : false;
    this.small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.small, LEFT, TOP, n * across, down * high);
    if (Math.min(across, high) >= GAP_FROM) {
      for (let x = 1; x <= n; x += 1) pen.fillRect(Math.round(LEFT + x * across) - 1, TOP, 1, down * high);
      for (let y = 1; y <= down; y += 1) pen.fillRect(LEFT, TOP + y * high - 1, n * across, 1);
    }
    this.#marks(pen, inner ?? [], colours);
    this.#write(pen, colours, layers);
    return fading;
  }

  #fit(n, down) {
    const { canvas } = this;
    const room = canvas.parentElement.clientWidth;
    const across = Math.max((room - LEFT) / n, NARROWEST);
    const high = Math.max(LOWEST, Math.min(HIGHEST, Math.round(Math.max(across, MAP_HEIGHT / down))));
    this.shape = { n, down, across, high };
    const [width, height] = [LEFT + across * n, TOP + high * down + BELOW];
    const scale = devicePixelRatio || 1;
    if (canvas.width === Math.round(width * scale) && canvas.height === Math.round(height * scale) && this.small.width === n) return;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    this.small.width = n;
    this.small.height = down;
  }

  /** Colour what has just happened; use is left to `inner`, if it is there: marks within the cells. */
  #flash(pixels, flashes, colours, inner) {
    const now = performance.now();
    const lasts = inner ? FADE_MS : FADE_MS / 2; // small cells have no room for more than the last
    let fading = false;
    for (const name of FLASHES) {
      const colour = pixel(colours[name]);
      const times = flashes[name];
      for (let place = 0; place < times.length; place += 1) {
        const left = 1 - (now - times[place]) / lasts;
        if (!(left > 0)) continue;
        fading = true;
        const part = this.still.matches ? 1 : Math.min(1, left * 1.4);
        if (name === "used" && inner) inner.push([place, part]);
        else pixels[place] = mixed(pixels[place], colour, inner ? part : part * COVER);
      }
    }
    return fading;
  }

  /** Uses within their cells, so that what is in memory stays to be seen, and the one that is chosen. */
  #marks(pen, inner, colours) {
    const { n, across, high } = this.shape;
    pen.fillStyle = colours.used;
    for (const [place, part] of inner) {
      pen.globalAlpha = part;
      const [x, y] = [LEFT + (place % n) * across, TOP + Math.floor(place / n) * high];
      pen.fillRect(x + across * INSET, y + high * INSET, (across - 1) * (1 - 2 * INSET), (high - 1) * (1 - 2 * INSET));
    }
    pen.globalAlpha = 1;
    if (this.chosen === null || this.chosen >= n * this.shape.down) return;
    pen.strokeStyle = colours.mark;
    pen.lineWidth = 2;
    pen.strokeRect(LEFT + (this.chosen % n) * across - 1, TOP + Math.floor(this.chosen / n) * high - 1, across + 1, high + 1);
  }

  /** Numbers of layers at the left, of experts below. */
  #write(pen, colours, layers) {
    const { n, down, across, high } = this.shape;
    pen.fillStyle = colours.ink;
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const rows = Math.max(1, Math.ceil(14 / high));
    for (let row = 0; row < down; row += rows) pen.fillText(String(layers[row]), LEFT - 6, TOP + (row + 0.5) * high);
    pen.textAlign = "center";
    const steps = [1, 2, 4, 8, 16, 32, 64, 128].find((step) => step * across >= 22) ?? 256;
    for (let expert = 0; expert < n; expert += steps) pen.fillText(String(expert), LEFT + (expert + 0.5) * across, TOP + down * high + 9);
  }

  #point(event) {
    if (!this.shape) return;
    const { n, down, across, high } = this.shape;
    const expert = Math.floor((event.offsetX - LEFT) / across);
    const row = Math.floor((event.offsetY - TOP) / high);
    if (expert >= 0 && expert < n && row >= 0 && row < down) this.#take(row * n + expert);
  }

  #key(event) {
    const { n, down } = this.shape ?? {};
    const at = this.chosen ?? -1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: n, ArrowUp: -n, Home: -(at % n), End: n - 1 - (at % n) }[event.key];
    const leaves = event.key === "Escape" && this.chosen !== null;
    if (!n || (step === undefined && !leaves)) return;
    event.preventDefault();
    event.stopPropagation();
    if (leaves) this.#take(null);
    else if (at < 0) this.#take(0);
    else if (at + step >= 0 && at + step < n * down) this.#take(at + step);
  }

  #take(place) {
    this.chosen = place;
    if (place !== null) this.#bringIntoSight(place);
    this.choose(place);
  }

  /** Where the map is wider than its room, scroll to a place. */
  #bringIntoSight(place) {
    const room = this.canvas.parentElement;
    const x = LEFT + (place % this.shape.n) * this.shape.across;
    if (x < room.scrollLeft + LEFT) room.scrollLeft = x - LEFT;
    else if (x + this.shape.across > room.scrollLeft + room.clientWidth) room.scrollLeft = x - room.clientWidth + LEFT;
  }
}
