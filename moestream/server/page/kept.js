// Small things this browser keeps between visits; where it refuses, for as long as the page is open.

const memory = new Map();

/** What is kept under this name, or null. */
export function read(name) {
  try {
    return memory.get(name) ?? localStorage.getItem(name);
  } catch {
    return memory.get(name) ?? null;
  }
}

/** Keep a text under this name; null forgets it. A full or closed store is no reason to stop. */
export function write(name, text) {
  memory.delete(name);
  try {
    if (text === null) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    if (text !== null) memory.set(name, text);
  }
}
