// A curve with a mark at one of its points.

import { draw, number } from "./dom.js";

const WIDTH = 320, HEIGHT = 120, LEFT = 40, BELOW = 20, ABOVE = 8;

export function curve(xs, ys, at, name) {
  const most = Math.max(...ys, 1e-9), span = xs.at(-1) - xs[0] || 1;
  const x = (value) => LEFT + ((value - xs[0]) / span) * (WIDTH - LEFT - 10);
  const y = (value) => HEIGHT - BELOW - (value / most) * (HEIGHT - BELOW - ABOVE);
  const points = xs.map((value, i) => `${x(value).toFixed(1)},${y(ys[i]).toFixed(1)}`).join(" ");
  const text = (content, place) => draw("text", place, content);
  return draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": name, class: "curve" },
    draw("path", { d: `M${LEFT},${ABOVE} V${HEIGHT - BELOW} H${WIDTH - 8}`, class: "axis" }),
    text(number(most), { x: LEFT - 4, y: ABOVE + 6, "text-anchor": "end" }),
    text("0", { x: LEFT - 4, y: HEIGHT - BELOW, "text-anchor": "end" }),
    ...[xs[0], xs[Math.floor(xs.length / 2)], xs.at(-1)].map((value) =>
      text(`${value}×`, { x: x(value), y: HEIGHT - 5, "text-anchor": "middle" })),
    draw("polyline", { points, class: "line" }),
    draw("line", { x1: x(xs[at]), x2: x(xs[at]), y1: ABOVE, y2: HEIGHT - BELOW, class: "now" }),
    draw("circle", { cx: x(xs[at]), cy: y(ys[at]), r: 4, class: "now" }));
}
