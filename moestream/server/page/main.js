// The page as a whole: meets the server, puts the parts together, shows and hides them.

import { byId, notice } from "./dom.js";
import * as api from "./api.js";
import * as chats from "./chats.js";
import * as composer from "./composer.js";
import * as experts from "./experts.js";
import * as settings from "./settings.js";
import * as talk from "./talk.js";

const AGAIN_MS = 1500;

let defaults = {};

function showChats(on) {
  document.body.classList.toggle("with-chats", on);
  byId("show-chats").setAttribute("aria-expanded", String(on));
}

function showExperts(on) {
  const had = byId("experts").contains(document.activeElement);
  byId("experts").hidden = !on;
  byId("show-experts").setAttribute("aria-expanded", String(on));
  document.body.classList.toggle("with-experts", on);
  experts.visible(on);
  if (on) byId("experts").querySelector("h2").focus();
  else if (had) byId("show-experts").focus();
}

/** Escape leaves the innermost of what is open: the list, the panel one is in, the answer. */
function leave(event) {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const at = document.activeElement;
  const panel = byId("experts");
  if (document.body.classList.contains("with-chats")) {
    showChats(false);
    byId("show-chats").focus();
  } else if (!panel.hidden && (panel.contains(at) || at === byId("show-experts"))) showExperts(false);
  else talk.stop();
}

/** Ask the server what it is; again and again while its model loads, or it is gone. */
async function meet() {
  try {
    const props = await api.get("/props");
    defaults = props.default_generation_settings.params;
    byId("model").textContent = props.model_alias;
    document.title = `${props.model_alias} · moestream`;
    notice("");
    talk.setContext(props.default_generation_settings.n_ctx);
    experts.connect();
  } catch (error) {
    const loads = error.kind === "busy";
    notice(loads ? "The model is being loaded." : error.message, loads);
    if (loads || error.kind === "gone") setTimeout(meet, AGAIN_MS);
  }
}

async function start() {
  settings.applyTheme();
  api.onKeyNeeded(async (wrong) => {
    const told = wrong ? "The server does not take the key that is kept here. What is the right one?" : "This server answers only who has a key. It is kept in this browser.";
    const given = await settings.question({ title: "API key", told, input: "", does: "Use it", kind: "password" });
    if (given) api.setKey(given.trim());
    return Boolean(given);
  });
  byId("show-chats").addEventListener("click", () => showChats(byId("show-chats").getAttribute("aria-expanded") !== "true"));
  byId("show-experts").addEventListener("click", () => showExperts(byId("experts").hidden));
  byId("show-settings").addEventListener("click", () => settings.open(defaults, meet));
  document.addEventListener("keydown", leave);
  document.querySelector("main").addEventListener("click", () => showChats(false));
  talk.start(showExperts);
  experts.start(byId("experts"), byId("chip-text"), { close: () => showExperts(false), gone: meet });
  await chats.start({
    opened(chat) {
      showChats(false);
      talk.open(chat);
      composer.focus();
    },
    removed: talk.drop,
  });
  await meet();
}

start();
