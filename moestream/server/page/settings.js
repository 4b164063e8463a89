// What requests say beside the messages, the key and the look of the page. Kept in this browser.

import { el, byId } from "./dom.js";
import * as api from "./api.js";
import { read, write } from "./kept.js";

const PLACE = "moestream.settings";
const FIELDS = [
  ["temperature", "Temperature", "0 always takes the likeliest token", { min: 0, step: 0.05 }],
  ["top_p", "Top-p", "Of the likeliest, as many as have this probability together", { min: 0, max: 1, step: 0.05 }],
  ["top_k", "Top-k", "Of the likeliest, so many; 0 is all", { min: 0, step: 1 }],
  ["min_p", "Min-p", "None less likely than this part of the likeliest", { min: 0, max: 1, step: 0.01 }],
  ["repeat_penalty", "Repeat penalty", "1 is none", { min: 0.1, step: 0.05 }],
  ["max_tokens", "Most tokens", "Of an answer; -1 is no limit but the context", { min: -1, step: 1 }],
  ["seed", "Seed", "The same one gives the same answer; empty draws one", { step: 1 }],
];
const EFFORTS = ["", "none", "low", "medium", "high"];

const kept = found();
const save = () => write(PLACE, JSON.stringify(kept));

/** What was saved; nothing, where it cannot be read. */
function found() {
  try {
    return { ...JSON.parse(read(PLACE) ?? "{}") };
  } catch {
    return {};
  }
}

/** The fields of a request that are not the server's defaults. */
export function parameters() {
  const told = {};
  for (const [name] of FIELDS) if (typeof kept[name] === "number") told[name] = kept[name];
  if (kept.reasoning_effort) told.reasoning_effort = kept.reasoning_effort;
  return told;
}

export const systemPrompt = () => kept.system ?? "";

/** Put the chosen look on the page. */
export function applyTheme() {
  document.documentElement.dataset.theme = kept.theme ?? "";
}

/** Open the dialog; `defaults` are what the server does where nothing is said. */
export function open(defaults, changed) {
  const dialog = byId("settings");
  const field = (label, hint, input) => {
    const name = `set-${input.name}`;
    input.id = name;
    if (hint) input.setAttribute("aria-describedby", `${name}-hint`);
    return el("div", { class: "field" }, el("label", { for: name }, label), input,
      hint ? el("small", { id: `${name}-hint` }, hint) : null);
  };
  const system = el("textarea", { name: "system", rows: 4, value: kept.system ?? "" });
  const numbers = FIELDS.map(([name, label, hint, limits]) => {
    const usual = defaults?.[name];
    const shown = name === "seed" || usual === undefined ? "" : `${Math.round(usual * 1e4) / 1e4}`;
    return field(label, hint, el("input", { name, type: "number", ...limits, value: kept[name] ?? "", placeholder: shown }));
  });
  const choice = (name, options) => el("select", { name }, ...options.map(([value, told]) => el("option", { value, selected: (kept[name] ?? "") === value }, told)));
  const efforts = choice("reasoning_effort", EFFORTS.map((e) => [e, e || "as the model does"]));
  const theme = choice("theme", [["", "as the system"], ["light", "light"], ["dark", "dark"]]);
  const key = el("input", { name: "key", type: "password", value: api.key(), autocomplete: "off" });
  const form = el("form", { method: "dialog" },
    el("h2", { id: "settings-title" }, "Settings"),
    field("System prompt", "Comes before every conversation", system),
    el("h3", {}, "Sampling"),
    el("p", { class: "hint" }, "Empty fields are as the server was started."),
    el("div", { class: "grid" }, ...numbers, field("Reasoning", "For models that have it", efforts)),
    el("h3", {}, "This page"),
    el("div", { class: "grid" }, field("Look", "", theme), field("API key", "Where the server wants one; kept in this browser", key)),
    el("div", { class: "row end" },
      el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
      el("button", { type: "submit", class: "primary" }, "Save")));
  form.addEventListener("submit", () => {
    for (const [name] of FIELDS) {
      const value = form.elements[name].value;
      if (value === "" || !Number.isFinite(Number(value))) delete kept[name];
      else kept[name] = Number(value);
    }
    kept.system = system.value;
    kept.reasoning_effort = efforts.value;
    kept.theme = theme.value;
    api.setKey(key.value.trim());
    save();
    applyTheme();
    changed();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

/** Ask something in a small dialog; resolves to what was typed (or true), or null. */
export function question({ title, told, input = null, label = "", does = "OK", kind = "text", pattern = null, wanted = null }) {
  const dialog = byId("ask");
  const field = input === null ? null : el("input", { type: kind, value: input, id: "ask-input", autocomplete: "off", "aria-label": label || title, pattern, title: wanted, required: pattern !== null });
  const form = el("form", { method: "dialog" },
    el("h2", { id: "ask-title" }, title), el("p", {}, told), field,
    el("div", { class: "row end" },
      el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
      el("button", { type: "submit", class: "primary", value: "yes" }, does)));
  dialog.returnValue = "";
  dialog.replaceChildren(form);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? (field ? field.value : true) : null);
    }, { once: true });
  });
}
