// The page as a whole: which conversation is open, what is being written, what the buttons do.

import { el, byId, sign, announce, download, number } from "./dom.js";
import * as api from "./api.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import * as settings from "./settings.js";
import { write } from "./answer.js";
import { View } from "./messages.js";
import * as experts from "./experts.js";

const OPEN = "moestream.open";
const DRAFT = "moestream.draft";
const MOST_FILE = 4 << 20;
const SHOW_MS = 60;
const KEEP_MS = 1000;

let chats = [];
let chat = tree.conversation();
let views = new Map();
let attached = [];
let server = { context: 0, defaults: {} };
const running = new Map(); // by conversation: { message, stop }

const log = byId("log");
const field = byId("text");

// --- The conversation that is open

function open(other) {
  chat = other;
  localStorage.setItem(OPEN, chat.id);
  views = new Map();
  draw();
  log.scrollTop = log.scrollHeight;
  list();
}

/** Show the path of messages; views of those that stay are kept. */
function draw() {
  const path = tree.path(chat);
  const old = views;
  views = new Map(path.map((message) => [message.id, old.get(message.id) ?? new View(chat, message, acts)]));
  log.replaceChildren(...(path.length ? [...views.values()].map((view) => view.root) : [welcome()]));
  for (const [id, view] of views) view.update(running.get(chat.id)?.message.id === id);
  meter();
  buttons();
}

function welcome() {
  const seen = el("button", { type: "button", class: "link", onclick: () => showExperts(true) }, "see which experts are in memory");
  return el("div", { class: "welcome" }, el("h2", {}, "Ask the model something"),
    el("p", {}, "Everything stays on the machine that runs it. While it answers, ", seen, "."));
}

const isNear = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;

async function keep(which) {
  try {
    await store.keep(which);
  } catch (error) {
    notice(`This browser cannot keep the conversation (${error?.name ?? "full"}): export it before you leave.`);
  }
}

// --- Answers

async function answer(which, message, goesOn = false) {
  const stop = new AbortController();
  running.set(which.id, { message, stop });
  const seen = experts.begin();
  let due = 0;
  let kept = performance.now();
  const show = () => {
    due ||= setTimeout(() => {
      due = 0;
      const near = isNear();
      if (which === chat) {
        views.get(message.id)?.update(running.get(which.id)?.message === message);
        if (near) log.scrollTop = log.scrollHeight;
      }
      if (performance.now() - kept > KEEP_MS) {
        kept = performance.now();
        keep(which);
      }
    }, SHOW_MS);
  };
  if (which === chat) draw();
  log.scrollTop = log.scrollHeight;
  announce("The model is answering");
  const told = await write(which, message, { signal: stop.signal, goesOn, show });
  clearTimeout(due);
  running.delete(which.id);
  experts.end(seen).then((picture) => {
    if (picture === null) return;
    message.picture = picture;
    keep(which);
    views.get(message.id)?.refresh();
  });
  which.changed = Date.now();
  if (which === chat) {
    const near = isNear();
    draw();
    if (near) log.scrollTop = log.scrollHeight;
  }
  announce(told.error || (told.finish === "stopped" ? "Stopped" : "The answer is complete"));
  await keep(which);
  list();
}

function say(text, parent, files) {
  const asked = tree.add(chat, parent, { role: "user", content: text, files });
  if (!chat.title) chat.title = (text || files[0]?.name || "").trim().replace(/\s+/g, " ").slice(0, 60);
  if (!chats.includes(chat)) chats.unshift(chat);
  respond(asked.id);
  list();
}

function respond(parent) {
  const message = tree.add(chat, parent, { role: "assistant", content: "", reasoning: "" });
  keep(chat);
  answer(chat, message);
}

const acts = {
  turn(message, step) {
    tree.turn(chat, message, step);
    draw();
    keep(chat);
  },
  again: (message) => busy() || respond(message.parent),
  goOn: (message) => busy() || answer(chat, message, true),
  edit: (view) => busy() || view.edit((text) => say(text, view.message.parent, view.message.files ?? [])),
  picture(message) {
    showExperts(true);
    experts.showPicture(message.picture, message.content);
  },
};

const busy = () => running.has(chat.id);

// --- What is written

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value;
  if (busy() || (!text.trim() && !attached.length)) return;
  field.value = "";
  localStorage.removeItem(DRAFT);
  fit();
  const files = attached;
  attached = [];
  showAttached();
  say(text, tree.path(chat).at(-1)?.id ?? null, files);
});

field.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("form").requestSubmit();
});
field.addEventListener("input", () => {
  localStorage.setItem(DRAFT, field.value);
  fit();
});
byId("stop").addEventListener("click", () => running.get(chat.id)?.stop.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && busy() && !document.querySelector("dialog[open]")) running.get(chat.id).stop.abort();
});

function fit() {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 260)}px`;
}

function buttons() {
  byId("stop").hidden = !busy();
  byId("send").hidden = busy();
}

function meter() {
  const told = tree.path(chat).findLast((message) => message.told?.prompt)?.told;
  const used = told ? told.prompt + told.made : 0;
  const most = server.context;
  const bar = el("meter", { min: 0, max: most, high: most * 0.9, value: used, "aria-label": "Context used" });
  byId("meter").replaceChildren(...(most && used ? [bar, `${number(used)} of ${number(most)} tokens`] : []));
}

// --- Files

byId("attach").addEventListener("click", () => byId("files").click());
byId("files").addEventListener("change", async (event) => {
  await attach([...event.target.files]);
  event.target.value = "";
});
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === "drop") attach([...event.dataTransfer.files]);
  });
}

async function attach(files) {
  for (const file of files) {
    const text = file.size > MOST_FILE ? null : await file.text();
    if (text === null || /\0|\ufffd/.test(text)) notice(`${file.name} is ${text === null ? "larger than 4 MiB" : "no text"}: it is left out.`);
    else attached = [...attached, { name: file.name, text }];
  }
  showAttached();
}

function showAttached() {
  byId("attached").replaceChildren(...attached.map((file) => el("li", {}, file.name,
    sign("remove", `Leave out ${file.name}`, () => {
      attached = attached.filter((each) => each !== file);
      showAttached();
    }))));
}

// --- Conversations

function list() {
  chats.sort((a, b) => b.changed - a.changed);
  byId("chat-list").replaceChildren(...chats.map((each) => el("li", { class: each === chat ? "here" : null },
    el("button", { type: "button", class: "quiet title", "aria-current": each === chat ? "true" : null, onclick: () => {
      open(each);
      showChats(false);
    } }, each.title || "Untitled"),
    sign("edit", `Rename ${each.title}`, () => rename(each)),
    sign("remove", `Delete ${each.title}`, () => remove(each)))));
}

async function rename(which) {
  const title = await settings.question({ title: "Rename", told: "The conversation's name:", input: which.title, does: "Rename" });
  if (!title) return;
  which.title = title.slice(0, 200);
  await keep(which);
  list();
}

async function remove(which) {
  const sure = await settings.question({ title: "Delete the conversation?", told: `“${which.title}” is gone for good then.`, does: "Delete" });
  if (!sure) return;
  running.get(which.id)?.stop.abort();
  chats = chats.filter((each) => each !== which);
  await store.forget(which.id);
  if (which === chat) open(chats[0] ?? tree.conversation());
  else list();
}

byId("new-chat").addEventListener("click", () => {
  open(tree.conversation());
  showChats(false);
  field.focus();
});
byId("export").addEventListener("click", () => download("moestream-conversations.json", tree.exported(chats)));
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", async (event) => {
  try {
    const more = tree.imported(await event.target.files[0].text());
    for (const each of more) await keep(each);
    chats = [...more, ...chats];
    list();
    notice(`${more.length} conversation${more.length === 1 ? "" : "s"} imported.`, true);
  } catch (error) {
    notice(`The file cannot be imported: ${error.message}`);
  }
  event.target.value = "";
});

// --- The page around it

function notice(text, calm = false) {
  const place = byId("notice");
  place.classList.toggle("calm", calm);
  place.replaceChildren(el("span", {}, text), sign("remove", "Close", () => notice("")));
  place.hidden = !text;
}

function showChats(on) {
  document.body.classList.toggle("with-chats", on);
  byId("show-chats").setAttribute("aria-expanded", String(on));
}

function showExperts(on) {
  byId("experts").hidden = !on;
  byId("show-experts").setAttribute("aria-expanded", String(on));
  document.body.classList.toggle("with-experts", on);
  experts.visible(on);
}

byId("show-chats").addEventListener("click", () => showChats(byId("show-chats").getAttribute("aria-expanded") !== "true"));
byId("show-experts").addEventListener("click", () => showExperts(byId("experts").hidden));
byId("show-settings").addEventListener("click", () => settings.open(server.defaults, meet));

api.onKeyNeeded(async (wrong) => {
  const told = wrong ? "The server does not take the key that is kept here. What is the right one?" : "This server answers only who has a key. It is kept in this browser.";
  const given = await settings.question({ title: "API key", told, input: "", does: "Use it", kind: "password" });
  if (given) api.setKey(given.trim());
  return Boolean(given);
});

/** Ask the server what it is; again and again while its model loads, or it is gone. */
async function meet() {
  try {
    const props = await api.get("/props");
    server = { context: props.default_generation_settings.n_ctx, defaults: props.default_generation_settings.params };
    byId("model").textContent = props.model_alias;
    document.title = `${props.model_alias} · moestream`;
    notice("");
    meter();
    experts.connect();
  } catch (error) {
    const loads = error.kind === "busy";
    notice(loads ? "The model is being loaded." : error.message, loads);
    if (error.kind === "busy" || error.kind === "gone") setTimeout(meet, 1500);
  }
}

async function start() {
  settings.applyTheme();
  field.value = localStorage.getItem(DRAFT) ?? "";
  fit();
  try {
    chats = await store.all();
  } catch {
    notice("This browser keeps nothing: conversations are gone when the page is closed.");
  }
  for (const message of chats.flatMap((each) => Object.values(each.messages))) {
    if (message.told?.began) message.told = { finish: "stopped", error: "" };
    message.progress = null;
  }
  experts.start(byId("experts"), byId("chip-text"), { question: settings.question, notice, close: () => showExperts(false) });
  open(chats.find((each) => each.id === localStorage.getItem(OPEN)) ?? chats[0] ?? tree.conversation());
  await meet();
  field.focus();
}

start();
