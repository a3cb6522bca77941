"""A beam search as a picture: a text tree for the terminal, one HTML page for a browser.

A search writes into a `Trace` which candidates each step had and what became of them. Drawn are the branches that came
to an end: the best finished ones and those still running after the last step. They are at most 2 K, however long the
search, so K = 8 over 64 steps fits on a screen. Everything else is counted, and listed where asked.

Words: a spot is (step, place), the address of a node; ROOT is the prompt, before the first step. A piece is a run of
tokens along which no two drawn branches part. A branch that is not drawn is lost.
"""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources

from minigpt.errors import Error

Decode = Callable[[list[int]], str]
Spot = tuple[int, int]
ROOT: Spot = (-1, -1)
INDENT, CONTEXT = 3, 12  # columns of a level of the text tree; characters shown of what came before a lost branch
HTML_DEPTH = 10  # nested deeper, text has no room on a phone
HALF = "(part of a character)"  # a piece whose only character ends in the next
SIGNS = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\n": "⏎", "\t": "⇥", "\x7f": "␡"}
JOINERS = {"\u200c", "\u200d"}  # they turn nothing around, and Persian and emoji need them


@dataclass(frozen=True)
class Node:
    """One candidate of one step."""

    parent: int  # its place in the list of nodes of the step before; -1 in the first step
    token: int
    logprob: float  # of this token after what came before it
    total: float  # the sum along the branch
    fate: str  # "running": among the K that go on; "finished": ended and kept; "dropped": not taken
    score: float | None = None  # total / length ** length_penalty; every finished one has it


@dataclass
class Trace:
    """What a beam search saw for one prompt: the candidates of each step, best first.

    >>> trace = Trace([[Node(-1, 7, -0.1, -0.1, "running")], [Node(0, 9, -0.2, -0.3, "finished", -0.15)]])
    >>> trace.branch(1, 0)
    [7, 9]
    """

    steps: list[list[Node]] = field(default_factory=list)

    def branch(self, step: int, place: int) -> list[int]:
        """The new tokens from the prompt to this node, its own included."""
        return [self.node(spot).token for spot in self.spots((step, place))]

    def node(self, spot: Spot) -> Node:
        return self.steps[spot[0]][spot[1]]

    def spots(self, spot: Spot) -> list[Spot]:
        """The spots from the first step to this one, none for ROOT."""
        found = []
        while spot[0] >= 0:
            found.append(spot)
            spot = (spot[0] - 1, self.node(spot).parent)
        return found[::-1]


@dataclass
class Piece:
    above: Spot  # the spot before the run
    run: list[Spot]  # down the tree; empty if branches part right after the prompt
    children: list["Piece"]
    lost: list[tuple[Spot, list[tuple[Spot, Spot]]]]  # where lost branches left; the first and last spot of each


class Tree:
    """The branches that are drawn, of the finished ones the `most` best; those that are lost; and their text."""

    def __init__(self, trace: Trace, decode: Decode, most: int):
        self.trace, self.decode = trace, decode
        self.below: dict[Spot, list[Spot]] = {ROOT: []}
        for step, nodes in enumerate(trace.steps):
            for place, node in enumerate(nodes):
                if (step - 1, node.parent) not in self.below:
                    raise Error(f"node {place} of step {step}: its parent, {node.parent}, is not in the step before")
                self.below[step - 1, node.parent].append((step, place))
                self.below[step, place] = []
        spots = [spot for spot in self.below if spot != ROOT]
        finished = [spot for spot in spots if trace.node(spot).fate == "finished"]
        finished.sort(key=lambda spot: -trace.node(spot).score)  # of equal scores the earlier stays ahead
        running = [spot for spot in spots if spot[0] == len(trace.steps) - 1 and trace.node(spot).fate == "running"]
        self.best = finished[0] if finished else None
        self.ends, self.hidden = sorted(finished[:most] + running), len(finished[most:])
        self.kept = {spot for end in self.ends for spot in trace.spots(end)}

    def grow(self, depth: int, above: Spot = ROOT, first: list[Spot] | None = None) -> Piece:
        """The piece that starts with `first`, and all below it. Past `depth` levels each branch is a piece of its own
        and repeats the beginning it shares."""
        run = list(first or [])
        while len(ways := [way for way in self.below[run[-1] if run else above] if way in self.kept]) == 1:
            run += ways
        here, covered = run[-1] if run else above, run if first else [ROOT, *run]
        if depth and ways:
            return Piece(above, run, [self.grow(depth - 1, here, [way]) for way in ways], self._lost(covered))
        branches = [[ROOT, *self.trace.spots(end)] for end in self.ends]
        tails = [branch[here[0] + 2 :] for branch in branches if here in branch[:-1]]
        covered = covered + sorted({spot for tail in tails for spot in tail})
        return Piece(above, run, [Piece(here, tail, [], []) for tail in tails], self._lost(covered))

    def _lost(self, covered: list[Spot]) -> list[tuple[Spot, list[tuple[Spot, Spot]]]]:
        found = []
        for spot in covered:
            ways, to_see = [], [(way, way) for way in self.below[spot][::-1] if way not in self.kept]
            while to_see:
                first, last = to_see.pop()
                to_see += [(first, way) for way in self.below[last][::-1]]
                ways += [] if self.below[last] else [(first, last)]
            found += [(spot, ways)] if ways else []
        return found

    def text(self, above: Spot, last: Spot) -> str:
        """What the tokens after `above` up to `last` add. A character cut in half belongs to the piece that ends it."""
        text = self._whole(last) if self.below[last] else self.decode(self.trace.branch(*last))
        return visible(text[len(self._whole(above)) :]) or HALF

    def _whole(self, spot: Spot) -> str:
        return self.decode(self.trace.branch(*spot)).rstrip("\ufffd") if spot != ROOT else ""

    def before(self, spot: Spot) -> str:
        return "(prompt)" if spot == ROOT else visible("…" + self._whole(spot)[-CONTEXT:])

    def cuts(self, above: Spot, run: list[Spot]) -> list[tuple[Spot, Spot]]:
        """A run cut at whole characters: (the spot above, the last spot) of each part, most often a single token."""
        ends = [
            spot for spot, before in zip(run, [above, *run], strict=False) if self._whole(spot) > self._whole(before)
        ]
        ends[-1:] = run[-1:]  # half a character at the end of the run stays with the part before it
        return list(zip([above, *ends], ends, strict=False))

    def logprob(self, above: Spot, last: Spot) -> float:
        """log P of the tokens after `above` up to `last`."""
        return sum(self.trace.node(spot).logprob for spot in self.trace.spots(last)[above[0] + 1 :])

    def percent(self, spot: Spot) -> str:
        share = math.exp(self.trace.node(spot).logprob)
        return f"{share:4.0%}" if share >= 0.005 else " <1%"

    def end(self, spot: Spot) -> str:
        """How a branch ended, in words; "" for one that was dropped."""
        node = self.trace.node(spot)
        if node.fate == "finished":
            return f"■ finished, score {node.score:.3f}" + (" ★ best" if spot == self.best else "")
        return f"▸ still running, total {node.total:.3f}" if spot in self.ends else ""

    def summary(self) -> str:
        """One line that counts the branches by how they ended."""
        fates, steps = [self.trace.node(end).fate for end in self.ends], len(self.trace.steps)
        lost = sum(not ways for spot, ways in self.below.items() if spot != ROOT) - len(self.ends) - self.hidden
        hidden = f" ({self.hidden} not drawn)" if self.hidden else ""
        finished = f"{fates.count('finished') + self.hidden} finished{hidden}"
        return f"{steps} step{'s' * (steps != 1)}: {finished}, {fates.count('running')} still running, {lost} dropped"


def as_text(trace: Trace, decode: Decode, width: int = 100, dropped: bool = False, most: int = 8) -> str:
    """The tree as lines of at most `width` columns, 30 or more; a number is the probability of the next token.

    Of the finished branches the `most` best are drawn: give K. `dropped` lists below each piece the branches that left
    it and are not drawn: ✗ …before 17% [text]. Where indenting takes half the width, branches repeat what they share.

    >>> ids = [Node(-1, 65, -0.2, -0.2, "running"), Node(-1, 66, -2.0, -2.0, "finished", -2.0)]
    >>> print(as_text(Trace([ids]), lambda ids: bytes(ids).decode()))
    1 step: 1 finished, 1 still running, 0 dropped
    (prompt)
    ├─  82% A  ▸ still running, total -0.200
    └─  14% B  ■ finished, score -2.000 ★ best
    """
    tree, width = Tree(trace, decode, most), max(width, 30)
    lines = _broken(tree.summary(), width)
    if trace.steps:
        lines += _draw(tree, tree.grow(width // 2 // INDENT), "", "", width, dropped)
    return "\n".join(lines)


def _draw(tree: Tree, piece: Piece, head: str, rest: str, width: int, dropped: bool) -> list[str]:
    guide = rest + ("│" if piece.children else " ")
    lines = ["(prompt)"]
    if piece.run:
        text, end = tree.text(piece.above, piece.run[-1]), tree.end(piece.run[-1])
        lines = _wrap(f"{head}{tree.percent(piece.run[0])} ", f"{guide}    ", text, end, width)
    for left, ways in piece.lost if dropped else []:
        said = [f"{tree.percent(a)} [{tree.text(left, b)}] {tree.end(b)}".strip() for a, b in ways]
        lines += _wrap(f"{guide}  ✗ ", f"{guide}    ", "  ".join([tree.before(left), *said]), "", width)
    for child in piece.children:
        mark, below = ("└─ ", "   ") if child is piece.children[-1] else ("├─ ", "│  ")
        lines += _draw(tree, child, rest + mark, rest + below, width, dropped)
    return lines


def _wrap(head: str, rest: str, text: str, end: str, width: int) -> list[str]:
    """`head` + text + end as lines, the later ones beginning with `rest`, which is as wide."""
    room = width - len(head)
    lines = _broken(text, room)
    if end and _columns(f"{lines[-1]}  {end}") <= room:
        lines[-1] += f"  {end}"
    elif end:
        lines += _broken(end, room)
    return [((rest if i else head) + line).rstrip() for i, line in enumerate(lines)]


def _broken(text: str, room: int) -> list[str]:
    """Parts of at most `room` columns, cut at a blank where one is near."""
    parts = []
    while _columns(text) > room:
        fits = next((i for i in range(min(room, len(text)), 0, -1) if _columns(text[:i]) <= room), 1)
        blank = text.rfind(" ", 0, fits) + 1
        fits = blank if blank > fits // 2 else fits
        parts, text = [*parts, text[:fits]], text[fits:]
    return [*parts, text]


def _columns(text: str) -> int:
    """Columns in a terminal: Chinese characters take two, marks that combine none."""
    marks = sum(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in text)
    return len(text) - marks + sum(unicodedata.east_asian_width(char) in "WF" for char in text)


def visible(text: str) -> str:
    r"""Line breaks, tabs and controls as signs: no text can move the cursor, hide or turn what follows it.

    >>> visible("no\ncough\x1b[2J\u202e"), visible(" ")
    ('no⏎cough␛[2J⟨202E⟩', '␣')
    """
    text = text.replace(" ", "␣") if text.isspace() else text
    hidden = {char for char in set(text) - JOINERS if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    signs = {char: f"⟨{ord(char):04X}⟩" for char in hidden} | SIGNS
    return "".join(signs.get(char, char) for char in text)


def as_html(trace: Trace, decode: Decode, title: str, most: int = 8) -> str:
    """The tree as one page without scripts: nested lists, probability as color, numbers on hover, focus or tap.

    What is lost stands folded under the piece it left. Text is escaped: a note that looks like HTML is shown.
    """
    import jinja2

    template = resources.files(__package__).joinpath("tree.html").read_text(encoding="utf-8")
    tree = Tree(trace, decode, most)
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(title=visible(title), tree=tree, root=tree.grow(HTML_DEPTH), exp=math.exp)
