// The list of runs, and the tables and samples of those that were chosen. All text is text, never HTML.

import { DASHES, svg } from "./runs-chart.js";
import { count, say, span } from "./runs-words.js";

const SIGNS = { running: "▶", silent: "?", stopped: "■", finished: "✓", unreadable: "✕" };
const byId = (id) => document.getElementById(id);

export function make(name, text = "", className = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** The list; boxes that are there stay, with the focus they have. */
export function showList(runs, chosen, choose) {
  const list = byId("list"), before = new Map([...list.children].map((item) => [item.dataset.run, item]));
  const items = runs.map((run) => before.get(run.name) ?? newItem(run.name, choose));
  if (items.length !== list.children.length || items.some((item, i) => list.children[i] !== item)) list.replaceChildren(...items);
  runs.forEach((run, i) => fillItem(items[i], run, chosen.has(run.name)));
  byId("empty").hidden = runs.length > 0;
  byId("count").textContent = runs.length ? `(${runs.length})` : "";
}

function newItem(name, choose) {
  const item = make("li"), label = make("label"), box = make("input");
  item.dataset.run = name;
  box.type = "checkbox";
  box.addEventListener("change", () => choose(name, box.checked));
  label.append(box, make("span", name, "name"), make("span", "", "state"), make("span", "", "facts"));
  item.append(label);
  return item;
}

function fillItem(item, run, checked) {
  const [box, , state, facts] = item.firstChild.children;
  box.checked = checked;
  state.className = `state ${run.state}`;
  state.textContent = `${SIGNS[run.state]} ${say(run.state)}`;
  facts.replaceChildren(...factsOf(run));
}

function factsOf(run) {
  if (run.state === "unreadable") return [make("span", run.problem)];
  const texts = [run.steps ? say("of", { step: count(run.step), steps: count(run.steps) }) : say("at", { step: count(run.step) })];
  if (run.method) texts.push(run.method);
  if (run.evaluation?.loss != null) texts.push(`${say("validation")} ${count(run.evaluation.loss)}`);
  else if (run.loss !== null) texts.push(`${say("training")} ${count(run.loss)}`);
  if (run.state === "running") {
    if (run.tokens_per_second) texts.push(say("speed", { count: count(run.tokens_per_second) }));
    if (run.left !== null) texts.push(say("left", { time: span(run.left) }));
  }
  texts.push(run.state === "silent" ? say("silent_long", { time: span(run.age) }) : say("ago", { time: span(run.age) }));
  const spans = texts.map((text) => make("span", text));
  if (!run.steps) return spans;
  const bar = make("progress");
  [bar.max, bar.value] = [run.steps, run.step];
  bar.setAttribute("aria-label", texts[0]);
  return [bar, ...spans];
}

/** Which line is whose. */
export function showLegend(chosen) {
  byId("legend").replaceChildren(...[...chosen.values()].map(({ series, slot }) => {
    const item = make("li"), line = svg("line", { x1: 0, x2: 35, y1: 6, y2: 6, class: `s${slot}`, "stroke-dasharray": DASHES[slot] });
    item.append(svg("svg", { viewBox: "0 0 35 12", "aria-hidden": "true" }, line), series.name);
    const done = series.size ? Math.floor((100 * series.read) / series.size) : 0;
    if (series.version === null) item.append(make("span", ` ${say("reading", { share: done })}`, "soft"));
    if (series.unreadable) item.append(make("span", ` – ${say("lines", { count: series.unreadable })}`, "soft"));
    return item;
  }));
}

function fillTable(table, names, rows) {
  const head = make("tr");
  head.append(make("td"), ...names.map((name) => Object.assign(make("th", name), { scope: "col" })));
  const body = rows.map(([name, cells]) => {
    const row = make("tr");
    row.append(Object.assign(make("th", name), { scope: "row" }), ...cells.map((cell) => make("td", cell)));
    return row;
  });
  table.replaceChildren(head, ...body);
}

/** What came of them, a column a run. */
export function showResults(chosen, listed) {
  const runs = [...chosen.values()].map(({ series }) => ({ series, about: listed.get(series.name) ?? {} }));
  const last = (columns, name) => columns?.[name]?.at(-1) ?? null;
  const best = ({ series }, column) => {
    const found = series.best(column);
    return found ? say("at_step", { value: count(found.value), step: count(found.step) }) : "–";
  };
  const final = (name) => ({ about }) => count(about.final?.[name]);
  const rows = [
    ["method", ({ about }) => about.method || "–"], ["trains", ({ about }) => count(about.trains)],
    ["step", ({ about }) => count(about.step)], ["tokens", ({ series }) => count(last(series.trained, "tokens"))],
    ["seconds", ({ series }) => count(last(series.trained, "seconds"))],
    ["tokens_per_second", ({ about }) => count(about.tokens_per_second)],
    ["last_loss", ({ about }) => count(about.loss)], ["best", (run) => best(run, "loss")], ["final_loss", final("loss")],
    ["bits_per_byte", final("bits_per_byte")], ["accuracy", final("accuracy")], ["macro_f1", final("macro_f1")],
    ["memory", ({ about }) => (about.final?.peak_memory ? `${count(about.final.peak_memory / 2 ** 20)} MiB` : "–")],
  ].map(([name, cell]) => [say(name), runs.map(cell)]);
  fillTable(byId("results"), [...chosen.keys()], rows.filter(([, cells]) => cells.some((cell) => cell !== "–")));
}

/** What they were told: of one run everything, of several what differs. */
export function showSettings(chosen) {
  const all = [...chosen.values()].map(({ series }) => series.settings);
  const names = [...new Set(all.flatMap((settings) => Object.keys(settings)))];
  const text = (value) => (value === undefined || value === "" ? "–" : String(value));
  const rows = names.map((name) => [name, all.map((settings) => text(settings[name]))]);
  const shown = all.length === 1 ? rows : rows.filter(([name, cells]) => name !== "out" && new Set(cells).size > 1);
  const box = byId("settings-title").parentElement, alone = String(all.length === 1);
  if (box.dataset.alone !== alone) [box.open, box.dataset.alone] = [all.length > 1, alone]; // whoever opens it keeps it open
  byId("settings-title").textContent = say(all.length === 1 ? "settings" : "different");
  byId("alike").hidden = shown.length > 0 || all.length === 1;
  fillTable(byId("settings"), [...chosen.keys()], shown);
}

/** What they wrote. Redrawn only when there is something new: somebody may be reading, or marking text. */
export function showSamples(chosen) {
  const box = byId("samples"), samples = [...chosen.values()].flatMap(({ series }) => series.samples.map((s) => ({ ...s, run: series.name })));
  const key = JSON.stringify([document.documentElement.lang, samples.map((s) => [s.run, s.step, s.text])]);
  byId("no-samples").hidden = samples.length > 0;
  if (box.key === key) return;
  box.key = key;
  samples.sort((a, b) => b.step - a.step);
  box.replaceChildren(...samples.flatMap(({ run, step, text }) =>
    [make("div", `${run}, ${say("after", { step: count(step) })}`, "soft"), make("pre", text)]));
}
