// What is known of the experts, in words and numbers. Draws nothing.

import { el, bytes, percent, number } from "./dom.js";
import * as watch from "./watch.js";
import { fits } from "./pictures.js";

const MOST_NAMED = 4;

const times = (n) => (n === 1 ? "once" : `${number(n)} times`);

/** What is in memory, in a sentence. */
export function gist() {
  const { model, isOpen, hasNone } = watch;
  if (hasNone) return "This model has no experts: all of it is in memory.";
  if (!model) return isOpen ? "Waiting for the server to tell." : "The server does not answer.";
  const { here, all, count } = watch.memory();
  const gone = isOpen ? "" : "The server does not answer; this is how it was. ";
  if (!model.streamed) return `${gone}All ${number(model.places)} experts are in memory (${bytes(all)}); nothing is read from disk. The map shows which of them are used.`;
  return `${gone}${number(count)} of ${number(model.places)} experts are in memory (${bytes(here)} of ${bytes(all)}); the others are read from disk as they are needed.`;
}

/** From when on the figures count. */
export function since() {
  if (!watch.model?.streamed) return "";
  return watch.answer ? "Since the last question:" : "Since the server was started:";
}

/** Hits, bytes, waiting: of the answer that is written or was last. */
export function figures() {
  const { totals, answer, model } = watch;
  if (!model?.streamed) return [];
  const since = (name) => (totals[name] ?? 0) - (answer?.from?.[name] ?? 0);
  const asked = since("hits") + since("misses");
  const rows = [
    ["Found ready", asked ? percent(since("hits") / asked) : "–", "Experts that were in memory when they were needed"],
    ["Read ahead", number(since("foreseen")), "Hits that are there because they were read ahead"],
    ["Read from disk", bytes(Math.max(0, since("read_bytes"))), "Bytes of experts that were not in memory, or were read ahead"],
    ["Waited for disk", `${since("stall_s").toFixed(2)} s`, "Time in which the answer stood still for reads"],
  ];
  return rows.map(([name, value, title]) => el("div", { title }, el("dt", {}, name), el("dd", {}, value)));
}

/** All that is known of one expert, its uses those of a picture. */
export function detail(place, picture) {
  const { model, state } = watch;
  if (place === null || !model) return "Click an expert, or choose one with the arrow keys.";
  const row = Math.floor(place / model.n);
  const uses = fits(picture) ? picture.uses[place] : 0;
  const share = fits(picture) ? watch.shares(picture.uses)[place] : 0;
  const ago = watch.last[place] ? (performance.now() - watch.last[place]) / 1000 : null;
  const kept = model.streamed && state[place] & watch.KEPT;
  const where = state[place] & watch.IN_MEMORY ? (kept ? "kept in memory" : "in memory") : "on disk";
  const used = uses ? `Used ${times(uses)}, ${(100 * share).toFixed(1)} % of its layer's uses` : "Not used in what is shown";
  const last = ago === null ? "" : `, last ${ago < 1 ? "just now" : `${ago.toFixed(0)} s ago`}`;
  const read = model.streamed ? ` Read from disk ${times(watch.reads[place])}.` : "";
  return `Layer ${model.layers[row]}, expert ${place % model.n}: ${where}, ${bytes(model.bytes[row])}. ${used}${last}.${read}`;
}

/** The map in words: a row a layer. */
export function table(picture) {
  const { model, state } = watch;
  const uses = fits(picture) ? watch.shares(picture.uses) : new Float64Array(model.places);
  const rows = model.layers.map((layer, row) => {
    const places = Array.from({ length: model.n }, (_, expert) => row * model.n + expert);
    const here = places.filter((place) => state[place] & watch.IN_MEMORY).length;
    const most = places.filter((place) => uses[place] > 0).sort((x, y) => uses[y] - uses[x]).slice(0, MOST_NAMED);
    return el("tr", {}, el("th", { scope: "row" }, String(layer)), el("td", { class: "end" }, `${here} of ${model.n}`),
      el("td", {}, most.map((place) => `${place % model.n} (${percent(uses[place])})`).join(", ") || "none"));
  });
  const heads = ["Layer", "In memory", "Most used experts (share of uses)"].map((head) => el("th", { scope: "col" }, head));
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}
