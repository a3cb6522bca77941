// What a screen reader says while text appears: a sentence at a time, not a token at a time.

import { find } from "./dom.js";

const ENOUGH = 120; // characters, for texts without an end of a sentence
let waiting = "";

export function announce(sentence) {
  waiting = "";
  find("#live").textContent = sentence;
}

/** More of a text: said as far as its last whole sentence. */
export function announceMore(text) {
  waiting += text;
  const end = waiting.search(/[.!?。！？\n][^.!?。！？\n]*$/);
  if (end < 0 && waiting.length < ENOUGH) return;
  const cut = end < 0 ? waiting.length : end + 1;
  find("#live").textContent = waiting.slice(0, cut);
  waiting = waiting.slice(cut);
}
