// Talk: a conversation. The model reads as much of it as fits; the answer appears as it is written.

import { announceMore } from "./announce.js";
import { stream } from "./api.js";
import { find, make } from "./dom.js";
import { say } from "./language.js";
import { settings } from "./settings.js";
import { task } from "./task.js";

export class Talk {
  constructor(section, model) {
    Object.assign(this, { section, model, messages: [] });
    this.list = find(".messages", section);
    this.input = find("#say", section);
    this.answering = task(section, (signal) => this.answer(signal));
    find("form", section).addEventListener("submit", (event) => { event.preventDefault(); this.ask(); });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.ask();
    });
    find("#clear", section).addEventListener("click", () => this.clear());
  }

  ask() {
    const content = this.input.value.trim();
    if (!content) return this.input.focus();
    this.input.value = "";
    this.put("user", content);
    this.answering.start();
  }

  async answer(signal) {
    const { top_k, top_p, temperature, max_tokens, seed } = settings(), system = find("#system", this.section).value.trim();
    const said = this.messages.filter((message) => message.content.trim()); // an answer may have been stopped at once
    const messages = said.map(({ role, content }) => ({ role, content }));
    if (system) messages.unshift({ role: "system", content: system });
    const chosen = Object.entries({ top_k, top_p }).filter(([, value]) => value !== undefined);
    const request = { model: this.model(), messages, temperature, max_tokens, seed, ...Object.fromEntries(chosen) };
    let answer = null;
    for await (const { choices: [choice] } of stream("/v1/chat/completions", request, signal)) {
      const text = choice.delta.content ?? "";
      answer ??= this.put("assistant", "");
      answer.content += text;
      answer.place.append(text);
      answer.place.scrollIntoView({ block: "nearest" });
      announceMore(text);
    }
    if (answer && !answer.content) say(answer.place, "no-answer").classList.add("quiet");
  }

  put(role, content) {
    const place = make("p", {}, content), message = { role, content, place };
    this.messages.push(message);
    this.list.append(make("li", { className: role }, say(make("b", { className: "quiet" }), role), place));
    find(".empty", this.section).hidden = true;
    return message;
  }

  clear() {
    this.answering.stop();
    this.messages = [];
    this.list.replaceChildren();
    find(".empty", this.section).hidden = false;
    this.input.focus();
  }
}
