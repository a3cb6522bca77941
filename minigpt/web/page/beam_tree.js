// The tree of a beam search as a picture: a column a step, in it the candidates, the likeliest on top.
//
// A solid box goes on, a green one has ended, a dashed one was not taken. A branch all of whose ways are lost by the
// step that is shown is pale. A spot is [step, place].

import { draw, percent, rove, visible } from "./dom.js";
import { label, word } from "./language.js";

const WIDTH = 108, HEIGHT = 46, BOX = 82, TALL = 36, EDGE = 6;
const UNITS = 9; // of text in a box; a Chinese character takes two

export class BeamTree {
  /** `look(spot)` is called when a candidate is pointed at or reached. */
  constructor(host, look) {
    Object.assign(this, { host, look, steps: [], boxes: new Map(), links: new Map(), shown: 0 });
    host.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["pointerover", "focusin", "click"]) {
      host.addEventListener(kind, (event) => { if (this.spotOf(event.target)) this.look(this.spotOf(event.target)); });
    }
  }

  set({ steps, best }) {
    Object.assign(this, { steps, best: best[0]?.spot ?? null, boxes: new Map(), links: new Map() });
    const most = Math.max(...steps.map((nodes) => nodes.length));
    const size = [EDGE * 2 + steps.length * WIDTH, EDGE * 2 + most * HEIGHT];
    const picture = draw("svg", { viewBox: `0 0 ${size.join(" ")}`, width: size[0], height: size[1], role: "group" });
    label(picture, "tree");
    steps.forEach((nodes, step) => nodes.forEach((_, place) => {
      this.links.set(`${step},${place}`, this.link([step, place]));
      this.boxes.set(`${step},${place}`, this.box([step, place]));
    }));
    picture.append(...this.links.values(), ...this.boxes.values());
    this.host.replaceChildren(picture);
    this.host.scrollLeft = 0;
  }

  node = ([step, place]) => this.steps[step][place];
  above = (spot) => [spot[0] - 1, this.node(spot).parent];
  isEnd = (spot) => this.node(spot).score != null && this.node(spot).text === "";

  /** The spots from the first step to this one. */
  path(spot) {
    const found = [];
    for (; spot[0] >= 0; spot = this.above(spot)) found.unshift(spot);
    return found;
  }

  text = (spot) => this.path(spot).map((each) => this.node(each).text).join("");

  /** The texts alive after a step: those that go on, and those that have ended. */
  ends(step) {
    const found = [];
    this.steps.slice(0, step + 1).forEach((nodes, at) => nodes.forEach((node, place) => {
      if (node.fate === "finished" || (at === step && node.fate === "running")) found.push([at, place]);
    }));
    return found;
  }

  isBest = (spot) => this.best !== null && String(spot) === String(this.best);

  show(step) {
    this.shown = step;
    const alive = new Set(this.ends(step).flatMap((spot) => this.path(spot).map(String)));
    const atEnd = step === this.steps.length - 1;
    const best = new Set(atEnd && this.best ? this.path(this.best).map(String) : []);
    for (const [key, box] of this.boxes) {
      const hidden = Number(key.split(",")[0]) > step;
      for (const each of [box, this.links.get(key)]) {
        each.classList.toggle("later", hidden);
        each.classList.toggle("lost", !alive.has(key));
        each.classList.toggle("best", best.has(key));
      }
    }
    const focused = this.spotOf(document.activeElement);
    if (!focused || focused[0] > step) this.tabStop(`${step},0`);
    this.host.scrollLeft = Math.max(this.host.scrollLeft, (step + 1) * WIDTH + EDGE * 2 - this.host.clientWidth);
  }

  tabStop(key) {
    for (const [each, box] of this.boxes) box.setAttribute("tabindex", each === key ? 0 : -1);
  }

  x = ([step]) => EDGE + step * WIDTH + (WIDTH - BOX) / 2;
  y = ([, place]) => EDGE + place * HEIGHT + HEIGHT / 2;

  link(spot) {
    const [x, y] = [this.x(spot), this.y(spot)];
    const from = spot[0] ? [this.x(this.above(spot)) + BOX, this.y(this.above(spot))] : [0, y];
    const half = (from[0] + x) / 2;
    return draw("path", { d: `M${from} C${half},${from[1]} ${half},${y} ${x},${y}`, class: `link ${this.node(spot).fate}` });
  }

  box(spot) {
    const node = this.node(spot), [x, y] = [this.x(spot), this.y(spot)];
    const text = this.isEnd(spot) && !node.text ? "■" : fit(visible(node.text)) || "·";
    const box = draw("g", { class: `box ${node.fate}`, role: "img", tabindex: -1, "data-spot": spot },
      draw("rect", { x, y: y - TALL / 2, width: BOX, height: TALL, rx: 5 }),
      draw("text", { x: x + BOX / 2, y: y - 2 }, text),
      draw("text", { x: x + BOX / 2, y: y + 13, class: "share" }, percent(Math.exp(node.logprob))));
    const name = { token: visible(node.text) || word("part"), share: percent(Math.exp(node.logprob)) };
    label(box, `box-${node.fate}`, name);
    return box;
  }

  spotOf(target) {
    const box = target?.closest?.("[data-spot]");
    return box && this.host.contains(box) ? box.dataset.spot.split(",").map(Number) : null;
  }

  /** Left to where it comes from, right to where it goes on, up and down in its column. */
  key(event) {
    const spot = this.spotOf(event.target);
    if (!spot || !event.key.startsWith("Arrow")) return;
    const [step, place] = spot;
    const below = this.steps[step + 1]?.findIndex((node) => node.parent === place) ?? -1;
    const next = {
      ArrowLeft: step > 0 && this.above(spot), ArrowRight: step < this.shown && below >= 0 && [step + 1, below],
      ArrowUp: place > 0 && [step, place - 1], ArrowDown: place + 1 < this.steps[step].length && [step, place + 1],
    }[event.key];
    event.preventDefault();
    if (next) rove([...this.boxes.values()], this.boxes.get(String(next)));
  }
}

/** As much of a text as a box holds. */
function fit(text) {
  let units = 0, shown = "";
  for (const character of text) {
    units += character.codePointAt(0) > 0x2e7f ? 2 : 1;
    if (units > UNITS) return `${shown}…`;
    shown += character;
  }
  return shown;
}
