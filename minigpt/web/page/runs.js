// The page of runs: asks every two seconds what is new, and shows it.

import { kept } from "./dom.js";
import { draw } from "./runs-chart.js";
import { Series } from "./runs-series.js";
import { showLegend, showList, showResults, showSamples, showSettings } from "./runs-tables.js";
import { current, say, speak } from "./runs-words.js";
import { keep, token } from "./token.js";

const EVERY = 2000, SLOTS = 8;
const FIGURES = ["loss", "bits_per_byte", "perplexity", "accuracy", "macro_f1", "lr", "grad_norm", "tokens_per_second"];
const ACROSS = ["step", "tokens", "seconds"];
const byId = (id) => document.getElementById(id);
const chosen = new Map(); // name -> {series, slot}
let listed = new Map(), asked = false, busy = false, again = false;

class Denied extends Error {}

async function get(path) {
  const answer = await fetch(path, token() ? { headers: { Authorization: `Bearer ${token()}` } } : {});
  if (answer.status === 401) throw new Denied();
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error?.message ?? answer.statusText), { status: answer.status });
  return body;
}

/** One round; a wish that comes meanwhile makes it two. */
async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      await round();
    } while (again);
  } catch (problem) {
    byId("ask-token").hidden = !(problem instanceof Denied);
    if (!(problem instanceof Denied)) trouble(problem.status ? problem.message : say("gone"), "gone");
  } finally {
    busy = false;
  }
}

async function round() {
  const found = await get("/api/runs");
  byId("ask-token").hidden = true;
  if (byId("trouble").dataset.kind === "gone") trouble("");
  listed = new Map(found.runs.map((run) => [run.name, run]));
  byId("directory").textContent = found.directory;
  byId("to-model").hidden = !found.model;
  byId("more").hidden = !found.more;
  if (!asked) chooseFirst(found.runs);
  asked = true;
  for (const name of [...chosen.keys()]) if (!listed.has(name)) leave(name);
  show();
  for (const { series } of [...chosen.values()]) await follow(series);
  show();
}

/** Read what is new of a run, piece by piece, until its end. */
async function follow(series) {
  const { version } = listed.get(series.name);
  while (chosen.get(series.name)?.series === series && series.version !== version) {
    const path = `/api/runs/metrics?run=${encodeURIComponent(series.name)}&after=${series.place}`;
    try {
      const moved = series.add(await get(path));
      if (!moved || series.read >= series.size) series.version = version;
    } catch (problem) {
      if (!problem.status) throw problem;
      series.version = version;
      trouble(problem.message);
    }
    if (series.version === null) show();
  }
}

function chooseFirst(runs) {
  const wanted = new URLSearchParams(location.hash.slice(1)).getAll("run").filter((name) => listed.has(name));
  const youngest = runs.filter((run) => run.state !== "unreadable").sort((a, b) => a.age - b.age).slice(0, 1).map((run) => run.name);
  for (const name of (wanted.length ? wanted : youngest).slice(0, SLOTS)) take(name);
}

function take(name) {
  const taken = [...chosen.values()].map(({ slot }) => slot);
  const slot = [...Array(SLOTS).keys()].find((place) => !taken.includes(place));
  if (slot !== undefined) chosen.set(name, { series: new Series(name), slot });
  return slot !== undefined;
}

function leave(name) {
  chosen.delete(name);
  trouble(say("deleted", { name }));
}

function choose(name, wanted) {
  trouble("");
  if (!wanted) chosen.delete(name);
  else if (!take(name)) trouble(say("full"));
  const address = new URLSearchParams([...chosen.keys()].map((each) => ["run", each]));
  history.replaceState(null, "", `#${address}`);
  show();
  refresh();
}

/** A sentence above all; one of the kind "gone" goes when the server answers again, others at the next choice. */
function trouble(text, kind = "") {
  byId("trouble").textContent = text;
  byId("trouble").dataset.kind = kind;
  byId("trouble").hidden = !text;
}

function show() {
  showList([...listed.values()].sort(byLife), chosen, choose);
  byId("looking").hidden = chosen.size === 0;
  if (!chosen.size) return;
  showFigures();
  showLegend(chosen);
  showResults(chosen, listed);
  showSettings(chosen);
  showSamples(chosen);
}

/** What runs comes first, in the order of names; then what ended last. */
function byLife(a, b) {
  const lives = (run) => run.state === "running";
  return lives(b) - lives(a) || (lives(a) ? 0 : (a.age ?? Infinity) - (b.age ?? Infinity));
}

function showFigures() {
  const figure = byId("figure").value, across = byId("across").value, log = byId("log").checked;
  const floors = figure === "loss" ? floorsOf() : {};
  const shown = { across: say(across), log, floors, label: say(figure), curves: curvesOf(figure, across) };
  draw(byId("chart"), shown);
  draw(byId("rate"), { across: say(across), label: "", curves: curvesOf("lr", across), height: 140 });
  const runs = [...chosen.keys()].join(", ");
  byId("chart").setAttribute("aria-label", say("picture", { what: say(figure), across: say(across), runs }));
  byId("rate").setAttribute("aria-label", say("picture", { what: say("lr"), across: say(across), runs }));
}

/** Flat lines; each once, and with the run's name where not all have the same. */
function floorsOf() {
  const all = [...chosen.values()].flatMap(({ series }) => Object.entries(series.floors).map(([name, value]) => [series.name, name, value]));
  const same = new Set(all.map(([, , value]) => value)).size < 2;
  return Object.fromEntries(all.map(([run, name, value]) => [same ? name : `${name}, ${run}`, value]));
}

function curvesOf(figure, across) {
  const kinds = [["train", "trained", figure], ["smooth", "trained", figure === "loss" && "smoothed"], ["eval", "evaluated", figure]];
  return [...chosen.values()].flatMap(({ series, slot }) => kinds
    .filter(([, part, column]) => series[part]?.[column])
    .map(([kind, part, column]) => ({ run: series.name, slot, kind: figure === "lr" ? "smooth" : kind, word: say(kind), xs: series[part][across], ys: series[part][column] })));
}

function fillChoices() {
  for (const [id, names] of [["figure", FIGURES], ["across", ACROSS]]) {
    const select = byId(id), value = select.value || names[0];
    select.replaceChildren(...names.map((name) => new Option(say(name), name, false, name === value)));
  }
}

function dress(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function begin() {
  dress(kept.get("theme"));
  speak(kept.get("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
  fillChoices();
  byId("language").addEventListener("click", () => { speak(current() === "en" ? "zh" : "en"); fillChoices(); show(); });
  byId("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const set = document.documentElement.dataset.theme;
    const theme = (set === "dark" || (set !== "light" && dark)) ? "light" : "dark"; // the other one of what is seen
    kept.set("theme", theme);
    dress(theme);
  });
  byId("ask-token").addEventListener("submit", (event) => {
    event.preventDefault();
    keep(byId("token").value);
    refresh();
  });
  for (const id of ["figure", "across", "log"]) byId(id).addEventListener("change", show);
  addEventListener("resize", () => chosen.size && showFigures());
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  setInterval(() => document.hidden || refresh(), EVERY);
  refresh();
}

begin();
