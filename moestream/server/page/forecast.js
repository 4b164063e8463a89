// A slider for the budget, and what `moestream plan` foresees at each.

import { el, bytes, percent } from "./dom.js";
import * as api from "./api.js";

/** The part of the panel that has it; the forecast is asked for when it is wanted. */
export function forecastPart() {
  const place = el("div", {});
  const button = el("button", { type: "button", onclick: () => load(place, button) }, "Foresee other budgets");
  return el("section", { class: "part", "aria-label": "Another budget" }, el("h3", {}, "Another budget"),
    el("p", { class: "hint" }, "How fast it would be with more memory or less, and how much is needed for all experts. The first time this measures the machine, which takes some seconds."),
    button, place);
}

async function load(place, button) {
  button.disabled = true;
  place.replaceChildren(el("p", { role: "status" }, "Measuring…"));
  try {
    show(place, await api.get("/v1/moestream/forecast"));
    button.hidden = true;
  } catch (error) {
    place.replaceChildren(el("p", { class: "trouble", role: "alert" }, error.message));
  }
  button.disabled = false;
}

function show(place, { points, now_bytes: now }) {
  const near = points.findIndex((point) => point.budget_bytes >= (now ?? Infinity));
  const told = el("output", { for: "budget", class: "forecast" });
  const slider = el("input", { id: "budget", type: "range", min: 0, max: points.length - 1, step: 1, value: near < 0 ? points.length - 1 : near, "aria-label": "Budget" });
  const update = () => {
    const point = points[slider.value];
    const text = words(point);
    slider.setAttribute("aria-valuetext", text.join(" "));
    told.replaceChildren(el("strong", {}, text[0]), el("span", {}, text[1]), el("code", {}, `--budget ${Math.ceil(point.budget_bytes / 2 ** 20)}M`));
  };
  slider.addEventListener("input", update);
  update();
  place.replaceChildren(slider, told);
}

const digits = (tps) => (tps < 10 ? tps.toFixed(1) : tps.toFixed(0));

function words(point) {
  const speed = `about ${digits(point.tps)} tok/s`;
  const range = `(${digits(point.low_tps)} to ${digits(point.high_tps)})`;
  if (point.case === "fits") return [`${bytes(point.budget_bytes)}: ${speed}`, `${range}; all experts in memory.`];
  return [`${bytes(point.budget_bytes)}: ${speed}`,
    `${range}; ${percent(point.experts_share)} of the experts in memory, ${percent(point.hit_rate ?? 0)} hits, ${bytes(point.read_bytes)} read a token.`];
}
