// The words on the page, in the language that is chosen. An element keeps which of them it shows:
//   data-word its text, data-label its aria-label, data-hint its placeholder, data-values what is put into {braces}.

import { all, kept } from "./dom.js";
import { WORDS } from "./words.js";

const LANGUAGES = ["en", "zh"];
const listeners = [];
let current = kept.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!LANGUAGES.includes(current)) current = "en";

export function word(key, values = {}) {
  const pair = WORDS[key];
  if (!pair) throw new Error(`no word ${key}`);
  return pair[LANGUAGES.indexOf(current)].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** `element` shows this word, also after the language is changed. */
export function say(element, key, values = {}) {
  element.dataset.word = key;
  element.dataset.values = JSON.stringify(values);
  element.textContent = word(key, values);
  return element;
}

/** As `say`, but what a screen reader calls the element. */
export function label(element, key, values = {}) {
  element.dataset.label = key;
  element.dataset.values = JSON.stringify(values);
  element.setAttribute("aria-label", word(key, values));
  return element;
}

/** Something else than one of the words: a name, a number, a sentence of the server. */
export function tell(element, text) {
  delete element.dataset.word;
  element.textContent = text;
}

function translate() {
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  for (const element of all("[data-word], [data-label], [data-hint]")) {
    const values = JSON.parse(element.dataset.values ?? "{}");
    if (element.dataset.word) element.textContent = word(element.dataset.word, values);
    if (element.dataset.label) element.setAttribute("aria-label", word(element.dataset.label, values));
    if (element.dataset.hint) element.placeholder = word(element.dataset.hint, values);
  }
}

export const onLanguage = (listener) => listeners.push(listener);

export function startLanguage(button) {
  translate();
  button.addEventListener("click", () => {
    current = current === "en" ? "zh" : "en";
    kept.set("language", current);
    translate();
    for (const listener of listeners) listener();
  });
}
