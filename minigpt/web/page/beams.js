// Beams: the search for the likeliest text, step by step. Play, stop, or go to any step; at each, the texts so far.

import { announce } from "./announce.js";
import { post } from "./api.js";
import { BeamTree } from "./beam_tree.js";
import { find, isCalm, make, number, percent, visible } from "./dom.js";
import { onLanguage, say, word } from "./language.js";
import { task } from "./task.js";

const PACE = 450; // ms a step

export class Beams {
  constructor(section, model) {
    Object.assign(this, { section, model, search: null, step: 0, timer: null });
    this.scrub = find("#beam-step");
    this.tree = new BeamTree(find(".tree", section), (spot) => this.detail(spot));
    this.searching = task(section, (signal) => this.find(signal));
    find("form", section).addEventListener("submit", (event) => { event.preventDefault(); this.searching.start(); });
    for (const input of section.querySelectorAll("form input[type=range]")) {
      const show = () => { find(`output[for=${input.id}]`).value = input.value; };
      input.addEventListener("input", show);
      show();
    }
    this.scrub.addEventListener("input", () => { this.pause(); this.show(this.scrub.valueAsNumber); });
    find("#play").addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    onLanguage(() => this.search && this.show(this.step));
  }

  async find(signal) {
    this.pause();
    const value = (id) => find(id).valueAsNumber, prompt = find("#beam-prompt").value;
    const sizes = { num_beams: value("#num-beams"), max_tokens: value("#beam-tokens"), length_penalty: value("#penalty") };
    this.search = await post("/api/beams", { prompt, model: this.model(), ...sizes }, signal);
    const last = this.search.steps.length - 1;
    this.scrub.max = last;
    find(".empty", this.section).hidden = true;
    find(".player", this.section).hidden = false;
    this.tree.set(this.search);
    this.show(isCalm() ? last : 0);
    if (!isCalm()) this.play();
  }

  play() {
    const last = this.search.steps.length - 1;
    if (this.step >= last) this.show(0);
    this.timer = setInterval(() => {
      this.show(this.step + 1);
      if (this.step >= last) this.pause();
    }, PACE);
    say(find("#play"), "pause");
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    say(find("#play"), "play");
  }

  show(step) {
    this.step = step;
    this.scrub.value = step;
    const last = this.search.steps.length - 1, counts = { step: step + 1, last: last + 1 };
    this.scrub.setAttribute("aria-valuetext", word("step", counts));
    say(find("#beam-count"), "step", counts);
    this.tree.show(step);
    this.showTexts(step);
    if (step === last) announce(`${word("best")}: ${this.tree.best ? this.tree.text(this.tree.best) : ""}`);
  }

  /** The texts that are alive after this step, the best first; after the last, those that the search returns. */
  showTexts(step) {
    const tree = this.tree, atEnd = step === this.search.steps.length - 1;
    const ends = tree.ends(step).map((spot) => ({ spot, text: tree.text(spot), node: tree.node(spot) }));
    ends.sort((a, b) => (b.node.score ?? b.node.total) - (a.node.score ?? a.node.total));
    find(".texts", this.section).replaceChildren(...ends.map((end) => {
      const best = atEnd && tree.isBest(end.spot);
      const numbers = say(make("span", { className: "quiet" }), end.node.score == null ? "total" : "score",
        { total: number(end.node.total), score: number(end.node.score ?? 0) });
      const mark = best ? [say(make("b", { className: "mark" }), "best"), " "] : [];
      return make("li", { className: best ? "best" : end.node.fate }, ...mark, make("bdi", {}, end.text || "…"), " ", numbers);
    }));
  }

  /** The numbers of one candidate. */
  detail(spot) {
    const node = this.tree.node(spot);
    const values = {
      token: visible(node.text) || word(this.tree.isEnd(spot) ? "end" : "part"), share: percent(Math.exp(node.logprob)),
      total: number(node.total, 3), fate: word(`fate-${node.fate}`), text: this.tree.text(spot),
    };
    say(find("#beam-detail"), "beam-detail", values);
  }
}
