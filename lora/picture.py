"""A `spectrum.Report` as one SVG file: for each layer the singular values as bars and phi(i, j) as small heat-maps.

Written with the standard library. Colors follow the reader's light or dark mode; the scale of the heat-maps is fixed
from 0 to 1, so that any two can be compared, and under each stands what chance would give.

Shapes: a grid is (r1, r2): i counts down, j to the right.
"""

import struct
import zlib
from base64 import b64encode
from html import escape
from itertools import pairwise

from torch import Tensor

from lora import subspaces
from lora.spectrum import Overlap, Report, Spectrum

PANEL, GAP, LEFT, TOP, BELOW = 118, 52, 46, 40, 64  # pixels: a square panel, and the room around it
HEAD = 92  # title and legend
# Viridis at five places: dark to light for every kind of eye, and in grey.
COLORS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
STYLE = """
  text { font: 11px system-ui, sans-serif; fill: #1d232b } .quiet { fill: #5d6875 } .title { font-size: 17px }
  .layer { font-size: 12px; font-weight: 600 } .paper { fill: #ffffff } .axis { stroke: #8b95a1; fill: none }
  .first { fill: #2f6db5 } .second { fill: #c4622d } .map { image-rendering: pixelated }
  @media (prefers-color-scheme: dark) {
    text { fill: #e3e8ee } .quiet { fill: #a3adb9 } .paper { fill: #14181d }
    .first { fill: #78a9ea } .second { fill: #ee9a62 } }
"""


def draw(report: Report) -> str:
    """The text of an SVG file.

    >>> draw(Report(("demo",), ({"q_proj": Spectrum(1, 5.0, 1.0, (5.0,), (1.0,))},), {}))[:4]
    '<svg'
    """
    paths = sorted({path for spectra in report.spectra for path in spectra})
    panels = len(report.spectra) + 2 * bool(report.overlaps)
    card = panels * (PANEL + GAP) + LEFT
    columns = max(1, min(len(paths), 1400 // card))
    width, height = max(columns * card, 620), HEAD + -(-len(paths) // columns) * (TOP + PANEL + BELOW)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>What the updates learned</title><style>{STYLE}</style>',
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *_head(report),
    ]
    for number, path in enumerate(paths):
        x, y = number % columns * card + LEFT, HEAD + number // columns * (TOP + PANEL + BELOW)
        parts += _layer(report, path, x, y)
    return "\n".join([*parts, "</svg>\n"])


def _head(report: Report) -> list[str]:
    title = "What the update learned: " + " and ".join(report.names)
    lines = [_text(LEFT - 30, 30, title, "title")]
    if not report.overlaps:
        return [*lines, _text(LEFT - 30, 52, "bars: the singular values of dW = scale B A, one for each direction")]
    about = "bars: singular values of dW = scale B A; maps: phi(i, j), how much of the smaller subspace is shared"
    lines.append(_text(LEFT - 30, 52, about))
    stops = "".join(f'<stop offset="{n / 4}" stop-color="rgb{color}"/>' for n, color in enumerate(COLORS))
    lines.append(f'<defs><linearGradient id="scale">{stops}</linearGradient></defs>')
    lines.append(f'<rect x="{LEFT + 68}" y="64" width="160" height="10" fill="url(#scale)"/>')
    lines.append(_text(LEFT + 62, 73, "0 orthogonal", "quiet", "end"))
    return [*lines, _text(LEFT + 234, 73, "1 the same; by chance max(i, j) / d, stated under each map", "quiet")]


def _layer(report: Report, path: str, x: int, y: int) -> list[str]:
    lines = [_text(x - 30, y + 14, _short(path, (len(report.spectra) + 2 * bool(report.overlaps)) * 24), "layer")]
    found = [spectra.get(path) for spectra in report.spectra]
    top = max((it.values[0] for it in found if it is not None and it.values), default=0)  # one scale for both
    for name, it, color in zip(report.names, found, ("first", "second"), strict=False):
        if it is not None:
            lines += _bars(it, name, color, top, x, y + TOP)
        x += PANEL + GAP
    if path in report.overlaps:
        overlap = report.overlaps[path]
        for kind, grid in (("A", overlap.A), ("dW", overlap.dW)):
            lines += _map(overlap, kind, grid, report.names, x, y + TOP)
            x += PANEL + GAP
    return lines


def _bars(spectrum: Spectrum, name: str, color: str, top: float, x: int, y: int) -> list[str]:
    count = len(spectrum.values)
    step = PANEL / max(count, 1)
    bar = step if count > 32 else step * 0.8
    lines = [_text(x, y - 6, f"{_short(name, 17)}, singular values", "quiet")]
    for number, value in enumerate(spectrum.values):
        tall = PANEL * value / top if top else 0
        lines.append(
            f'<rect class="{color}" x="{x + number * step:.2f}" y="{y + PANEL - tall:.2f}" '
            f'width="{bar:.2f}" height="{tall:.2f}"/>'
        )
    lines.append(f'<path class="axis" d="M{x} {y}V{y + PANEL}H{x + PANEL}"/>')
    lines += [_text(x - 4, y + 8, f"{top:.2g}", "quiet", "end"), _text(x - 4, y + PANEL, "0", "quiet", "end")]
    lines += _ends(x, y, count, "direction")
    rank = f"effective rank {spectrum.effective_rank:.1f} of {spectrum.rank}"
    return [*lines, _text(x, y + PANEL + 30, rank), _text(x, y + PANEL + 45, f"|dW| = {spectrum.norm:.3g}")]


def _map(overlap: Overlap, kind: str, grid: Tensor, names: tuple[str, ...], x: int, y: int) -> list[str]:
    lines = [_text(x, y - 6, f"phi of {kind}", "quiet"), _frame(x, y)]
    if not grid.numel():
        return [*lines, _text(x + PANEL / 2, y + PANEL / 2, "no directions: zero", "quiet", "middle")]
    r1, r2 = grid.shape
    lines.insert(1, f'<image class="map" x="{x}" y="{y}" width="{PANEL}" height="{PANEL}" ')
    lines[1] += f'preserveAspectRatio="none" href="data:image/png;base64,{b64encode(png(grid)).decode()}"/>'
    lines += [_text(x - 4, y + 9, "1", "quiet", "end"), _text(x - 4, y + PANEL, str(r1), "quiet", "end")]
    lines.append(_text(x - 9, y + PANEL / 2, f"i of {_short(names[0], 9)}", "quiet", "middle", turned=True))
    lines += _ends(x, y, r2, f"j of {_short(names[1], 9)}")
    chance = subspaces.baseline(r1, r2, overlap.d)
    for row, (i, j) in enumerate(((0, 0), (r1 - 1, r2 - 1))):
        said = f"φ({i + 1},{j + 1}) {grid[i, j]:.3f}, chance {chance[i, j]:.3f}"
        lines.append(_text(x - 8, y + PANEL + 30 + 15 * row, said))
    return lines


def _ends(x: float, y: float, count: int, label: str) -> list[str]:
    """1 ... count below a panel, and what is counted between them."""
    below = y + PANEL + 13
    return [
        _text(x, below, "1", "quiet"),
        _text(x + PANEL, below, str(count), "quiet", "end"),
        _text(x + PANEL / 2, below, label, "quiet", "middle"),
    ]


def _frame(x: int, y: int) -> str:
    return f'<rect class="axis" x="{x}" y="{y}" width="{PANEL}" height="{PANEL}"/>'


def _text(x: float, y: float, said: str, kind: str = "", anchor: str = "start", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}"{turn}>{escape(said)}</text>'


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]


def color(value: float) -> tuple[int, int, int]:
    """0 to 1 -> red, green, blue, straight between the neighbours of COLORS.

    >>> color(0.0), color(0.125), color(1.0)
    ((68, 1, 84), (64, 42, 112), (253, 231, 37))
    """
    place = min(max(value, 0.0), 1.0) * (len(COLORS) - 1)
    number = min(int(place), len(COLORS) - 2)
    low, high = list(pairwise(COLORS))[number]
    return tuple(round(a + (b - a) * (place - number)) for a, b in zip(low, high, strict=True))


def png(grid: Tensor) -> bytes:
    """A PNG file with one pixel for each value of a grid (r1, r2) from 0 to 1: a few kB, not 4096 boxes."""
    rows, columns = grid.shape
    pixels = b"".join(b"\0" + bytes(part for value in row for part in color(value)) for row in grid.tolist())

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # 8 bits each of red, green, blue
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
