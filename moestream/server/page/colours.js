// Colours of the map: by name for legends, as pixels for the map, and those between two.

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

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export const palette = () => (isDark() ? DARK : LIGHT);

/** A colour as a pixel: its bytes are red, green, blue and opacity. */
export function pixel(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
  return (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
}

/** A pixel between two. */
export function mixed(from, to, part) {
  const t = Math.max(0, Math.min(1, part));
  let out = 0xff000000;
  for (const at of [0, 8, 16]) {
    const [one, other] = [(from >>> at) & 255, (to >>> at) & 255];
    out |= Math.round(one + (other - one) * t) << at;
  }
  return out >>> 0;
}

/** A pixel on the way through several. */
export function ramp(pixels, part) {
  const at = Math.max(0, Math.min(0.9999, part || 0)) * (pixels.length - 1);
  return mixed(pixels[Math.floor(at)], pixels[Math.floor(at) + 1], at % 1);
}
