// LoRA: an adapter's strength, what it learned, and what it writes beside its base.

import { get, post, stream } from "./api.js";
import { announce } from "./announce.js";
import { Dial } from "./dial.js";
import { find, make } from "./dom.js";
import { say, word } from "./language.js";
import { settings } from "./settings.js";
import { showSpectrum } from "./spectrum.js";
import { task } from "./task.js";
import { tinted } from "./tokens.js";

const SCALES = Array.from({ length: 21 }, (_, i) => i / 10);

export class Lora {
  constructor(section, about) {
    Object.assign(this, { section, about, chooser: find("#adapter"), spectra: new Map() });
    this.chooser.replaceChildren(...about.adapters.map((each) => make("option", { value: each.id }, `${each.id} (${each.method})`)));
    this.dial = new Dial(find("#dial"));
    this.measuring = task(find("#dial"), (signal) => this.measure(signal));
    this.learning = task(find("#spectrum"), () => this.learn());
    this.comparing = task(find("#compare"), (signal) => this.compare(signal));
    const none = !about.adapters.length;
    find(".empty", section).hidden = !none;
    find(".adapted", section).hidden = none;
    this.chooser.addEventListener("change", () => this.choose());
    find("form", section).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.isLora()) this.measuring.start();
      this.comparing.start();
    });
    if (!none) this.choose(false);
  }

  isLora = () => this.about.adapters.find((each) => each.id === this.chooser.value)?.method.toLowerCase() === "lora";

  /** The other adapter is shown; its spectrum is asked for when the section is looked at. */
  choose(learn = true) {
    this.measuring.stop();
    this.comparing.stop();
    this.dial.hide();
    find("#only-lora").hidden = this.isLora();
    find("#dial").hidden = find("#spectrum").hidden = !this.isLora();
    if (learn) this.open();
  }

  open() {
    if (this.isLora()) this.learning.start();
  }

  async measure(signal) {
    const request = { prompt: find("#lora-prompt").value, adapter: this.chooser.value, scales: SCALES, top: 12 };
    this.dial.set(await post("/api/dial", request, signal));
  }

  async learn() {
    const id = this.chooser.value;
    if (!this.spectra.has(id)) this.spectra.set(id, await get(`/api/spectrum?adapter=${encodeURIComponent(id)}`));
    if (id === this.chooser.value) showSpectrum(find(".layers", this.section), this.spectra.get(id).layers);
  }

  /** The same prompt and seed to both, at once. */
  async compare(signal) {
    const models = [this.about.model.id, this.chooser.value];
    await Promise.all(models.map((model, i) => this.answer(signal, model, find(`#answer-${i ? "adapted" : "base"}`))));
    announce(word("both-done"));
  }

  async answer(signal, model, place) {
    place.replaceChildren();
    const request = { model, prompt: find("#lora-prompt").value, details: true, logprobs: 0, ...settings() };
    for await (const { choices: [choice] } of stream("/v1/completions", request, signal)) {
      place.append(...(choice.tokens ?? []).map(tinted));
      if (choice.finish_reason) place.append(say(make("span", { className: "finish" }), `finish-${choice.finish_reason}`));
    }
  }
}
