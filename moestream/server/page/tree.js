// A conversation: a tree of messages, of which one path is shown. Knows no server and no screen.

const id = () => crypto.randomUUID?.() ?? `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

/** A new one, empty. `system` is its own system prompt. */
export function conversation() {
  return { id: id(), title: "", system: null, changed: Date.now(), roots: [], shown: null, messages: {} };
}

/** Add a message under `parent` (null: at the top) and show it. */
export function add(chat, parent, message) {
  const made = { id: id(), parent, children: [], shown: null, ...message };
  chat.messages[made.id] = made;
  (parent === null ? chat.roots : chat.messages[parent].children).push(made.id);
  show(chat, made.id);
  chat.changed = Date.now();
  return made;
}

/** Lead the shown path through this message. */
export function show(chat, message) {
  for (let at = chat.messages[message]; at; at = chat.messages[at.parent]) {
    if (at.parent === null) chat.shown = at.id;
    else chat.messages[at.parent].shown = at.id;
  }
}

/** The messages that are shown, the first one first. */
export function path(chat) {
  const found = [];
  for (let at = chat.messages[chat.shown]; at; at = chat.messages[at.shown]) found.push(at);
  return found;
}

/** Those beside a message, itself among them: other answers, other wordings. */
export function siblings(chat, message) {
  return message.parent === null ? chat.roots : chat.messages[message.parent].children;
}

/** Show the message beside this one, `step` further. */
export function turn(chat, message, step) {
  const all = siblings(chat, message);
  const next = all[all.indexOf(message.id) + step];
  if (next !== undefined) show(chat, next);
}

/** Messages that are being written by this page: no other page knows more of them. */
export const writing = new WeakSet();

/** Take over what another page has added to a conversation; returns whether there was anything. */
export function merge(chat, other) {
  let more = false;
  const join = (mine, theirs) => mine.push(...theirs.filter((each) => !mine.includes(each)));
  for (const [key, theirs] of Object.entries(other.messages)) {
    const mine = chat.messages[key];
    if (!mine) chat.messages[key] = theirs;
    else {
      join(mine.children, theirs.children);
      mine.shown ??= theirs.shown;
    }
    if (mine && !isAhead(theirs, mine)) continue;
    if (mine) Object.assign(mine, { content: theirs.content, reasoning: theirs.reasoning, told: theirs.told, picture: theirs.picture });
    more = true;
  }
  join(chat.roots, other.roots);
  chat.shown ??= other.shown;
  if ((other.named ?? 0) > (chat.named ?? 0)) {
    Object.assign(chat, { title: other.title, named: other.named });
    more = true;
  }
  return more;
}

/** Whether another page's copy of a message has more of it, or its end. */
function isAhead(theirs, mine) {
  if (writing.has(mine)) return false;
  const longer = theirs.content.length - mine.content.length;
  return longer > 0 || (longer === 0 && Boolean(mine.told?.began && theirs.told && !theirs.told.began));
}

/** Read what was exported; returns the conversations that are sound. */
export function imported(text) {
  const told = JSON.parse(text);
  const list = told?.format === "moestream conversations" ? told.conversations : null;
  if (!Array.isArray(list)) throw new Error("This is no file of conversations of moestream.");
  return list.map(sound);
}

export function exported(chats) {
  return JSON.stringify({ format: "moestream conversations", version: 1, conversations: chats }, null, 1);
}

const text = (value) => (typeof value === "string" ? value : "");

/** The same conversation with new ids, whatever the file says: no link leads nowhere or in a ring. */
function sound(told) {
  const made = { ...conversation(), title: text(told.title), changed: Number(told.changed) || Date.now() };
  made.system = typeof told.system === "string" ? told.system : null;
  const ids = new Map();
  const copy = (old, parent) => {
    const from = Object.hasOwn(told.messages ?? {}, old) ? told.messages[old] : null;
    if (!from || ids.has(old) || !["user", "assistant"].includes(from.role)) return;
    const files = (Array.isArray(from.files) ? from.files : []).map((f) => ({ name: text(f?.name), text: text(f?.text) }));
    const kept = { role: from.role, content: text(from.content), reasoning: text(from.reasoning), files };
    const fresh = add(made, parent, { ...kept, told: plain(from.told), picture: picture(from.picture) });
    ids.set(old, fresh.id);
    for (const child of Array.isArray(from.children) ? from.children : []) waiting.push([child, fresh.id]);
  };
  const waiting = (Array.isArray(told.roots) ? told.roots : []).map((root) => [root, null]);
  while (waiting.length) copy(...waiting.shift());
  for (const [old, fresh] of ids) {
    const next = ids.get(told.messages[old].shown);
    if (made.messages[fresh].children.includes(next)) made.messages[fresh].shown = next;
  }
  if (made.roots.includes(ids.get(told.shown))) made.shown = ids.get(told.shown);
  made.changed = Number(told.changed) || Date.now();
  return made;
}

function plain(told) {
  if (!told || typeof told !== "object") return null;
  return Object.fromEntries(Object.entries(told).filter(([, v]) => typeof v === "number" || typeof v === "string"));
}

function picture(told) {
  if (!told || !Array.isArray(told.uses) || typeof told.model !== "string") return null;
  return { model: told.model, tokens: Number(told.tokens) || 0, uses: told.uses.map((n) => Math.max(0, Number(n) || 0)) };
}
