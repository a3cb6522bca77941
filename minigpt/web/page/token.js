// The token of a server that asks for one, for as long as this tab is open.

import { find } from "./dom.js";

let held = null;
let asking = null;

export function token() {
  try {
    held ??= sessionStorage.getItem("token");
  } catch { /* not kept, then, but asked for again */ }
  return held;
}

/** Asks whoever is before the screen; true if there is a new token to try. Many requests may wait for one answer. */
export function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = find("#token"), input = find("input", dialog);
    input.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "send" && keep(input.value.trim())), { once: true });
    dialog.showModal();
  }).finally(() => { asking = null; });
  return asking;
}

export function keep(value) {
  if (!value) return false;
  held = value;
  try {
    sessionStorage.setItem("token", value);
  } catch { /* as above */ }
  return true;
}
