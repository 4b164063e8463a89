// The panel of experts: what is in memory and at work, answers and profiles as pictures of use.

import { announce, el, byId, sign, notice, percent, number } from "./dom.js";
import * as watch from "./watch.js";
import * as pictures from "./pictures.js";
import * as facts from "./facts.js";
import { question } from "./settings.js";
import { ExpertMap } from "./map.js";
import { shades } from "./shades.js";
import { forecastPart } from "./forecast.js";

const TEXT_MS = 500;
const FADE_MS = 100; // between two pictures of what fades: the model wants the processor too
const NAME = String.raw`[\p{L}\p{N}_][\p{L}\p{N}_.\-]*`; // as the server takes them
const { shown } = pictures;

let parts = {};
let acts = {};
let map = null;
let due = 0;
let textAt = 0;
let textDue = 0;

export const begin = watch.begin;
export const end = watch.end;
export const connect = watch.connect;

/** Put the panel together in `root`; `chip` tells the gist in the page's head. */
export function start(root, chip, given) {
  acts = given;
  parts = { root, chip, gist: el("p", { class: "gist" }), figures: el("dl", { class: "figures-row" }) };
  parts.canvas = el("canvas", { class: "map", tabindex: "0", role: "application", "aria-label": "Map of the experts: layers down, experts across. Arrow keys choose one.", "aria-describedby": "map-told" });
  parts.told = el("p", { id: "map-told", class: "told" });
  parts.detail = el("p", { class: "detail" });
  parts.legend = el("ul", { class: "legend", "aria-label": "Colours" });
  parts.a = el("select", { id: "show-a", onchange: () => pick("a") });
  parts.b = el("select", { id: "show-b", onchange: () => pick("b") });
  parts.table = el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Experts as a table" });
  parts.fold = el("details", { ontoggle: table }, el("summary", {}, "As a table"), parts.table);
  parts.wide = sign("wide", "Use the whole width", widen, { "aria-pressed": "false" });
  map = new ExpertMap(parts.canvas, () => {
    parts.detail.textContent = facts.detail(map.chosen, pictures.of(shown.a));
    announce(parts.detail.textContent);
    redraw();
  });
  root.append(
    el("div", { class: "row head" }, el("h2", { tabindex: "-1" }, "Experts"), parts.wide, sign("remove", "Close the experts", acts.close)),
    parts.gist, parts.figures,
    el("div", { class: "row picks" },
      el("label", { for: "show-a" }, "Show"), parts.a,
      el("label", { for: "show-b" }, "compared with"), parts.b),
    el("div", { class: "map-place" }, parts.canvas),
    parts.legend, parts.told, parts.detail, parts.fold,
    el("section", { class: "part", "aria-label": "Profiles" }, el("h3", {}, "Profiles"),
      el("p", { class: "hint" }, "A profile tells which experts a kind of work uses, so that the next start has them in memory: moestream serve MODEL --profile NAME"),
      el("button", { type: "button", onclick: save }, "Save what is shown as a profile")),
    forecastPart());
  refresh();
  watch.onNews(news);
  watch.onGone(acts.gone);
  new ResizeObserver(redraw).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  byId("settings").addEventListener("close", redraw);
}

/** The panel is opened or closed. */
export function visible(on) {
  if (!on) return;
  textAt = 0;
  profiles();
  refresh();
  news();
}

/** Show the experts of an answer, by its message. */
export async function showPicture(message) {
  shown.b = "";
  await pictures.choose("a", message);
  refresh();
  write();
  redraw();
}

/** There may be more to choose from. */
export function refresh() {
  for (const side of ["a", "b"]) {
    const option = ([value, name]) => el("option", { value, selected: shown[side] === value }, name);
    const groups = pictures.choices(side).filter(([, options]) => options.length);
    parts[side].replaceChildren(...groups.flatMap(([label, options]) =>
      (label ? [el("optgroup", { label }, ...options.map(option))] : options.map(option))));
  }
}

function news() {
  chip();
  if (parts.root.hidden) return;
  textDue ||= setTimeout(write, TEXT_MS - Math.min(TEXT_MS, performance.now() - textAt));
  redraw();
}

function chip() {
  const { model, isOpen } = watch;
  if (!model || !isOpen) {
    if (!isOpen) parts.chip.textContent = "Server gone";
    return;
  }
  const share = watch.memory().count / model.places;
  const [much, what] = model.streamed ? [percent(share), "of experts "] : ["All", "experts "];
  parts.chip.replaceChildren(`${much} `, el("span", { class: "wide" }, what), "in memory");
}

/** What is told in words. */
function write() {
  clearTimeout(textDue);
  textDue = 0;
  textAt = performance.now();
  parts.gist.textContent = `${facts.gist()} ${facts.since()}`;
  if (!watch.model) return;
  parts.figures.replaceChildren(...facts.figures());
  parts.detail.textContent = facts.detail(map.chosen, pictures.of(shown.a));
  table();
}

function table() {
  if (parts.fold.open && watch.model) parts.table.replaceChildren(facts.table(pictures.of(shown.a)));
}

/** Draw soon; and again while something fades, but leave the processor to the model. */
function redraw() {
  if (due || !watch.model || parts.root.hidden) return;
  due = setTimeout(() => requestAnimationFrame(() => {
    due = 0;
    if (paint()) redraw();
  }), FADE_MS);
}

function paint() {
  const { fill, legend, told, flashes } = shades();
  parts.told.textContent = told;
  const entries = JSON.stringify(legend);
  if (parts.legend.dataset.told !== entries) {
    parts.legend.dataset.told = entries;
    parts.legend.replaceChildren(...legend.map(([colour, name]) => {
      const swatch = el("i", { "aria-hidden": "true" });
      swatch.style.background = colour;
      return el("li", {}, swatch, name);
    }));
  }
  return map.draw(watch.model, fill, flashes);
}

function widen() {
  const on = document.body.classList.toggle("wide-experts");
  parts.wide.setAttribute("aria-pressed", String(on));
  redraw();
}

/** Something else is to be shown. */
async function pick(side) {
  try {
    await pictures.choose(side, parts[side].value);
  } catch (error) {
    notice(error.message);
  }
  refresh();
  write();
  redraw();
}

async function profiles() {
  try {
    if (await pictures.findProfiles()) refresh();
  } catch {
    // the server is gone or has no experts, which is told elsewhere
  }
}

async function save() {
  const picture = pictures.of(shown.a);
  if (!pictures.fits(picture) || !picture.tokens) {
    notice("Nothing was used yet, so there is nothing to save: ask something first.");
    return;
  }
  const what = pictures.nameOf(shown.a === "now" ? "opened" : shown.a);
  const told = `Of ${what}: ${number(picture.tokens)} tokens. A name of letters, digits, “.”, “_” and “-”:`;
  const name = (await question({ title: "Save as a profile", told, input: "", label: "Name", does: "Save", pattern: NAME, wanted: "Letters, digits, . _ and -" }))?.trim();
  if (!name) return;
  const known = pictures.hasProfile(name);
  if (known && !(await question({ title: "Replace the profile?", told: `There is a profile “${name}” already.`, does: "Replace" }))) return;
  try {
    await pictures.save(name, picture, known);
    notice(`Saved. Begin with it: moestream serve … --profile ${name}. To see it on the map, choose it beside “Show”.`, true);
    refresh();
  } catch (error) {
    notice(error.message);
  }
}
