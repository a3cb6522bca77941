// The dial: W0 + s (alpha/r) B A for s from 0 to 2. The server measured all s at once; moving the dial only looks up.

import { curve } from "./chart.js";
import { find, make, number, percent, visible } from "./dom.js";
import { onLanguage, say, word } from "./language.js";

export class Dial {
  constructor(section) {
    Object.assign(this, { section, table: null, input: find("#scale") });
    this.input.addEventListener("input", () => this.show());
    onLanguage(() => this.table && this.show());
  }

  set(table) {
    this.table = table;
    this.input.max = table.scales.length - 1;
    this.input.value = table.scales.indexOf(1);
    find(".shown", this.section).hidden = false;
    this.rows = [...table.tokens.map((each) => this.row(each.text)), this.row(null)];
    find(".bars", this.section).replaceChildren(...this.rows.map((each) => each.item));
    this.show();
  }

  hide() {
    this.table = null;
    find(".shown", this.section).hidden = true;
  }

  row(text) {
    const bar = make("span", { className: "bar", ariaHidden: "true" }), share = make("span", { className: "share" });
    const name = text === null ? say(make("span"), "rest") : make("bdi", {}, visible(text) || "·");
    return { item: make("li", {}, bar, name, share), bar, share };
  }

  /** The distribution at the place of the dial. */
  show() {
    const { scales, tokens, rest, kl, alpha } = this.table, at = this.input.valueAsNumber;
    const values = [...tokens.map((each) => each.probabilities[at]), rest[at]];
    this.rows.forEach((row, i) => {
      row.bar.style.setProperty("--share", values[i]);
      row.item.dataset.probability = values[i];
      row.share.textContent = percent(values[i]);
    });
    const told = { scale: number(scales[at], 1), alpha: number(scales[at] * alpha, 1), kl: number(kl[at], 3) };
    this.input.setAttribute("aria-valuetext", word("dial-at", told));
    say(find("#dial-at"), "dial-at", told);
    find(".kl", this.section).replaceChildren(curve(scales, kl, at, word("kl-curve")));
  }
}
