// What an update learned: the singular values of (alpha/r) B A of every layer, all on one scale.

import { draw, make, percent, number } from "./dom.js";
import { say } from "./language.js";

const WIDTH = 120, HEIGHT = 48;

export function showSpectrum(host, layers) {
  const most = Math.max(...layers.flatMap((layer) => layer.values), 1e-9);
  host.replaceChildren(...layers.map((layer) => make("figure", {}, bars(layer, most), caption(layer))));
}

function bars({ name, values }, most) {
  const wide = WIDTH / values.length;
  const each = values.map((value, i) => {
    const height = (value / most) * (HEIGHT - 2);
    return draw("rect", { x: i * wide, y: HEIGHT - height, width: Math.max(wide - 1, 0.5), height });
  });
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name, preserveAspectRatio: "none" }, ...each);
}

function caption({ name, share, effective_rank, rank }) {
  const told = { share: share == null ? "–" : percent(share), effective: number(effective_rank, 1), rank };
  return make("figcaption", {}, make("bdi", {}, name), say(make("span", { className: "quiet" }), "layer-told", told));
}
