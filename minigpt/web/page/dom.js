// Elements without markup: whatever a model writes becomes text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** An element with properties (or attributes, where there is no such property) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const SIGNS = { "\n": "⏎", "\r": "␍", "\t": "⇥" };

/** A piece of text by itself: with marks for what cannot be seen. "bytes:\xe7" is a part of a character. */
export function visible(text) {
  if (text.startsWith("bytes:")) return `‹${text.slice(6).replaceAll("\\x", " ").trim()}›`;
  return text.replace(/^ | $/g, "␣").replace(/[\n\r\t]/g, (sign) => SIGNS[sign]);
}

export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

export const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

/** Moves the one tab stop of a group of elements to `next`, and the focus with it. */
export function rove(elements, next) {
  for (const each of elements) each.tabIndex = each === next ? 0 : -1;
  next.focus();
}

/** What Arrow, Home and End mean in a row of `count` places; undefined for other keys. */
export function stepOf(key, place, count) {
  const steps = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: count - 1 };
  return key in steps ? Math.max(0, Math.min(count - 1, steps[key])) : undefined;
}

/** A change that should not be lost with the page; a browser may forbid to keep it. */
export const kept = {
  get: (name) => { try { return localStorage.getItem(name); } catch { return null; } },
  set: (name, value) => { try { localStorage.setItem(name, value); } catch { /* then it is not kept */ } },
};

export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
