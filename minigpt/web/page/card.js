// The card of a token: what else could have stood there. A click on one of them, or Enter, goes on from there.

import { find, make, percent, visible } from "./dom.js";
import { label, say, word } from "./language.js";
import { nameOf } from "./tokens.js";

const PATIENCE = 250; // ms for the pointer to come from a token to its card

export class Card {
  /** `host` holds the row of tokens and the card; `choose(place, alternative)`; `end` is the id of the end of a text. */
  constructor(host, choose) {
    Object.assign(this, { host, choose, card: find(".card", host), place: -1, cell: null, closing: 0, end: null });
    host.addEventListener("pointerleave", () => this.closeSoon());
    host.addEventListener("pointerover", () => clearTimeout(this.closing));
    host.addEventListener("keydown", (event) => this.key(event));
    host.addEventListener("focusout", (event) => { if (!host.contains(event.relatedTarget)) this.closeSoon(); });
    host.addEventListener("focusin", () => clearTimeout(this.closing));
    document.addEventListener("pointerdown", (event) => { if (!host.contains(event.target)) this.close(); });
  }

  show(place, cell, token) {
    if (this.place === place && this.cell === cell && !this.card.hidden) return;
    if (this.card.contains(document.activeElement)) return; // someone is reading another one
    this.cell?.classList.remove("open");
    Object.assign(this, { place, cell });
    cell.classList.add("open");
    label(this.card, "instead", { token: nameOf(token) });
    this.card.replaceChildren(this.head(token), this.list(token));
    this.card.hidden = false;
    this.put();
  }

  head(token) {
    const share = token.logprob == null ? "" : ` ${percent(Math.exp(token.logprob))}`;
    return make("p", {}, make("b", {}, nameOf(token)), share, make("br"), say(make("span", { className: "quiet" }), "continue"));
  }

  list(token) {
    const most = Math.max(...token.top.map((each) => each.logprob), token.logprob ?? -Infinity);
    return make("ol", {}, ...token.top.map((each) => make("li", {}, this.option(token, each, most))));
  }

  option(token, each, most) {
    const bar = make("span", { className: "bar", ariaHidden: "true" }), share = Math.exp(each.logprob);
    bar.style.setProperty("--share", Math.exp(each.logprob - most));
    const text = each.id === this.end ? word("end") : visible(each.text) || word("part");
    const button = make("button", { type: "button" }, bar, make("bdi", {}, text), make("span", {}, percent(share)));
    button.dataset.id = each.id;
    if (each.id === token.id) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => this.take(each));
    return button;
  }

  take(each) {
    const place = this.place;
    this.close();
    this.choose(place, each);
  }

  /** Below its token and inside the text; on a narrow screen the style sheet puts it at the bottom. */
  put() {
    const around = this.host.getBoundingClientRect(), box = (this.cell.getClientRects()[0] ?? around);
    const left = Math.max(0, Math.min(box.left - around.left, around.width - this.card.offsetWidth));
    this.card.style.left = `${left}px`;
    this.card.style.top = `${box.bottom - around.top}px`;
  }

  enter() {
    find("[aria-current], button", this.card)?.focus();
  }

  key(event) {
    if (event.key === "Escape" && !this.card.hidden) {
      const cell = this.cell;
      this.close();
      cell.focus();
      this.close(); // the focus has opened it again
    } else if (this.card.contains(event.target) && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      const near = event.key === "ArrowDown" ? "nextElementSibling" : "previousElementSibling";
      event.target.closest("li")[near]?.firstChild.focus();
      event.preventDefault();
    }
  }

  closeSoon() {
    clearTimeout(this.closing);
    this.closing = setTimeout(() => { if (!this.host.contains(document.activeElement)) this.close(); }, PATIENCE);
  }

  close() {
    this.cell?.classList.remove("open");
    this.card.hidden = true;
    this.cell = null;
    this.place = -1;
  }
}
