// What the experts do, as the server's stream tells it, and what it adds up to here. No screen.

import * as api from "./api.js";

const AGAIN_MS = 1500;
const LAST_FRAME_MS = 600;

/** Null until the stream has begun: { layers, n, k, bytes, streamed, places }. */
export let model = null;
/** By place (row of the layer * experts + expert). */
export let state = new Uint8Array();
export let opened = picture(0);
export let reads = new Uint32Array();
export let last = new Float64Array();
export const flashes = { used: [], read: [], guessed: [], vain: [] };
/** The answer that is being written, or the last one. */
export let answer = null;
export let totals = {};
/** Whether the server tells, as far as is known; and whether its model has no experts to tell of. */
export let isOpen = true;
export let hasNone = false;

const answers = new Set();
let heard = () => {};
let lost = () => {};
let stop = null;

export const IN_MEMORY = 1;
export const KEPT = 2;

function picture(places) {
  return { tokens: 0, uses: new Float64Array(places) };
}

/** Call `then` after all news. */
export function onNews(then) {
  heard = then;
}

/** Call `then` when the server does not answer any more. */
export function onGone(then) {
  lost = then;
}

/** An answer begins: its uses are counted apart from now on. */
export function begin() {
  answer = { ...picture(model?.places ?? 0), from: totals };
  answers.add(answer);
  connect();
  return answer;
}

/** It has ended; resolves to what is to be kept of it, or null. */
export async function end(which) {
  await new Promise((resolve) => setTimeout(resolve, LAST_FRAME_MS));
  answers.delete(which);
  if (document.hidden && !answers.size) stop?.abort();
  return which.tokens ? { tokens: which.tokens, model: `${model.layers.length}x${model.n}`, uses: [...which.uses] } : null;
}

/** Listen, and again where the stream ends; not while the page is hidden and nothing is written. */
export async function connect() {
  if (stop) return;
  stop = new AbortController();
  try {
    const response = await api.ask("/v1/moestream/residency", { signal: stop.signal });
    isOpen = true;
    for await (const event of api.events(response)) {
      const told = JSON.parse(event.data);
      if (event.name === "model") meet(told);
      else take(told);
      heard();
    }
  } catch (error) {
    hasNone = error.status === 404;
    if (hasNone) heard();
    if (hasNone || error.kind === "key") return;
    if (isOpen && error.kind === "gone") {
      isOpen = false;
      heard();
      lost();
    }
  }
  stop = null;
  if (!document.hidden || answers.size) setTimeout(connect, AGAIN_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) connect();
  else if (!answers.size) stop?.abort();
});

function meet(told) {
  const places = told.layers.length * told.num_experts;
  if (model?.places !== places) {
    opened = picture(places);
    reads = new Uint32Array(places);
    last = new Float64Array(places);
    state = new Uint8Array(places);
    for (const name of Object.keys(flashes)) flashes[name] = new Float64Array(places).fill(-Infinity);
    for (const each of answers) Object.assign(each, picture(places));
  }
  model = { layers: told.layers, n: told.num_experts, k: told.num_experts_per_tok, bytes: told.expert_bytes, streamed: told.streamed, budget: told.budget_bytes, places };
  if (told.state) mark(told.state);
  else if (!told.streamed) state.fill(IN_MEMORY);
}

function take(frame) {
  const now = performance.now();
  if (frame.state) mark(frame.state);
  if (Object.keys(frame.totals).length) totals = frame.totals;
  for (const name of Object.keys(flashes)) {
    const pairs = numbers(frame[name]);
    for (let at = 0; at < pairs.length; at += 2) {
      const [place, count] = [pairs[at], pairs[at + 1]];
      flashes[name][place] = now;
      if (name === "read") reads[place] += count;
      if (name !== "used") continue;
      last[place] = now;
      for (const each of [opened, ...answers]) each.uses[place] += count;
    }
  }
  for (const each of [opened, ...answers]) each.tokens += frame.tokens;
}

const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const numbers = (text) => new Uint32Array(decoded(text).buffer);

/** Take over which experts are in memory and kept: a bit a place. */
function mark({ here, kept }) {
  const [memory, stays] = [decoded(here), decoded(kept)];
  const bit = (bytes, place) => (bytes[place >> 3] >> (place & 7)) & 1;
  for (let place = 0; place < state.length; place += 1) {
    state[place] = (bit(memory, place) && IN_MEMORY) | (bit(stays, place) && KEPT);
  }
}

/** Each expert's part of its layer's uses. */
export function shares(uses) {
  const out = new Float64Array(uses.length);
  for (let row = 0; row < uses.length; row += model.n) {
    let sum = 0;
    for (let at = row; at < row + model.n; at += 1) sum += uses[at];
    if (sum) for (let at = row; at < row + model.n; at += 1) out[at] = uses[at] / sum;
  }
  return out;
}

/** Part of their uses that two pictures have in common, on average over the layers. */
export function likeness(a, b) {
  const [one, other] = [shares(a), shares(b)];
  return one.reduce((sum, share, place) => sum + Math.min(share, other[place]), 0) / model.layers.length;
}

/** Bytes of the experts that are in memory, and of all. */
export function memory() {
  let here = 0;
  let all = 0;
  let count = 0;
  for (let place = 0; place < state.length; place += 1) {
    const size = model.bytes[Math.floor(place / model.n)];
    all += size;
    if (state[place] & IN_MEMORY) {
      here += size;
      count += 1;
    }
  }
  return { here, all, count };
}
