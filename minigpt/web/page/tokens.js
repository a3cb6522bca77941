// A text, token by token. The less likely a token was, the stronger its tint; the least likely are underlined too.
//
// One tab stop leads into the text, arrow keys from token to token. A token whose character is not complete has no
// text: it is a dot.

import { find, all, make, percent, rove, stepOf, visible } from "./dom.js";
import { onLanguage, word } from "./language.js";

const TINTS = 10;

/** The class of a probability: q0 the least likely tenth, q9 the likeliest. */
export const tint = (logprob) => `q${Math.min(TINTS - 1, Math.floor(TINTS * Math.exp(logprob)))}`;

/** What a token is called when it is read out or stands by itself. */
export const nameOf = (token) => (token.text ? `“${visible(token.text)}”` : word(token.start ? "start" : "part"));

export class TokenRow {
  /** `open(place, cell)` is called when a token is pointed at, reached by keyboard or tapped; `enter` for Enter. */
  constructor(host, { open, enter = () => {} } = {}) {
    Object.assign(this, { host, open, enter, cells: [], tokens: [] });
    host.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["pointerover", "focusin", "click"]) host.addEventListener(kind, (event) => this.point(event));
    onLanguage(() => this.cells.forEach((cell, place) => cell.setAttribute("aria-label", this.label(place))));
  }

  /** Shows these tokens and no others, after a text that is not looked into. */
  set(tokens, before = "") {
    this.cells = [];
    this.tokens = [];
    this.host.replaceChildren(make("span", { className: "before" }, before));
    this.add(tokens);
  }

  add(tokens) {
    for (const token of tokens) {
      const cell = make("span", { className: classOf(token), role: "button" }, ...linesOf(token.text));
      cell.tabIndex = this.cells.length ? -1 : 0;
      this.tokens.push(token);
      this.cells.push(cell);
      cell.setAttribute("aria-label", this.label(this.cells.length - 1));
      this.host.append(cell);
    }
  }

  label(place) {
    const token = this.tokens[place];
    return token.logprob == null ? nameOf(token) : `${nameOf(token)} ${percent(Math.exp(token.logprob))}`;
  }

  point(event) {
    const place = this.cells.indexOf(event.target.closest(".token"));
    if (place < 0 || (event.type === "pointerover" && event.pointerType !== "mouse")) return;
    if (event.type === "click") rove(this.cells, this.cells[place]);
    this.open?.(place, this.cells[place], event.type);
  }

  key(event) {
    const place = this.cells.indexOf(event.target);
    if (place < 0) return;
    const next = stepOf(event.key, place, this.cells.length);
    if (next !== undefined) rove(this.cells, this.cells[next]);
    else if (["Enter", " ", "ArrowDown"].includes(event.key)) this.enter(place, this.cells[place]);
    else return;
    event.preventDefault();
  }
}

function classOf(token) {
  const kinds = ["token"];
  if (token.logprob != null) kinds.push(tint(token.logprob));
  if (!token.text) kinds.push("part");
  if (token.chosen) kinds.push("chosen");
  return kinds.join(" ");
}

/** The text in pieces, each that begins with a new line marked, so that the mark stands where the line ends. */
const linesOf = (text) => text.split(/(?=\n)/).map((piece) => (piece.startsWith("\n") ? make("span", { className: "line" }, piece) : piece));

/** A piece of a text that is only looked at. */
export const tinted = (token) => make("span", { className: classOf(token) }, ...linesOf(token.text));

/** The key to the tints, for people. */
export function legend(host) {
  const samples = [0.05, 0.35, 0.65, 0.95].map((share) =>
    make("span", { className: `token ${tint(Math.log(share))}` }, ` ${10 * Math.floor(10 * share)}–${10 * Math.floor(10 * share) + 10} % `));
  find(".samples", host).replaceChildren(...samples.flatMap((each) => [each, " "]));
  return all(".token", host);
}
