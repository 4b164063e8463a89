// One answer on its way: from messages to a request, and from its events into a message.

import * as api from "./api.js";
import * as tree from "./tree.js";
import * as settings from "./settings.js";

/** What a message says to the model: its files, then its words. */
export function spoken(message) {
  const files = (message.files ?? []).map((file) => {
    const fence = "`".repeat(Math.max(3, ...[...file.text.matchAll(/`+/g)].map((run) => run[0].length + 1)));
    return `${file.name}:\n${fence}\n${file.text}\n${fence}\n\n`;
  });
  return files.join("") + message.content;
}

/** The messages up to `last`, as the API has them. */
function history(chat, last, goesOn) {
  const path = tree.path(chat);
  const told = path.slice(0, path.indexOf(last) + (goesOn ? 1 : 0));
  const system = chat.system ?? settings.systemPrompt();
  return [
    ...(system.trim() ? [{ role: "system", content: system }] : []),
    ...told.map((each) => {
      const thought = each.role === "assistant" && each.reasoning ? { reasoning_content: each.reasoning } : {};
      return { role: each.role, content: spoken(each), ...thought };
    }),
  ];
}

/**
 * Have the model write `message`, or go on with it. `show` is called whenever there is news;
 * whatever happens, what was written stays, and `message.told` says how it ended.
 */
export async function write(chat, message, { signal, goesOn = false, show }) {
  const told = { error: "", finish: "", began: Date.now() };
  message.told = told;
  tree.writing.add(message);
  message.progress = null;
  let first = 0;
  let count = 0;
  try {
    const body = {
      messages: history(chat, message, goesOn),
      return_progress: true,
      stream_options: { include_usage: true },
      ...settings.parameters(),
    };
    for await (const chunk of api.chat(body, signal)) {
      if (chunk.prompt_progress) message.progress = chunk.prompt_progress;
      const choice = chunk.choices[0];
      const { content, reasoning_content: thought } = choice?.delta ?? {};
      if (content || thought) {
        first ||= performance.now();
        count += 1;
        message.progress = null;
        message.content += content ?? "";
        message.reasoning = (message.reasoning ?? "") + (thought ?? "");
        if (count > 1) told.tps = (1000 * (count - 1)) / (performance.now() - first);
      }
      if (choice?.finish_reason) told.finish = choice.finish_reason;
      if (chunk.usage) take(told, chunk);
      show();
    }
  } catch (error) {
    if (error.name === "AbortError") told.finish = "stopped";
    else {
      told.finish = "failed";
      told.error = error.message;
      told.kind = error.kind ?? "";
    }
  }
  message.progress = null;
  delete told.began;
  tree.writing.delete(message);
  return told;
}

function take(told, { usage, timings }) {
  told.prompt = usage.prompt_tokens;
  told.made = usage.completion_tokens;
  told.cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  if (timings?.predicted_per_second) told.tps = timings.predicted_per_second;
  told.prompt_s = (timings?.prompt_ms ?? 0) / 1000;
}
