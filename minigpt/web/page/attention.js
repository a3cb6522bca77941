// Attention: where each token of a text looks, in one head of one layer. A token sees itself and what came before.
//
// weights [head][query][key]. What a tuning method puts in front of the text has keys too, and no token: P1, P2, ...

import { post } from "./api.js";
import { all, find, make, percent, rove, stepOf, visible } from "./dom.js";
import { onLanguage, say, word } from "./language.js";
import { onTheme } from "./theme.js";
import { Matrix } from "./matrix.js";
import { task } from "./task.js";
import { TokenRow } from "./tokens.js";

const MOST = 5; // of what a token looks at, in words

export class Attention {
  constructor(section, model, layers) {
    Object.assign(this, { section, model, asked: null, found: null, head: 0, query: 0, layers: new Map() });
    this.layer = find("#layer");
    this.layer.replaceChildren(...Array.from({ length: layers }, (_, i) => make("option", { value: i }, String(i + 1))));
    this.row = new TokenRow(find(".tokens", section), { open: (place) => this.look(place) });
    this.matrix = new Matrix(find("#matrix"), (query) => this.look(query - this.rowsInFront));
    this.reading = task(section, (signal) => this.read(signal));
    find("form", section).addEventListener("submit", (event) => { event.preventDefault(); this.ask(); });
    this.layer.addEventListener("change", () => this.asked && this.reading.start());
    find(".heads", section).addEventListener("keydown", (event) => this.key(event));
    onTheme(() => this.found && this.paint());
    onLanguage(() => this.found && this.paint());
  }

  ask() {
    this.asked = { text: find("#attention-text").value, model: this.model() };
    this.layers = new Map();
    this.query = 0;
    this.reading.start();
  }

  async read(signal) {
    const layer = Number(this.layer.value);
    if (!this.layers.has(layer)) this.layers.set(layer, await post("/api/attention", { ...this.asked, layer }, signal));
    this.found = this.layers.get(layer);
    this.head = Math.min(this.head, this.found.weights.length - 1);
    this.query = this.query || this.found.tokens.length - 1;
    find(".empty", this.section).hidden = true;
    find(".shown", this.section).hidden = false;
    this.row.set(this.found.tokens.map((token, place) => (place || token.text ? token : { ...token, start: true })));
    this.paint();
  }

  get inFront() {
    return this.found.weights[0][0].length - this.found.tokens.length;
  }

  /** All small heads, the large one, and the row of the chosen token. */
  paint() {
    const heads = find(".heads", this.section), had = heads.contains(document.activeElement);
    this.canvases = [];
    heads.replaceChildren(...this.found.weights.map((weights, head) => this.small(weights, head)));
    for (const [matrix, weights] of this.canvases) matrix.set(weights); // colours are known to what is on the page
    if (had) heads.children[this.head].focus();
    this.matrix.set(this.found.weights[this.head]);
    this.look(this.query);
  }

  small(weights, head) {
    const canvas = make("canvas", { className: "small", ariaHidden: "true" });
    const button = make("button", { type: "button", tabIndex: head === this.head ? 0 : -1, ariaPressed: String(head === this.head) },
      canvas, say(make("span"), "head", { head: head + 1 }));
    button.addEventListener("click", () => { this.head = head; this.paint(); find(".heads", this.section).children[head].focus(); });
    this.canvases.push([new Matrix(canvas), weights]);
    return button;
  }

  key(event) {
    const buttons = all(".heads button", this.section), next = stepOf(event.key, buttons.indexOf(event.target), buttons.length);
    if (next === undefined) return;
    event.preventDefault();
    rove(buttons, buttons[next]);
  }

  /** Where a token looks: heat over the text, a line in the matrix, and in words. */
  look(place) {
    if (place < 0 || place >= this.found.tokens.length) return;
    this.query = place;
    const weights = this.found.weights[this.head][place + this.rowsInFront], names = this.names();
    const most = Math.max(...weights);
    this.row.cells.forEach((cell, key) => {
      const weight = weights[key + this.inFront];
      cell.style.setProperty("--heat", most ? weight / most : 0);
      cell.dataset.weight = weight;
      cell.classList.toggle("query", key === place);
    });
    this.matrix.mark(place + this.rowsInFront);
    const order = weights.map((weight, key) => ({ weight, name: names[key] })).sort((a, b) => b.weight - a.weight).slice(0, MOST);
    const targets = order.filter((each) => each.weight > 0).map((each) => `${each.name} ${percent(each.weight)}`).join(" · ");
    say(find("#looks"), "looks", { token: names[place + this.inFront], targets });
  }

  get rowsInFront() {
    return this.found.weights[0].length - this.found.tokens.length;
  }

  names() {
    const begin = Array.from({ length: this.inFront }, (_, i) => `P${i + 1}`);
    return [...begin, ...this.found.tokens.map((token, i) => (token.text ? `“${visible(token.text)}”` : word(i ? "part" : "start")))];
  }
}
