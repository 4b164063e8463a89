// What the map can show: the present, answers, profiles. Each is a picture of use: { tokens, uses }.

import * as api from "./api.js";
import * as chats from "./chats.js";
import * as watch from "./watch.js";

const MOST_ANSWERS = 40;
const PROFILE = "profile ";
const FIXED = { now: "Now", answer: "The last answer", opened: "All since this page was opened" };

const profiles = new Map(); // by name; empty until one is chosen

/** What is chosen: `a`, and beside it `b` if that is not empty. */
export const shown = { a: "now", b: "" };

export const fits = (picture) => Boolean(watch.model) && picture?.uses?.length === watch.model.places;

const withPictures = () => chats.messages().filter((message) => fits(message.picture)).slice(0, MOST_ANSWERS);

/** The picture of this name. */
export function of(key) {
  if (key === "answer") return watch.answer;
  if (key === "opened" || key === "now") return watch.opened;
  if (key.startsWith(PROFILE)) return profiles.get(key.slice(PROFILE.length));
  return chats.messages().find((message) => message.id === key)?.picture;
}

/** What it is called. */
export function nameOf(key) {
  if (key in FIXED) return FIXED[key];
  if (key.startsWith(PROFILE)) return `profile ${key.slice(PROFILE.length)}`;
  const message = chats.messages().find((each) => each.id === key);
  return message ? `“${short(chats.question(message))}”` : "an answer";
}

const short = (text) => (text.length > 44 ? `${text.slice(0, 43)}…` : text);

/** What can be chosen for a side: groups of [key, name]. */
export function choices(side) {
  const first = side === "b" ? [["", "nothing"]] : [["now", FIXED.now]];
  return [
    ["", [...first, ["answer", FIXED.answer], ["opened", FIXED.opened]]],
    ["Answers to", withPictures().map((message) => [message.id, short(chats.question(message))])],
    ["Profiles", [...profiles.keys()].map((name) => [PROFILE + name, name])],
  ];
}

/** Show this; what is known of a profile is asked for first. */
export async function choose(side, key) {
  const name = key.startsWith(PROFILE) ? key.slice(PROFILE.length) : null;
  if (name !== null && !profiles.get(name)?.uses) {
    const told = await api.get(`/v1/moestream/profiles/${encodeURIComponent(name)}`);
    profiles.set(name, { tokens: told.tokens, uses: told.uses.flat() });
  }
  shown[side] = key;
  if (shown.b && shown.a === "now") shown.a = "opened";
}

/** Ask which profiles there are; returns whether one is new. */
export async function findProfiles() {
  const names = (await api.get("/v1/moestream/profiles")).profiles;
  const fresh = names.filter((name) => !profiles.has(name));
  for (const name of fresh) profiles.set(name, {});
  return fresh.length > 0;
}

export const hasProfile = (name) => profiles.has(name);

/** Keep a picture as a profile, in the place of one of that name where `replace` says so. */
export async function save(name, picture, replace) {
  const { n, layers } = watch.model;
  const uses = layers.map((_, row) => [...picture.uses.slice(row * n, (row + 1) * n)]);
  await api.post("/v1/moestream/profiles", { name, tokens: picture.tokens, uses, replace });
  profiles.set(name, { tokens: picture.tokens, uses: [...picture.uses] });
}
