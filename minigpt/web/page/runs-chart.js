// A figure of curves, as SVG: axes with round numbers, one colour and one pattern of dashes a run, a cross that reads.

import { count } from "./runs-words.js";

const NS = "http://www.w3.org/2000/svg";
export const DASHES = ["", "8 3", "2 3", "10 3 2 3", "5 2", "1 2", "12 4", "4 2 1 2"];
const MARGIN = { left: 58, right: 12, top: 24, bottom: 36 };

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/**
 * Draw into `box`. curves: [{run, slot, kind: "train" | "smooth" | "eval", xs, ys}]; floors: {name: value}.
 * Where the cross is stays with the box, in units of x, so that it outlives new records.
 */
export function draw(box, { curves, floors = {}, label, across, log = false, height = 320 }) {
  const shown = curves.map((curve) => ({ ...curve, points: points(curve, log) })).filter((curve) => curve.points.length);
  const width = Math.max(240, box.clientWidth);
  const plane = planeOf(shown, floors, log, width, height);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  drawAxes(picture, plane, width, height, label, across);
  for (const [name, value] of Object.entries(floors)) drawFloor(picture, plane, width, name, value);
  for (const curve of shown) drawCurve(picture, plane, curve);
  box.figure = { shown, plane, picture, height, across };
  readout(box);
  box.replaceChildren(picture, box.readout);
  listen(box);
  cross(box);
}

function points({ xs, ys }, log) {
  return xs.map((x, i) => [x, ys[i]]).filter(([x, y]) => y !== null && y !== undefined && (!log || y > 0));
}

/** The part of the world that is shown, and where its points lie. */
function planeOf(shown, floors, log, width, height) {
  const all = shown.flatMap((curve) => curve.points);
  const heights = [...all.map(([, y]) => y), ...(all.length ? Object.values(floors) : [])];
  const [left, right] = range(all.map(([x]) => x), false), [low, high] = range(heights, log);
  const scale = log ? Math.log10 : (value) => value;
  const x = (value) => MARGIN.left + ((value - left) / (right - left)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) =>
    height - MARGIN.bottom - ((scale(value) - scale(low)) / (scale(high) - scale(low))) * (height - MARGIN.top - MARGIN.bottom);
  return { x, y, left, right, low, high, log };
}

function range(values, log) {
  let low = Infinity, high = -Infinity;
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) return log ? [0.1, 1] : [0, 1];
  if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const room = (high - low) * 0.04;
  return log ? [low / 1.05, high * 1.05] : [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/** Round numbers between two: steps of 1, 2 or 5 times a power of ten; logarithmic: these numbers themselves. */
export function ticks(low, high, log, most = 6) {
  if (log && high / low > 5) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of high / low > 1000 ? [1] : [1, 2, 5]) found.push(digit * 10 ** power);
    return found.filter((value) => value >= low && value <= high);
  }
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step);
  return found;
}

function drawAxes(picture, plane, width, height, label, across) {
  for (const value of ticks(plane.low, plane.high, plane.log)) {
    const y = plane.y(value);
    picture.append(svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
    picture.append(svg("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, short(value)));
  }
  for (const value of ticks(plane.left, plane.right, false, width < 500 ? 3 : 7)) {
    const anchor = plane.x(value) > width - 40 ? "end" : "middle";
    picture.append(svg("text", { x: plane.x(value), y: height - MARGIN.bottom + 16, "text-anchor": anchor }, short(value)));
  }
  picture.append(svg("text", { x: width - MARGIN.right, y: height - 4, "text-anchor": "end" }, across));
  picture.append(svg("text", { x: 4, y: 12 }, label));
}

function short(value) {
  if (Math.abs(value) >= 1e6) return `${count(value / 1e6)}M`;
  if (Math.abs(value) >= 1e4) return `${count(value / 1e3)}k`;
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential().replace(/(\.\d)\d+/, "$1") : count(value);
}

function drawFloor(picture, plane, width, name, value) {
  if (plane.log && value <= 0) return;
  const y = plane.y(value);
  picture.append(svg("line", { class: "floor", x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }));
  picture.append(svg("text", { x: width - MARGIN.right, y: y - 5, "text-anchor": "end" }, `${name} = ${count(value)}`));
}

function drawCurve(picture, plane, { points, slot, kind }) {
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${plane.x(x).toFixed(1)} ${plane.y(y).toFixed(1)}`).join("");
  picture.append(svg("path", { d: path, class: `${kind} s${slot}`, "stroke-dasharray": kind === "train" ? "" : DASHES[slot] }));
  if (kind === "eval" && points.length < 40)
    for (const [x, y] of points) picture.append(svg("circle", { cx: plane.x(x), cy: plane.y(y), r: 3, class: `f${slot}` }));
}

function readout(box) {
  if (box.readout) return;
  box.readout = document.createElement("p");
  box.readout.className = "readout";
  box.readout.setAttribute("aria-live", "polite");
}

function listen(box) {
  if (box.listens) return;
  box.listens = true;
  box.addEventListener("pointermove", (event) => {
    const { plane, picture } = box.figure, place = picture.getBoundingClientRect();
    const share = (event.clientX - place.left - MARGIN.left) / (place.width - MARGIN.left - MARGIN.right);
    box.at = plane.left + Math.min(1, Math.max(0, share)) * (plane.right - plane.left);
    cross(box);
  });
  box.addEventListener("pointerleave", () => { box.at = null; cross(box); });
  box.addEventListener("keydown", (event) => {
    const { plane } = box.figure, step = (plane.right - plane.left) / 50;
    const moves = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") box.at = null;
    else if (event.key in moves) box.at = Math.min(plane.right, Math.max(plane.left, (box.at ?? plane.left) + moves[event.key]));
    else return;
    event.preventDefault();
    cross(box);
  });
}

/** Show where the cross is, and what the curves are there. */
function cross(box) {
  const { shown, plane, picture, height, across } = box.figure;
  picture.querySelector(".cross")?.remove();
  box.readout.textContent = "";
  if (box.at === null || box.at === undefined || !shown.length) return;
  const x = plane.x(Math.min(plane.right, Math.max(plane.left, box.at)));
  picture.append(svg("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: height - MARGIN.bottom }));
  const near = new Map(shown.map(({ run }) => [run, []]));
  for (const { run, word, points } of shown) {
    const [, y] = points.reduce((a, b) => (Math.abs(b[0] - box.at) < Math.abs(a[0] - box.at) ? b : a));
    near.get(run).push(`${word} ${count(y)}`);
  }
  const runs = [...near].map(([run, values]) => `${run}: ${values.join(", ")}`);
  box.readout.textContent = `${across} ${count(Math.round(box.at))} – ${runs.join("; ")}`;
}
