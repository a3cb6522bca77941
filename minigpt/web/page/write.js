// Write: a prompt, and how the model goes on. From any token one may go on another way; every way taken is a branch.
//
//   branch 0   The patient has | a cough and fever.
//   branch 1   The patient has | a cough and chest pain.       " chest" for " fever", token 3 of branch 0
//
// A branch is read again as ids, so that its beginning is the same to the token.

import { announce, announceMore } from "./announce.js";
import { stream } from "./api.js";
import { Card } from "./card.js";
import { find, make, visible } from "./dom.js";
import { onLanguage, say, word } from "./language.js";
import { settings } from "./settings.js";
import { task } from "./task.js";
import { TokenRow, legend } from "./tokens.js";

const ALTERNATIVES = 10;

export class Write {
  constructor(section, model) {
    Object.assign(this, { section, model, branches: [], shown: null });
    this.prompt = find("textarea", section);
    this.card = new Card(find(".paper", section), (place, other) => this.follow(place, other));
    this.row = new TokenRow(find(".tokens", section), {
      open: (place, cell) => this.card.show(place, cell, this.shown.tokens[place]),
      enter: () => this.card.enter(),
    });
    this.writing = task(section, (signal, branch, prompt) => this.write(signal, branch, prompt));
    legend(find(".legend", section));
    find("form", section).addEventListener("submit", (event) => { event.preventDefault(); this.begin(); });
    find("#undo").addEventListener("click", () => this.undo());
    onLanguage(() => this.showHistory());
  }

  begin() {
    const branch = { before: [], tokens: [], from: null, finish: null };
    this.branches = [];
    this.open(branch);
    return this.writing.start(branch, this.prompt.value);
  }

  /** A new branch: what stands before `place`, the other token there, and what the model makes of it. */
  follow(place, other) {
    const from = this.shown, old = from.tokens[place];
    if (other.id === old.id) return;
    const chosen = { id: other.id, text: "", logprob: other.logprob, top: old.top, chosen: true };
    const branch = { before: from.before, from, place, old, other, finish: null };
    this.open({ ...branch, tokens: [...from.tokens.slice(0, place), chosen] });
    if (other.id === this.card.end) return this.end(this.shown, "stop");
    this.writing.start(this.shown, [...this.shown.before, ...this.shown.tokens].map((token) => token.id));
  }

  async write(signal, branch, prompt) {
    const request = { model: this.model(), prompt, details: true, logprobs: ALTERNATIVES, ...settings() };
    for await (const { choices: [choice] } of stream("/v1/completions", request, signal)) {
      if (choice.prompt_tokens) this.read(branch, choice.prompt_tokens);
      this.append(branch, choice.tokens ?? []);
      if (choice.finish_reason) this.end(branch, choice.finish_reason);
    }
  }

  /** What the server read: the text of the prompt's tokens, and of those that were written before. */
  read(branch, read) {
    const written = branch.tokens.length;
    branch.before = read.slice(0, read.length - written);
    if (!written) this.card.end = read[0]?.text === "" ? read[0].id : null;
    read.slice(read.length - written).forEach((token, place) => {
      if (written) branch.tokens[place] = { ...branch.tokens[place], text: token.text };
    });
    this.show(branch);
  }

  append(branch, tokens) {
    branch.tokens.push(...tokens);
    if (branch !== this.shown) return;
    this.row.add(tokens);
    announceMore(tokens.map((token) => token.text).join(""));
  }

  open(branch) {
    this.branches.push(branch);
    this.card.close();
    this.show(branch);
  }

  show(branch) {
    this.shown = branch;
    this.row.set(branch.tokens, branch.before.map((token) => token.text).join(""));
    find(".empty", this.section).hidden = true;
    this.showEnd();
    this.showHistory();
  }

  end(branch, finish) {
    branch.finish = finish;
    if (branch !== this.shown) return;
    this.showEnd();
    announce(word(`finish-${finish}`));
  }

  showEnd() {
    const place = find(".finish", this.section);
    place.hidden = !this.shown.finish;
    if (this.shown.finish) say(place, `finish-${this.shown.finish}`);
  }

  undo() {
    if (!this.shown?.from) return;
    this.writing.stop();
    this.show(this.shown.from);
  }

  showHistory() {
    const list = find(".history", this.section);
    find("#undo").disabled = !this.shown?.from;
    list.replaceChildren(...this.branches.map((branch) => make("li", {}, this.entry(branch))));
    list.parentElement.hidden = this.branches.length < 2;
  }

  entry(branch) {
    const button = make("button", { type: "button", onclick: () => { this.card.close(); this.show(branch); } });
    if (branch === this.shown) button.setAttribute("aria-current", "true");
    if (!branch.from) return say(button, "branch-first");
    const texts = { other: nameOf(branch.other, this.card.end), old: nameOf(branch.old), place: branch.place + 1 };
    return say(button, "branch", texts);
  }
}

const nameOf = (token, end = null) => (token.id === end ? word("end") : visible(token.text) || word("part"));
