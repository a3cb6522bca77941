// Something a person started and may stop: one at a time in a section, its problem in one sentence beside it.

import { find, make } from "./dom.js";
import { say, tell } from "./language.js";

/** `work(signal, ...)` is run by `start`; the section's [data-stop] stops it, its .problem shows what went wrong. */
export function task(section, work) {
  const problem = find(".problem", section), stopper = find("[data-stop]", section);
  let controller = null;

  async function start(...args) {
    stop();
    const mine = (controller = new AbortController());
    problem.replaceChildren();
    busy(true);
    try {
      await work(mine.signal, ...args);
    } catch (error) {
      if (error.name !== "AbortError") show(problem, error, () => start(...args));
    } finally {
      if (mine === controller) end();
    }
  }

  function stop() {
    controller?.abort();
    end();
  }

  function end() {
    controller = null;
    busy(false);
  }

  function busy(is) {
    section.setAttribute("aria-busy", is);
    if (stopper) stopper.disabled = !is;
  }

  stopper?.addEventListener("click", stop);
  return { start, stop };
}

function show(place, error, retry) {
  const sentence = make("span");
  tell(sentence, error.message);
  if (error.gone) say(sentence, "gone");
  place.replaceChildren(sentence);
  if (error.gone) place.append(say(make("button", { type: "button", onclick: retry }), "retry"));
}
