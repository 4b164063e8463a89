// Writes a line of Markdown: text nodes, and elements for what is marked. Links lead to http, https
// and mailto alone; whatever else a link leads to is told, and leads nowhere.

import { el } from "./dom.js";

const DEEPEST = 6;
const SAFE = /^(?:https?:\/\/|mailto:)[^\s]+$/i;
const WORD = /[\p{L}\p{N}]/u;

/** The parts of a line: text nodes and elements. */
export function inline(text, depth = 0) {
  const out = [];
  const never = new Set(); // delimiters that nothing closes any more
  let plain = "";
  let at = 0;
  const put = (node, end) => {
    if (plain) out.push(plain);
    plain = "";
    out.push(node);
    at = end;
  };
  while (at < text.length) {
    const found = depth < DEEPEST ? span(text, at, never, depth) : null;
    if (found) put(found.node, found.end);
    else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else plain += text[at++];
  }
  if (plain) out.push(plain);
  return out;
}

function span(text, at, never, depth) {
  switch (text[at]) {
    case "`": return codeSpan(text, at, never);
    case "*": case "_": case "~": return emphasis(text, at, never, depth);
    case "[": return link(text, at, at, never, depth);
    case "!": return text[at + 1] === "[" ? link(text, at, at + 1, never, depth) : null;
    case "h": return bareLink(text, at);
    case "\n": return text.slice(Math.max(0, at - 2), at) === "  " ? { node: el("br"), end: at + 1 } : null;
    default: return null;
  }
}

function codeSpan(text, at, never) {
  const ticks = /^`+/.exec(text.slice(at, at + 40))[0];
  const from = at + ticks.length;
  const end = closing(text, ticks, from, never);
  return end < 0 ? null : { node: el("code", {}, text.slice(from, end).trim() || " "), end: end + ticks.length };
}

function emphasis(text, at, never, depth) {
  const mark = text[at];
  const double = text[at + 1] === mark;
  if (mark === "~" && !double) return null;
  if (mark === "_" && WORD.test(text[at - 1] ?? "")) return null;
  const marks = double ? mark + mark : mark;
  const from = at + marks.length;
  if (!/\S/.test(text[from] ?? " ")) return null;
  let end = closing(text, marks, from + 1, never);
  while (end > 0 && /\s/.test(text[end - 1])) end = closing(text, marks, end + 1, never);
  if (end < 0 || (mark === "_" && WORD.test(text[end + marks.length] ?? ""))) return null;
  if (double && text[end + 2] === mark) end += 1;
  const tag = mark === "~" ? "del" : double ? "strong" : "em";
  return { node: el(tag, {}, ...inline(text.slice(from, end), depth + 1)), end: end + marks.length };
}

function closing(text, marks, from, never) {
  if (never.has(marks)) return -1;
  const end = text.indexOf(marks, from);
  if (end < 0) never.add(marks);
  return end;
}

function link(text, at, open, never, depth) {
  const middle = closing(text, "](", open + 1, never);
  const end = middle < 0 ? -1 : closing(text, ")", middle, never);
  if (end < 0 || middle - open > 1000) return null;
  const label = text.slice(open + 1, middle);
  const href = text.slice(middle + 2, end).trim().split(/\s/)[0].replace(/^<|>$/g, "");
  const inside = label ? inline(label, depth + 1) : [href];
  if (!SAFE.test(href)) return { node: el("span", { class: "no-link", title: "This link leads nowhere safe" }, ...inside), end: end + 1 };
  return { node: anchor(href, inside), end: end + 1 };
}

function bareLink(text, at) {
  if (WORD.test(text[at - 1] ?? "")) return null;
  const found = /^https?:\/\/[^\s<>"'`*()[\]]+[^\s<>"'`*()[\].,;:!?]/.exec(text.slice(at, at + 500));
  return found ? { node: anchor(found[0], [found[0]]), end: at + found[0].length } : null;
}

const anchor = (href, inside) => el("a", { href, target: "_blank", rel: "noopener noreferrer" }, ...inside);
