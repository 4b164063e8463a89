// The open conversation on the screen, and the answers that are being written.

import { el, byId, announce, notice } from "./dom.js";
import * as chats from "./chats.js";
import * as composer from "./composer.js";
import * as tree from "./tree.js";
import { write } from "./answer.js";
import { View } from "./messages.js";
import * as experts from "./experts.js";

const SHOW_MS = 100;
const KEEP_MS = 1000;
const NEAR = 80;

const log = byId("log");
const running = new Map(); // by conversation: { message, stop }
let views = new Map();
let context = 0;
let showExperts = () => {};

const acts = {
  turn(message, step) {
    tree.turn(chats.current, message, step);
    draw();
    chats.keep(chats.current);
  },
  again: (message) => busy() || respond(message.parent),
  goOn: (message) => busy() || answer(chats.current, message, true),
  edit: (view) => busy() || view.edit((text) => say(text, view.message.parent, view.message.files ?? [])),
  picture(message) {
    showExperts(true);
    experts.showPicture(message.id);
  },
};

/** `show` opens the panel of experts. */
export function start(show) {
  showExperts = show;
  composer.start({
    send(text, files) {
      if (busy()) return false;
      say(text, tree.path(chats.current).at(-1)?.id ?? null, files);
      return true;
    },
    stop,
  });
}

/** End the answer that is being written in the open conversation. */
export function stop() {
  running.get(chats.current.id)?.stop.abort();
}

/** How long a conversation may be, in tokens. */
export function setContext(most) {
  context = most;
  meter();
}

export function open() {
  views = new Map();
  draw();
  log.scrollTop = log.scrollHeight;
}

/** A conversation is no more. */
export const drop = (chat) => running.get(chat.id)?.stop.abort();

const busy = () => running.has(chats.current.id);
const isNear = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

/** Show the path of messages; views of those that stay are kept. */
function draw() {
  const chat = chats.current;
  const path = tree.path(chat);
  const old = views;
  const holds = focusIn(log);
  views = new Map(path.map((message) => [message.id, old.get(message.id) ?? new View(chat, message, acts)]));
  log.replaceChildren(...(path.length ? [...views.values()].map((view) => view.root) : [welcome()]));
  for (const [id, view] of views) view.update(running.get(chat.id)?.message.id === id);
  holds();
  meter();
  composer.busy(busy());
}

/** A function that brings the focus back to where it is now: what has it may be made anew. */
function focusIn(place) {
  const at = document.activeElement;
  if (at === place || !place.contains(at)) return () => {};
  const part = [...place.children].findIndex((each) => each.contains(at));
  const name = at.getAttribute("aria-label");
  return () => {
    const again = name && place.children[part]?.querySelector(`[aria-label="${CSS.escape(name)}"]:enabled`);
    (at.isConnected ? at : again || place).focus({ preventScroll: true });
  };
}

function welcome() {
  const seen = el("button", { type: "button", class: "link", onclick: () => showExperts(true) }, "see which experts are in memory");
  return el("div", { class: "welcome" }, el("h2", {}, "Ask the model something"),
    el("p", {}, "Everything stays on the machine that runs it. While it answers, ", seen, "."));
}

function meter() {
  const told = tree.path(chats.current).findLast((message) => message.told?.prompt)?.told;
  composer.meter(told ? told.prompt + told.made : 0, context);
}

/** A function that brings the screen up to a message that is being written, now and then. */
function follower(chat, message) {
  let due = 0;
  let kept = performance.now();
  const show = () => {
    due ||= setTimeout(() => {
      due = 0;
      const near = isNear();
      if (chat === chats.current) {
        views.get(message.id)?.update(running.get(chat.id)?.message === message);
        if (near) log.scrollTop = log.scrollHeight;
      }
      if (performance.now() - kept > KEEP_MS) {
        kept = performance.now();
        chats.keep(chat);
      }
    }, SHOW_MS);
  };
  return { show, end: () => clearTimeout(due) };
}

async function answer(chat, message, goesOn = false) {
  const stop = new AbortController();
  running.set(chat.id, { message, stop });
  const seen = experts.begin();
  const { show, end } = follower(chat, message);
  if (chat === chats.current) draw();
  log.scrollTop = log.scrollHeight;
  announce("The model is answering");
  const told = await write(chat, message, { signal: stop.signal, goesOn, show });
  end();
  told.full = told.finish === "length" && context > 0 && told.prompt + told.made >= context;
  running.delete(chat.id);
  picture(chat, message, seen);
  chat.changed = Date.now();
  if (chat === chats.current) {
    const near = isNear();
    draw();
    if (near) log.scrollTop = log.scrollHeight;
  }
  announce(told.error || (told.finish === "stopped" ? "Stopped" : "The answer is complete"));
  await chats.keep(chat);
  chats.list();
}

/** Keep which experts an answer used. */
async function picture(chat, message, seen) {
  const found = await experts.end(seen);
  if (found === null) return;
  message.picture = found;
  chats.keep(chat);
  views.get(message.id)?.refresh();
  experts.refresh();
}

function say(text, parent, files) {
  notice("");
  const chat = chats.current;
  const asked = tree.add(chat, parent, { role: "user", content: text, files });
  if (!chat.title) chat.title = (text || files[0]?.name || "").trim().replace(/\s+/g, " ").slice(0, 60);
  chats.enter(chat);
  respond(asked.id);
}

function respond(parent) {
  const chat = chats.current;
  const message = tree.add(chat, parent, { role: "assistant", content: "", reasoning: "" });
  chats.keep(chat);
  answer(chat, message);
}
