// Keeps conversations in this browser (IndexedDB); where it refuses, for as long as the page is open.

const memory = new Map();
let opened = null;

function database() {
  opened ??= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open("moestream", 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
  return opened;
}

async function run(mode, work) {
  const base = await database();
  if (base === null) return null;
  return new Promise((resolve, reject) => {
    const transaction = base.transaction("conversations", mode);
    const request = work(transaction.objectStore("conversations"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** All of them, the last changed first. */
export async function all() {
  const found = (await run("readonly", (store) => store.getAll())) ?? [...memory.values()];
  return found.sort((a, b) => b.changed - a.changed);
}

/** The one with this id as it is kept, or undefined. */
export async function one(id) {
  return (await run("readonly", (store) => store.get(id))) ?? memory.get(id);
}

/** Keep one; throws where the browser's room is full. */
export async function keep(chat) {
  memory.set(chat.id, chat);
  await run("readwrite", (store) => store.put(JSON.parse(JSON.stringify(chat))));
}

export async function forget(id) {
  memory.delete(id);
  await run("readwrite", (store) => store.delete(id));
}

/** Whether they outlive the page. */
export const lasts = async () => (await database()) !== null;
