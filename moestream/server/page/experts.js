// The panel of experts: what is in memory and at work, answers and profiles as pictures of use.

import { announce, el, byId, sign, bytes, percent, number } from "./dom.js";
import * as api from "./api.js";
import * as watch from "./watch.js";
import { ExpertMap, mixed, palette, ramp } from "./map.js";
import { forecastPart } from "./forecast.js";

const TEXT_MS = 500;
const FRAME_MS = 40;
const FIXED = { now: "Now", answer: "The last answer", opened: "All since this page was opened" };

let parts = {};
let acts = {};
let map = null;
let shown = { a: "now", b: "" };
const pictures = new Map(); // by what a select calls them: { name, tokens, uses }
let due = 0;
let textAt = 0;

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
  map = new ExpertMap(parts.canvas, (place) => {
    detail(place);
    announce(parts.detail.textContent);
    redraw();
  });
  root.append(
    el("div", { class: "row head" }, el("h2", {}, "Experts"), sign("remove", "Close the experts", acts.close)),
    parts.gist, parts.figures,
    el("div", { class: "row picks" },
      el("label", { for: "show-a" }, "Show"), parts.a,
      el("label", { for: "show-b" }, "beside"), parts.b),
    el("div", { class: "map-place" }, parts.canvas),
    parts.legend, parts.told, parts.detail, parts.fold,
    el("section", { class: "part", "aria-label": "Profiles" }, el("h3", {}, "Profiles"),
      el("p", { class: "hint" }, "A profile tells which experts a kind of work uses, so that the next start has them in memory: moestream serve MODEL --profile NAME"),
      el("button", { type: "button", onclick: save }, "Save what is shown as a profile")),
    forecastPart());
  select();
  watch.onNews(news);
  new ResizeObserver(redraw).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  byId("settings").addEventListener("close", redraw);
}

/** The panel is opened or closed. */
export function visible(on) {
  if (!on) return;
  profiles();
  news();
}

/** Show an answer's experts. */
export function showPicture(picture, text) {
  const name = text.trim().replace(/\s+/g, " ").slice(0, 40) || "an answer";
  const key = `picture ${pictures.size}`;
  const known = [...pictures].find(([, each]) => each.uses === picture.uses)?.[0];
  if (!known) pictures.set(key, { name: `Answer: ${name}`, ...picture });
  shown = { a: known ?? key, b: "" };
  select();
  redraw();
}

function news() {
  const { model } = watch;
  if (!model) {
    parts.gist.textContent = "Waiting for the server to tell.";
    return;
  }
  const { here, all, count } = watch.memory();
  const share = count / model.places;
  const [much, what] = model.streamed ? [percent(share), "of experts "] : ["All", "experts "];
  parts.chip.replaceChildren(`${much} `, el("span", { class: "wide" }, what), "in memory");
  if (parts.root.hidden) return;
  if (performance.now() - textAt > TEXT_MS) {
    textAt = performance.now();
    parts.gist.textContent = model.streamed
      ? `${number(count)} of ${number(model.places)} experts are in memory (${bytes(here)} of ${bytes(all)}); the others are read from disk as they are needed.`
      : `All ${number(model.places)} experts are in memory (${bytes(all)}); nothing is read from disk. The map shows which of them are used.`;
    figures();
    detail(map.chosen);
    if (parts.fold.open) table();
  }
  redraw();
}

/** Hits, bytes, waiting: of the answer that is written or was last. */
function figures() {
  const { totals, answer } = watch;
  const since = (name) => (totals[name] ?? 0) - (answer?.from?.[name] ?? 0);
  const asked = since("hits") + since("misses");
  const rows = !watch.model.streamed ? [] : [
    ["Hits", asked ? percent(since("hits") / asked) : "–", "Experts that were in memory when they were needed"],
    ["Guessed", number(since("foreseen")), "Hits that are there because they were read ahead"],
    ["Read", bytes(Math.max(0, since("read_bytes"))), "From disk"],
    ["Waited", `${since("stall_s").toFixed(2)} s`, "For reads"],
  ];
  parts.figures.replaceChildren(...rows.map(([name, value, title]) => el("div", { title }, el("dt", {}, name), el("dd", {}, value))));
}

function pictureOf(key) {
  if (key === "answer") return watch.answer;
  return key === "opened" || key === "now" ? watch.opened : pictures.get(key);
}

const fits = (picture) => picture?.uses.length === watch.model?.places;

/** Draw soon; and again while something fades, but leave the processor to the model. */
function redraw() {
  if (due || !watch.model || parts.root.hidden) return;
  due = setTimeout(() => requestAnimationFrame(() => {
    due = 0;
    if (paint()) redraw();
  }), FRAME_MS);
}

function paint() {
  const { model, state } = watch;
  const [a, b] = [pictureOf(shown.a), pictureOf(shown.b)];
  legend();
  if (shown.b && fits(a) && fits(b)) {
    const [one, other] = [watch.shares(a.uses), watch.shares(b.uses)];
    parts.told.textContent = `${percent(watch.likeness(a.uses, b.uses))} of their uses are the same (${number(a.tokens)} and ${number(b.tokens)} tokens).`;
    return map.draw(model, (place, colours) => {
      const more = (one[place] - other[place]) / Math.max(one[place] + other[place], 0.2 / model.n);
      return mixed(colours.same, more > 0 ? colours.a : colours.b, Math.abs(more));
    });
  }
  if (shown.a !== "now" || !model.streamed) {
    const uses = fits(a) ? watch.shares(a.uses) : new Float64Array(model.places);
    parts.told.textContent = fits(a) && a.tokens ? `Which experts ${number(a.tokens)} tokens used; the darker, the more.`.replace("the darker", palette().ground === "#ffffff" ? "the darker" : "the brighter")
      : "Nothing was used yet: ask something.";
    const heat = (place, colours) => ramp(colours.heat, Math.sqrt((uses[place] * model.n) / 6));
    return map.draw(model, heat, shown.a === "now" ? watch.flashes : null);
  }
  parts.told.textContent = "";
  const look = (place, colours) => (state[place] & watch.IN_MEMORY ? (state[place] & watch.KEPT ? colours.kept : colours.here) : colours.absent);
  return map.draw(model, look, watch.flashes);
}

function legend() {
  const c = palette();
  const entries = shown.b ? [[c.a, "more in the first"], [c.b, "more in the second"], [c.same, "alike"]]
    : shown.a !== "now" ? [[c.heat[0], "not used"], [c.heat[2], "used"], [c.heat[4], "used most"]]
    : watch.model.streamed ? [[c.absent, "on disk"], [c.here, "in memory"], [c.kept, "kept in memory"], [c.used, "used just now"], [c.read, "read from disk"], [c.guessed, "guessed and used"], [c.vain, "guessed in vain"]]
    : [[c.heat[0], "not used yet"], [c.heat[4], "used most"], [c.used, "used just now"]];
  const told = JSON.stringify(entries);
  if (parts.legend.dataset.told === told) return;
  parts.legend.dataset.told = told;
  parts.legend.replaceChildren(...entries.map(([colour, name]) => {
    const swatch = el("i", { "aria-hidden": "true" });
    swatch.style.background = colour;
    return el("li", {}, swatch, name);
  }));
}

const times = (n) => (n === 1 ? "once" : `${number(n)} times`);

/** All that is known of one expert. */
function detail(place) {
  const { model, state } = watch;
  if (place === null || !model) {
    parts.detail.textContent = "Click an expert, or choose one with the arrow keys.";
    return;
  }
  const row = Math.floor(place / model.n);
  const a = pictureOf(shown.a);
  const uses = fits(a) ? a.uses[place] : 0;
  const share = fits(a) ? watch.shares(a.uses)[place] : 0;
  const ago = watch.last[place] ? (performance.now() - watch.last[place]) / 1000 : null;
  const where = state[place] & watch.IN_MEMORY ? (model.streamed && state[place] & watch.KEPT ? "kept in memory" : "in memory") : "on disk";
  const said = [
    `Layer ${model.layers[row]}, expert ${place % model.n}: ${where}, ${bytes(model.bytes[row])}.`,
    uses ? `Used ${times(uses)}, ${(100 * share).toFixed(1)} % of its layer's uses` : "Not used in what is shown",
    ago === null ? "" : `, last ${ago < 1 ? "just now" : `${ago.toFixed(0)} s ago`}`,
    model.streamed ? `. Read from disk ${times(watch.reads[place])}.` : ".",
  ];
  parts.detail.textContent = said[0] + " " + said.slice(1).join("");
}

/** The map in words: a row a layer. */
function table() {
  const { model, state } = watch;
  if (!parts.fold.open || !model) return;
  const a = pictureOf(shown.a);
  const uses = fits(a) ? watch.shares(a.uses) : new Float64Array(model.places);
  const rows = model.layers.map((layer, row) => {
    const places = Array.from({ length: model.n }, (_, expert) => row * model.n + expert);
    const here = places.filter((place) => state[place] & watch.IN_MEMORY).length;
    const most = places.filter((place) => uses[place] > 0).sort((x, y) => uses[y] - uses[x]).slice(0, 4);
    return el("tr", {}, el("th", { scope: "row" }, String(layer)), el("td", { class: "end" }, `${here} of ${model.n}`),
      el("td", {}, most.map((place) => `${place % model.n} (${percent(uses[place])})`).join(", ") || "none"));
  });
  const heads = ["Layer", "In memory", "Most used experts (share of uses)"];
  parts.table.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows)));
}

function select() {
  for (const side of ["a", "b"]) {
    const options = side === "b" ? [["", "nothing"]] : [["now", FIXED.now]];
    options.push(["answer", FIXED.answer], ["opened", FIXED.opened]);
    for (const [key, each] of pictures) options.push([key, each.name]);
    parts[side].replaceChildren(...options.map(([value, name]) => el("option", { value, selected: shown[side] === value }, name)));
  }
}

/** Something else is to be shown; a profile is fetched first. */
async function pick(side) {
  const key = parts[side].value;
  if (key.startsWith("profile ") && !pictures.get(key).uses.length) {
    try {
      const told = await api.get(`/v1/moestream/profiles/${encodeURIComponent(key.slice(8))}`);
      Object.assign(pictures.get(key), { tokens: told.tokens, uses: told.uses.flat() });
    } catch (error) {
      acts.notice(error.message);
    }
  }
  shown[side] = key;
  if (shown.b && shown.a === "now") {
    shown.a = "opened";
    select();
  }
  detail(map.chosen);
  table();
  redraw();
}

async function profiles() {
  try {
    for (const name of (await api.get("/v1/moestream/profiles")).profiles) {
      const key = `profile ${name}`;
      if (!pictures.has(key)) pictures.set(key, { name: `Profile: ${name}`, tokens: 0, uses: [] });
    }
    select();
  } catch {
    // the server is gone or has no experts, which is told elsewhere
  }
}

async function save() {
  const picture = pictureOf(shown.a);
  if (!fits(picture) || !picture.tokens) {
    acts.notice("Nothing was used yet, so there is nothing to save: ask something first.");
    return;
  }
  const name = await acts.question({ title: "Save as a profile", told: `Of ${number(picture.tokens)} tokens. A name of letters, digits, “.”, “_” and “-”:`, input: "", label: "Name", does: "Save" });
  if (!name) return;
  const { n } = watch.model;
  const uses = watch.model.layers.map((_, row) => [...picture.uses.slice(row * n, (row + 1) * n)]);
  try {
    await api.post("/v1/moestream/profiles", { name: name.trim(), tokens: picture.tokens, uses });
    acts.notice(`Saved. Begin with it: moestream serve … --profile ${name.trim()}`, true);
    await profiles();
  } catch (error) {
    acts.notice(error.message);
  }
}
