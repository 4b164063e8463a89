// How a message looks, and what can be done with it. Knows no server.

import { el, sign, number, percent } from "./dom.js";
import { Writer, copyText } from "./markdown.js";
import * as tree from "./tree.js";

/** The shown element of one message; `update` brings it up to its message. */
export class View {
  constructor(chat, message, acts) {
    this.chat = chat;
    this.message = message;
    this.acts = acts;
    this.body = el("div", { class: "body" });
    this.foot = el("div", { class: "foot" });
    this.root = el("article", { class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Answer" }, this.body, this.foot);
    if (message.role === "user") this.#asked();
    else this.#answer();
    this.update(false);
  }

  #asked() {
    const files = (this.message.files ?? []).map((file) =>
      el("details", { class: "file" }, el("summary", {}, file.name), el("pre", { tabindex: "0" }, file.text)));
    this.body.append(...files, el("p", { class: "said" }, this.message.content));
  }

  #answer() {
    this.thought = el("div", { class: "thought" });
    this.thinking = el("summary", {}, "Reasoning");
    this.fold = el("details", { class: "reasoning", hidden: true }, this.thinking, this.thought);
    this.bar = el("progress", { max: 1, value: 0, "aria-label": "Prompt read" });
    this.reading = el("div", { class: "reading", hidden: true }, el("span"), this.bar);
    this.words = el("div", { class: "words" });
    this.wait = el("span", { class: "wait", hidden: true }, el("i"), el("i"), el("i"));
    this.trouble = el("p", { class: "trouble", role: "alert", hidden: true });
    this.body.append(this.fold, this.words, this.reading, this.wait, this.trouble);
    this.writers = [new Writer(this.words), new Writer(this.thought)];
  }

  update(running) {
    const { message } = this;
    if (message.role === "assistant") {
      this.writers[0].write(message.content);
      this.writers[1].write(message.reasoning ?? "");
      this.fold.hidden = !message.reasoning;
      this.thinking.textContent = running && !message.content ? "Reasoning…" : "Reasoning";
      const { progress } = message;
      this.reading.hidden = !progress;
      this.wait.hidden = !running || Boolean(progress) || Boolean(message.content || message.reasoning);
      if (progress) {
        this.bar.value = progress.total ? progress.processed / progress.total : 0;
        const kept = progress.cache ? `, ${number(progress.cache)} were there already` : "";
        this.reading.firstChild.textContent = `Reading the prompt: ${number(progress.processed)} of ${number(progress.total)} tokens${kept}`;
      }
      const trouble = running ? "" : troubleOf(message.told);
      this.trouble.hidden = !trouble;
      this.trouble.classList.toggle("calm", message.told?.finish !== "failed");
      this.trouble.textContent = trouble;
    }
    if (this.running !== running) this.#foot(running);
    if (running && this.speed && message.told?.tps) this.speed.textContent = speed(message.told.tps);
    this.running = running;
  }

  /** Something else can be done with it now. */
  refresh() {
    if (!this.running) this.#foot(false);
  }

  #foot(running) {
    const { chat, message, acts } = this;
    const all = tree.siblings(chat, message);
    const place = all.indexOf(message.id);
    const branches = all.length < 2 ? null : el("span", { class: "branches", role: "group", "aria-label": "Versions" },
      sign("left", "Version before", () => acts.turn(message, -1), { disabled: place === 0 || running }),
      el("span", {}, `${place + 1} / ${all.length}`),
      sign("right", "Version after", () => acts.turn(message, 1), { disabled: place === all.length - 1 || running }));
    this.speed = el("span", { class: "figures" }, running ? "" : figures(message));
    const copy = sign("copy", "Copy the text", () => copyText(message.content));
    const mine = message.role === "user" ? [sign("edit", "Edit", () => acts.edit(this))]
      : [sign("again", "Answer again", () => acts.again(message)),
        ["length", "stopped", "failed"].includes(message.told?.finish) && !message.told.full && (message.content || message.reasoning) ? sign("onward", "Go on with this answer", () => acts.goOn(message)) : null,
        message.picture ? el("button", { type: "button", class: "quiet", onclick: () => acts.picture(message) }, "Its experts") : null];
    const buttons = running ? [] : [copy, ...mine];
    this.foot.replaceChildren(...[branches, ...buttons, this.speed].filter(Boolean));
  }

  /** Put a field in the place of the text, to ask it in other words. */
  edit(done) {
    const area = el("textarea", { rows: Math.min(12, this.message.content.split("\n").length + 1), value: this.message.content, "aria-label": "Edit the message" });
    const close = () => {
      form.replaceWith(this.body, this.foot);
      this.foot.querySelector("[aria-label=Edit]")?.focus();
    };
    const form = el("form", { class: "editor" }, area,
      el("div", { class: "row end" },
        el("button", { type: "button", class: "quiet", onclick: close }, "Cancel"),
        el("button", { type: "submit", class: "primary" }, "Send")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!area.value.trim() && !this.message.files?.length) return;
      close();
      done(area.value);
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.body.replaceWith(form);
    this.foot.remove();
    area.focus();
  }
}

function troubleOf(told) {
  if (!told) return "";
  if (told.finish === "failed") {
    const rest = told.kind === "full" ? " Begin a new conversation, or edit an earlier message." : " Nothing is lost: answer again, or go on.";
    return told.error + rest;
  }
  if (told.full) return "The context is full. Begin a new conversation, or edit an earlier message.";
  if (told.finish === "length") return "The answer ended at the limit of tokens, which is in Settings. The arrow goes on with it.";
  return told.finish === "stopped" ? "Stopped." : "";
}

const speed = (tps) => `${tps.toFixed(tps < 100 ? 1 : 0)} tok/s`;

function figures({ told, role }) {
  if (role === "user" || !told?.made) return told?.tps && role !== "user" ? speed(told.tps) : "";
  const read = told.prompt - told.cached;
  const kept = told.cached ? ` · ${percent(told.cached / told.prompt)} of the prompt was there` : "";
  const prompt = told.prompt_s > 0.05 ? ` · ${number(read)} read in ${told.prompt_s.toFixed(1)} s` : "";
  return `${number(told.made)} tokens${told.tps ? ` · ${speed(told.tps)}` : ""}${prompt}${kept}`;
}
