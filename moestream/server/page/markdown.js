// Writes Markdown as elements. What a model says becomes text nodes and a few kinds of elements,
// never markup: links lead to http, https and mailto alone, and images are links.

import { el, sign, announce } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 6;
const MOST_ROWS = 400;
const MOST_COLUMNS = 40;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/;
const DELIMITERS = /^ {0,3}\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;

/** What keeps an element showing a text that grows: only blocks that changed are made anew. */
export class Writer {
  constructor(root) {
    this.root = root;
    this.blocks = [];
  }

  write(text) {
    const wanted = blocks(text.split("\n"));
    for (const [place, block] of wanted.entries()) {
      const source = `${block.kind}\n${block.lines.join("\n")}`;
      const old = this.blocks[place];
      if (old?.source === source) continue;
      const node = render(block, 0);
      if (old) old.node.replaceWith(node);
      else this.root.append(node);
      this.blocks[place] = { source, node };
    }
    for (const extra of this.blocks.splice(wanted.length)) extra.node.remove();
  }
}

/** Cut lines into blocks: { kind, lines, ... }. */
function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    if (!line.trim()) at += 1;
    else if (fence) at = takeFence(lines, at, fence, found);
    else if (HEADING.test(line)) found.push({ kind: "heading", lines: [lines[at++]] });
    else if (RULE.test(line)) found.push({ kind: "rule", lines: [lines[at++]] });
    else if (isTable(lines, at)) at = takeWhile(lines, at, found, "table", (l) => l.includes("|"));
    else if (/^ {0,3}>/.test(line)) at = takeWhile(lines, at, found, "quote", (l) => l.trim() && !FENCE.test(l));
    else if (ITEM.test(line)) at = takeList(lines, at, found);
    else at = takeWhile(lines, at, found, "paragraph", (l, n) => n === at || !begins(lines, n));
  }
  return found;
}

function begins(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return !line.trim() || FENCE.test(line) || HEADING.test(line) || RULE.test(line) || /^ {0,3}>/.test(line) ||
    (item !== null && item[3] !== "") || isTable(lines, at);
}

const isTable = (lines, at) =>
  lines[at].includes("|") && DELIMITERS.test(lines[at + 1] ?? "") && lines[at + 1].includes("-") && lines[at + 1].includes("|");

function takeWhile(lines, at, found, kind, more) {
  let end = at + 1;
  while (end < lines.length && more(lines[end], end)) end += 1;
  found.push({ kind, lines: lines.slice(at, end) });
  return end;
}

function takeFence(lines, at, fence, found) {
  const closes = (line) => {
    const other = line.trim();
    return other.length >= fence[1].length && other === fence[1][0].repeat(other.length);
  };
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  found.push({ kind: "code", language: fence[2].trim().split(/\s/)[0], lines: lines.slice(at + 1, end) });
  return end + 1;
}

function takeList(lines, at, found) {
  const first = ITEM.exec(lines[at]);
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    const goesOn = line.trim() ? ITEM.test(line) || /^ {2,}/.test(line) || (lines[end - 1].trim() && !begins(lines, end))
      : /^ {2,}\S/.test(lines[end + 1] ?? "") || ITEM.test(lines[end + 1] ?? "");
    const item = ITEM.exec(line);
    const isOther = item && item[1].length <= first[1].length + 1 && /\d/.test(item[2]) !== /\d/.test(first[2]);
    if (!goesOn || isOther || RULE.test(line)) break;
    end += 1;
  }
  found.push({ kind: "list", lines: lines.slice(at, end) });
  return end;
}

function render(block, depth) {
  if (depth > DEEPEST) return el("pre", {}, block.lines.join("\n"));
  return {
    code: () => code(block.lines.join("\n"), block.language),
    heading: () => {
      const [, marks, title] = HEADING.exec(block.lines[0]);
      return el(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(title ?? ""));
    },
    rule: () => el("hr"),
    quote: () => el("blockquote", {}, ...all(block.lines.map((line) => line.replace(/^ {0,3}> ?/, "")), depth)),
    table: () => table(block.lines),
    list: () => list(block.lines, depth),
    paragraph: () => el("p", {}, ...inline(block.lines.map((line) => line.trimStart()).join("\n"))),
  }[block.kind]();
}

const all = (lines, depth) => blocks(lines).map((block) => render(block, depth + 1));

function code(text, language) {
  const copy = sign("copy", "Copy the code", async () => {
    await copyText(text);
    announce("Copied");
  });
  const name = language.slice(0, 20);
  const head = el("div", { class: "code-head" }, el("span", {}, name || "text"), copy);
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0", "aria-label": `Code${name ? `, ${name}` : ""}`, role: "region" }, el("code", {}, text)));
}

/** To the clipboard; without a safe origin, by way of a selection. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "unseen", value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function list(lines, depth) {
  const first = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= first[1].length + 1) items.push([item[3]]);
    else items.at(-1).push(line.slice(Math.min(line.search(/\S|$/), first[1].length + first[2].length + 1)));
  }
  const start = ordered ? Number.parseInt(first[2], 10) : 1;
  return el(ordered ? "ol" : "ul", { start: start === 1 ? null : start }, ...items.map((item) => el("li", {}, ...listItem(item, depth))));
}

function listItem(lines, depth) {
  const made = blocks(lines);
  const tight = made[0]?.kind === "paragraph" && made.length <= 2;
  return made.flatMap((block, n) =>
    tight && n === 0 ? inline(block.lines.map((l) => l.trimStart()).join("\n")) : [render(block, depth + 1)]);
}

function table(lines) {
  const rows = lines.filter((_, n) => n !== 1).map(cells);
  if (rows.length > MOST_ROWS || rows[0].length > MOST_COLUMNS) return code(lines.join("\n"), "table");
  const sides = cells(lines[1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "end") : null));
  const row = (tag, values) => el("tr", {}, ...rows[0].map((_, n) => el(tag, { class: sides[n], scope: tag === "th" ? "col" : null }, ...inline(values[n] ?? ""))));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row("th", rows[0])), el("tbody", {}, ...rows.slice(1).map((r) => row("td", r)))));
}

const cells = (line) =>
  line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
