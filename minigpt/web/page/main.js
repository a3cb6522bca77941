// The page begins: language, theme, the sections and which of them is shown.

import { get } from "./api.js";
import { Attention } from "./attention.js";
import { Beams } from "./beams.js";
import { all, find, make, rove, stepOf } from "./dom.js";
import { say, startLanguage } from "./language.js";
import { Lora } from "./lora.js";
import { startSettings } from "./settings.js";
import { Talk } from "./talk.js";
import { task } from "./task.js";
import { startTheme } from "./theme.js";
import { Write } from "./write.js";

const tabs = all("[role=tab]");
let lora = null;

function open(tab) {
  for (const each of tabs) {
    const is = each === tab;
    each.setAttribute("aria-selected", is);
    each.tabIndex = is ? 0 : -1;
    find(`#${each.getAttribute("aria-controls")}`).hidden = !is;
  }
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  if (tab.getAttribute("aria-controls") === "lora") lora?.open();
}

function startTabs() {
  for (const tab of tabs) tab.addEventListener("click", () => open(tab));
  find("[role=tablist]").addEventListener("keydown", (event) => {
    const next = stepOf(event.key, tabs.indexOf(event.target), tabs.length);
    if (next === undefined) return;
    event.preventDefault();
    rove(tabs, tabs[next]);
    open(tabs[next]);
  });
  open(tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);
}

async function begin() {
  const about = await get("/api/about");
  find("#runs").hidden = !about.runs;
  find("#no-model").hidden = Boolean(about.model);
  if (!about.model) return;
  const { id, parameters, layers, heads, width, context } = about.model, chooser = find("#model");
  chooser.replaceChildren(...[id, ...about.adapters.map((each) => each.id)].map((each) => make("option", { value: each }, each)));
  say(find("#about"), "about", { parameters: parameters.toLocaleString("en"), layers, heads, width, context });
  const model = () => chooser.value;
  new Write(find("#write"), model);
  new Talk(find("#talk"), model);
  new Beams(find("#beams"), model);
  new Attention(find("#attention"), model, layers);
  lora = new Lora(find("#lora"), about);
  find("#no-chat").hidden = about.chat;
  find("#studio").hidden = false;
  startTabs();
}

startLanguage(find("#language"));
startTheme(find("#theme"));
startSettings();
task(find("#start"), begin).start();
