// Light, dark, or as the device has it.

import { kept } from "./dom.js";
import { say } from "./language.js";

const THEMES = ["auto", "light", "dark"];
const listeners = [];

export const onTheme = (listener) => listeners.push(listener);

export function startTheme(button) {
  let theme = THEMES.includes(kept.get("theme")) ? kept.get("theme") : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    say(button, `theme-${theme}`);
    for (const listener of listeners) listener();
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    kept.set("theme", theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
