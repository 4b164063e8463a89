// Conversations: which there are, which is open, and their list. Knows no answers.

import { el, byId, sign, download, notice } from "./dom.js";
import { read, write } from "./kept.js";
import * as store from "./store.js";
import * as tree from "./tree.js";
import * as settings from "./settings.js";

const OPEN = "moestream.open";

let all = [];
/** Ids of those that were deleted here: what is still kept of one must not bring it back. */
const gone = new Set();
let opened = () => {};
let removed = () => {};
/** The one that is open. */
export let current = tree.conversation();

/** Take up what is kept; `hooks` are told which is opened, and which is removed. */
export async function start(hooks) {
  opened = hooks.opened;
  removed = hooks.removed;
  try {
    all = await store.all();
  } catch {
    notice("This browser keeps nothing: conversations are gone when the page is closed.");
  }
  for (const message of messages()) {
    if (message.told?.began) message.told = { finish: "stopped", error: "" };
    message.progress = null;
  }
  byId("new-chat").addEventListener("click", () => open(tree.conversation()));
  byId("export").addEventListener("click", () => download("moestream-conversations.json", tree.exported(all)));
  byId("import").addEventListener("click", () => byId("import-file").click());
  byId("import-file").addEventListener("change", take);
  document.addEventListener("visibilitychange", catchUp);
  open(all.find((each) => each.id === read(OPEN)) ?? all[0] ?? tree.conversation());
}

/** Take over what other pages of this browser have kept since. */
async function catchUp() {
  if (document.hidden) return;
  let more = false;
  for (const each of await store.all().catch(() => [])) {
    if (gone.has(each.id)) continue;
    const mine = all.find((chat) => chat.id === each.id);
    if (!mine) all.push(each);
    else if (mine !== each && tree.merge(mine, each) && mine === current) more = true;
  }
  list();
  if (more) opened(current);
}

/** The messages of all conversations, the last changed first. */
export const messages = () => all.flatMap((each) => Object.values(each.messages).reverse());

/** What a message answers. */
export function question(message) {
  const chat = all.find((each) => each.messages[message.id] === message);
  return chat?.messages[message.parent]?.content.trim().replace(/\s+/g, " ") || "a file";
}

export function open(chat) {
  current = chat;
  write(OPEN, chat.id);
  list();
  opened(chat);
}

/** Something was said in it for the first time. */
export function enter(chat) {
  if (!all.includes(chat)) all.unshift(chat);
  list();
}

/** Keep one, with what another page of this browser may have added to it. */
export async function keep(chat) {
  try {
    const there = await store.one(chat.id);
    if (there && there !== chat) tree.merge(chat, there);
    if (gone.has(chat.id)) return;
    await store.keep(chat);
  } catch (error) {
    notice(`This browser cannot keep the conversation (${error?.name ?? "full"}): export it before you leave.`);
  }
}

/** Show them, the last changed first. */
export function list() {
  const place = byId("chat-list");
  const buttons = () => [...place.querySelectorAll("button")];
  const at = buttons().indexOf(document.activeElement);
  all.sort((a, b) => b.changed - a.changed);
  place.replaceChildren(...all.map((each) => el("li", { class: each === current ? "here" : null },
    el("button", { type: "button", class: "quiet title", "aria-current": each === current ? "true" : null, onclick: () => open(each) }, each.title || "Untitled"),
    sign("edit", `Rename ${each.title}`, () => rename(each)),
    sign("remove", `Delete ${each.title}`, () => remove(each)))));
  if (at >= 0) (buttons()[at] ?? byId("new-chat")).focus();
}

async function rename(chat) {
  const title = await settings.question({ title: "Rename", told: "The conversation's name:", input: chat.title, does: "Rename" });
  if (!title) return;
  chat.title = title.slice(0, 200);
  chat.named = Date.now();
  await keep(chat);
  list();
}

async function remove(chat) {
  const sure = await settings.question({ title: "Delete the conversation?", told: `“${chat.title}” is gone for good then.`, does: "Delete" });
  if (!sure) return;
  gone.add(chat.id);
  removed(chat);
  all = all.filter((each) => each !== chat);
  await store.forget(chat.id);
  if (chat === current) open(all[0] ?? tree.conversation());
  else list();
}

async function take(event) {
  try {
    const more = tree.imported(await event.target.files[0].text());
    for (const each of more) await keep(each);
    all = [...more, ...all];
    list();
    notice(`${more.length} conversation${more.length === 1 ? "" : "s"} imported.`, true);
  } catch (error) {
    notice(`The file cannot be imported: ${error.message}`);
  }
  event.target.value = "";
}
