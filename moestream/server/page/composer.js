// Where one writes: the field, its files, the buttons, and how much of the context is used.

import { el, byId, sign, notice, number } from "./dom.js";
import { read, write } from "./kept.js";

const DRAFT = "moestream.draft";
const MOST_FILE = 4 << 20;
const HIGHEST = 260;

const field = byId("text");
let attached = [];

/** `acts.send` takes a text and files and says whether it did; `acts.stop` ends an answer. */
export function start(acts) {
  field.value = read(DRAFT) ?? "";
  fit();
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!field.value.trim() && !attached.length) return;
    if (!acts.send(field.value, attached)) return;
    field.value = "";
    write(DRAFT, null);
    fit();
    attached = [];
    showAttached();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("form").requestSubmit();
  });
  field.addEventListener("input", () => {
    write(DRAFT, field.value);
    fit();
  });
  byId("stop").addEventListener("click", acts.stop);
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
}

export const focus = () => field.focus();

/** Whether an answer is being written now. */
export function busy(is) {
  const [seen, gone] = is ? ["stop", "send"] : ["send", "stop"];
  const had = document.activeElement === byId(gone);
  byId(seen).hidden = false;
  if (had) byId(seen).focus();
  byId(gone).hidden = true;
}

/** How much of the context is used. */
export function meter(used, most) {
  const bar = el("meter", { min: 0, max: most, high: most * 0.9, value: used, "aria-label": "Context used" });
  byId("meter").replaceChildren(...(most && used ? [bar, `${number(used)} of ${number(most)} tokens`] : []));
}

function fit() {
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, HIGHEST)}px`;
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
