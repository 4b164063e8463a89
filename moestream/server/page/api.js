// Asks the server. Owns the key, errors in words, and streams of events.

import * as kept from "./kept.js";

const KEY = "moestream.key";
let askForKey = async () => false;

/** Who is to ask the person for a key; resolves to whether there is one now. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const key = () => kept.read(KEY) ?? "";

export function setKey(value) {
  kept.write(KEY, value || null);
}

/** What went wrong, in a person's words; `kind` tells what may be done, `status` is the answer's. */
export class Trouble extends Error {
  constructor(message, kind = "", status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

/** A response that is well; asks for a key once where one is needed. */
export async function ask(path, options = {}, again = true) {
  const headers = { ...options.headers };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: options.json === undefined ? "GET" : "POST",
      body: options.json === undefined ? undefined : JSON.stringify(options.json),
      headers,
      signal: options.signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The server does not answer. Is it still running?", "gone");
  }
  if (response.ok) return response;
  if (response.status === 401 && again && (await askForKey(key() !== ""))) {
    return ask(path, options, false);
  }
  throw await troubleOf(response);
}

export const get = async (path) => (await ask(path)).json();
export const post = async (path, json) => (await ask(path, { json })).json();

async function troubleOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // not JSON: a proxy's page; the status is told
  }
  return described(error, response.status);
}

function described(error, status) {
  const said = error.message ?? `The server answers with status ${status}.`;
  if (status === 401) return new Trouble("The server wants a key. It is set in Settings.", "key");
  if (error.type === "exceed_context_size_error") {
    return new Trouble(`The conversation is longer than the model's context. ${sentence(said)}`, "full");
  }
  if (status === 503) return new Trouble(`The server has no time now. ${sentence(said)}`, "busy");
  return new Trouble(sentence(said), "", status);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/** The events of a stream: { name, data }, data still text. Ends when the stream does. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Trouble("The connection to the server broke.", "gone");
      }
      if (part.done) return;
      const blocks = (rest + part.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = { name: "message", data: "" };
        for (const line of block.split("\n")) {
          if (line.startsWith("data: ")) event.data += line.slice(6);
          else if (line.startsWith("event: ")) event.name = line.slice(7);
        }
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** What a chat says as it comes: chunks of OpenAI's API. */
export async function* chat(body, signal) {
  const response = await ask("/v1/chat/completions", { json: { ...body, stream: true }, signal });
  for await (const event of events(response)) {
    if (event.data === "[DONE]") return;
    const chunk = JSON.parse(event.data);
    if (chunk.error) throw described(chunk.error, chunk.error.code);
    yield chunk;
  }
  throw new Trouble("The answer broke off: the server ended the connection.", "gone");
}
