// How texts are drawn: the sliders of Write, which Talk and the two answers of LoRA use as well.

import { all, find, kept, number } from "./dom.js";
import { onLanguage, word } from "./language.js";

const SEEDS = 2 ** 31;
const SHOWN = {
  temperature: (value) => (value ? number(value, 2) : word("greedy")),
  top_k: (value) => (value ? String(value) : word("off")),
  top_p: (value) => (value < 1 ? number(value, 2) : word("off")),
  max_tokens: String,
};

/** The settings as fields of a request; what is off is left out. */
export function settings() {
  const values = Object.fromEntries(all("#settings input").map((input) => [input.name, input.valueAsNumber || 0]));
  if (!values.top_k) delete values.top_k;
  if (values.top_p >= 1) delete values.top_p;
  return values;
}

export function startSettings() {
  const host = find("#settings");
  const before = JSON.parse(kept.get("settings") ?? "{}");
  for (const input of all("input", host)) {
    if (Number.isFinite(before[input.name])) input.value = before[input.name];
    input.addEventListener("input", () => { show(input); keep(host); });
  }
  find("#new-seed").addEventListener("click", () => {
    find("#seed").value = Math.floor(Math.random() * SEEDS);
    keep(host);
  });
  const showAll = () => all("input[type=range]", host).forEach(show);
  showAll();
  onLanguage(showAll);
}

function show(input) {
  const output = find(`output[for=${input.id}]`);
  if (!output) return;
  output.value = SHOWN[input.name](input.valueAsNumber);
  input.setAttribute("aria-valuetext", output.value);
}

function keep(host) {
  const values = Object.fromEntries(all("input", host).map((input) => [input.name, input.valueAsNumber]));
  kept.set("settings", JSON.stringify(values));
}
