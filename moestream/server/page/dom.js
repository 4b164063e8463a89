// Makes elements. Text is always text: nothing here, or anywhere in this page, reads markup.

/** An element with attributes, listeners (onclick) and children; a string child is a text node. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") made[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  copy: "M7 7h9v9H7zM4 13V4h9",
  edit: "M4 16l1-4 8-8 3 3-8 8zM11.5 5.5l3 3",
  again: "M15.5 7A6.5 6.5 0 1 0 16.5 11M16 3v4.5h-4.5",
  left: "M12 5l-5 5 5 5",
  right: "M8 5l5 5-5 5",
  remove: "M5 5l10 10M15 5L5 15",
  wide: "M3 10h14M6 7l-3 3 3 3M14 7l3 3-3 3",
  onward: "M4 10h11M11 6l4 4-4 4",
};

/** One of the drawn signs; the button around it has its name. */
export function glyph(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "glyph");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that is a sign, called `label`. */
export function sign(name, label, onclick, attributes = {}) {
  const made = { type: "button", class: "quiet icon", "aria-label": label, title: label };
  return el("button", { ...made, ...attributes, onclick }, glyph(name));
}

/** Say something to who does not see the screen. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Tell something at the top of the conversation, until it is closed; nothing closes it. */
export function notice(text, calm = false) {
  const place = byId("notice");
  place.classList.toggle("calm", calm);
  place.replaceChildren(el("span", {}, text), sign("remove", "Close", () => notice("")));
  place.hidden = !text;
}

/** Bytes in words, as the command line writes them. */
export function bytes(n) {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${(n / size).toFixed(n / size < 10 ? 1 : 0)} ${unit}`;
  }
  return `${n} B`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export const number = (n) => n.toLocaleString("en");

/** A file for the user to keep. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
