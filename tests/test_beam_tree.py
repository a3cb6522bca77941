"""Pictures of beam searches: what is drawn is read back and compared with a small beam search written here.

Shapes: V tokens, K beams. Token 0 ends a text. The next token depends on the last alone: a table (V, V).
"""

import math
import random
import re
import unicodedata
from html.parser import HTMLParser

import pytest

from minigpt import Error
from minigpt.generation.tree import Node, Trace, Tree, as_html, as_text

LETTERS = "$abcdefghijk"
VOID = {"meta", "br", "hr", "img", "input", "link"}


def letters(ids):
    return "".join(LETTERS[i] for i in ids)


def utf8(ids):
    return bytes(ids).decode("utf-8", "replace")


def search(seed, K=3, V=6, steps=6, peak=2.0):
    """A trace, and what it should show: {text: fate} of each candidate, kept without parents."""
    draw = random.Random(seed)
    table = [[math.exp(peak * draw.gauss(0, 1)) for _ in range(V)] for _ in range(V)]
    table = [[math.log(p / sum(row)) for p in row] for row in table]
    beams, trace, seen = [((), 0.0, -1)], Trace(), []
    for step in range(steps):
        ways = [
            (
                total + table[text[-1] if text else 1][token],
                (*text, token),
                place,
                table[text[-1] if text else 1][token],
            )
            for text, total, place in beams
            for token in range(V)
        ]
        nodes, beams = [], []
        for rank, (total, text, parent, logprob) in enumerate(sorted(ways, reverse=True)[: 2 * K]):
            fate, score = "dropped", None
            if text[-1] == 0:
                fate, score = ("finished", total / (step + 1)) if rank < K else (fate, None)
            elif len(beams) < K:
                fate = "running"
                beams.append((text, total, rank))
            nodes.append(Node(parent, text[-1], logprob, total, fate, score))
            seen.append((step, rank, text, fate, score, total))
        trace.steps.append(nodes)
    return trace, seen


def drawn(seen, most):
    """{text: how it ended} of the branches that ought to be drawn."""
    finished = sorted((each for each in seen if each[3] == "finished"), key=lambda each: -each[4])[:most]
    marks = {letters(text): f"■ finished, score {score:.3f}" for _, _, text, _, score, _ in finished}
    if finished:
        marks[letters(finished[0][2])] += " ★ best"
    last = max(each[0] for each in seen)
    running = (each for each in seen if each[0] == last and each[3] == "running")
    return marks | {letters(text): f"▸ still running, total {total:.3f}" for _, _, text, _, _, total in running}


def read_back(lines):
    """{text from the prompt on: how it ended} and [(text before, token, percent)], from the lines of a text tree."""
    texts, shares, above = {}, [], {}
    for line in lines:
        guides, percent, text, end = re.fullmatch(
            r"([│├└─ ]*?)(?:\(prompt\)|([ \d]{3}%| <1%) (\S+)(  \S.*)?)", line
        ).groups()
        depth = len(guides) // 3
        before = above.get(depth - 1, "") if depth else ""
        above[depth] = before + (text or "")
        if text:
            shares.append((before, text[0], percent.strip()))
        if end:
            texts[above[depth]] = end.strip()
    return texts, shares


class Page(HTMLParser):
    """Elements must be closed in order. Gathers the texts of tokens along the open lists, tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts, self.tips, self.title = [], [], [], {}, [], ""
        self.path = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append((tag, names.get("class") or ""))
        if tag == "li":
            self.path.append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag
        if tag == "li":
            self.path.pop()

    def handle_data(self, data):
        classes = [kind for _, kind in self.open]
        if "title" in (tag for tag, _ in self.open):
            self.title += data
        elif classes[-1:] == ["tip"]:
            self.tips.append(data)
        elif "lost" in classes:
            return
        elif classes[-1:] == ["end"]:
            self.texts["".join(self.path)] = data
        elif "text" in classes:
            self.path[-1] += data


def leaves(seen):
    texts = {text for _, _, text, *_ in seen}
    return {text for text in texts if not any(other[:-1] == text for other in texts)}


@pytest.mark.parametrize("seed", range(12))
def test_branches_and_totals_follow_the_parents(seed):
    trace, seen = search(seed)
    for step, place, text, _, _, total in seen:
        assert trace.branch(step, place) == list(text)
        assert sum(node.logprob for node in map(trace.node, trace.spots((step, place)))) == pytest.approx(total)


@pytest.mark.parametrize("most", [1, 3, 99])
@pytest.mark.parametrize("seed", range(12))
def test_the_text_tree_read_back_is_the_search(seed, most):
    trace, seen = search(seed)
    lines = as_text(trace, letters, width=200, most=most).split("\n")
    texts, shares = read_back(lines[1:])
    assert texts == drawn(seen, most)
    logprobs = {text: trace.steps[step][place].logprob for step, place, text, *_ in seen}
    by_text = {letters(text): math.exp(logprob) for text, logprob in logprobs.items()}
    for before, token, percent in shares:
        p = by_text[before + token]
        assert percent == ("<1%" if p < 0.005 else f"{100 * p:.0f}%")
    ended = list(texts.values())
    finished = sum(fate == "finished" for *_, fate, _, _ in seen)
    hidden = finished - sum("finished" in end for end in ended)
    said = f"{finished} finished" + (f" ({hidden} not drawn)" if hidden else "")
    running = sum("running" in end for end in ended)
    dropped = len(leaves(seen)) - len(ended) - hidden
    assert lines[0] == f"6 steps: {said}, {running} still running, {dropped} dropped"


@pytest.mark.parametrize("depth", [0, 1, 2, 9])
@pytest.mark.parametrize("seed", range(6))
def test_at_every_depth_each_branch_is_drawn_or_lost_once(seed, depth):
    trace, seen = search(seed)
    tree, found, lost = Tree(trace, letters, 3), [], []

    def walk(piece, before, level):
        assert level <= depth + 1
        text = before + (tree.text(piece.above, piece.run[-1]) if piece.run else "")
        lost.extend(tuple(trace.branch(*last)) for _, ways in piece.lost for _, last in ways)
        for child in piece.children:
            walk(child, text, level + 1)
        if not piece.children:
            found.append(text)

    walk(tree.grow(depth), "", 0)
    assert sorted(found) == sorted(drawn(seen, 3))
    assert sorted(lost) == sorted(leaves(seen) - {tuple(LETTERS.index(c) for c in text) for text in found})


@pytest.mark.parametrize("seed", range(6))
def test_the_page_read_back_is_the_search(seed):
    trace, seen = search(seed)
    page = Page(as_html(trace, letters, "a search", most=3))
    assert page.texts == drawn(seen, 3)
    cells = sum(value is not None and value.startswith("c") for _, name, value in page.attributes if name == "class")
    assert cells == len(page.tips) == sum(name == "tabindex" for _, name, _ in page.attributes)
    best = max((each for each in seen if each[3] == "finished"), key=lambda each: each[4], default=None)
    if best is None:
        assert seed == 1 and "best" not in "".join(page.texts.values())
        return
    node = trace.steps[best[0]][best[1]]
    tip = (
        f"probability {math.exp(node.logprob):.3g} · log {node.logprob:.3f} · total {best[5]:.3f} · score {best[4]:.3f}"
    )
    assert tip in page.tips


def test_dropped_branches_are_listed_where_asked():
    trace, seen = search(3)
    plain, full = (as_text(trace, letters, 2000, dropped=asked, most=3).split("\n") for asked in (False, True))
    assert [line for line in full if "✗" not in line] == plain
    listed = [text for line in full[1:] for text in re.findall(r"\[(.*?)\]", line)]
    assert len(listed) == len(leaves(seen)) - len(drawn(seen, 3))


WORDS = ["患者", "女，", " cough", "\n", "👩‍⚕️", "e\u0301", "$", " of the", "：", "痛"]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("width", [30, 40, 100])
def test_lines_keep_to_the_width(width, dropped):
    trace, _ = search(5, K=4, V=10, steps=20, peak=3.0)
    text = as_text(trace, lambda ids: "".join(WORDS[i] for i in ids), width, dropped, most=4)
    for line in text.split("\n"):
        wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
        marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in line)
        assert len(line) + wide - marks <= width, line


@pytest.mark.parametrize("seed", range(4))
def test_eight_beams_over_64_steps_fit_two_screens(seed):
    trace, _ = search(seed, K=8, V=12, steps=64)
    lines = as_text(trace, letters, most=8).split("\n")
    assert len(lines) <= 80
    assert sum("■" in line or "▸" in line for line in lines) <= 16
    assert as_html(trace, letters, "long")


def tree_of_bytes(*texts):
    """A trace whose tokens are the bytes of these texts, all of one length; each is running at its end."""
    trace, places = Trace(), {b"": -1}
    for step in range(len(texts[0].encode())):
        heads = list(dict.fromkeys(text.encode()[: step + 1] for text in texts))
        trace.steps.append([Node(places[h[:-1]], h[-1], -0.5, -0.5 * (step + 1), "running") for h in heads])
        places = {head: place for place, head in enumerate(heads)}
    return trace


def test_characters_cut_by_a_parting_stay_whole():
    trace = tree_of_bytes("患咳嗽", "患咖啡")  # 咳 and 咖 share two of their three bytes
    lines = as_text(trace, utf8).split("\n")
    assert [line.split("  ▸")[0] for line in lines[1:]] == [" 61% 患", "├─  61% 咳嗽", "└─  61% 咖啡"]
    page = as_html(trace, utf8, "患")
    assert "\ufffd" not in page and set(Page(page).texts) == {"患咳嗽", "患咖啡"}
    first = tree_of_bytes("咳", "咖")
    assert [line.split("  ▸")[0] for line in as_text(first, utf8).split("\n")[1:]] == [
        " 61% (part of a character)",
        "├─  61% 咳",
        "└─  61% 咖",
    ]


def test_half_a_character_at_the_end_is_shown_as_such():
    trace = tree_of_bytes("a咳")
    trace.steps.pop()
    assert "a\ufffd  ▸" in as_text(trace, utf8)
    assert set(Page(as_html(trace, utf8, "")).texts) == {"a\ufffd"}


HOSTILE = "<script>alert(1)</script>\"'&amp; onclick=x {{ 7 * 7 }}</title></li>\x1b[2J\r\n\u202eoof\x00\u2028\x9b"


def test_hostile_text_is_shown_and_not_obeyed():
    nodes = [Node(-1, 0, -0.1, -0.1, "running"), Node(-1, 1, -3.0, -3.0, "dropped")]
    decode = {(0,): HOSTILE, (1,): HOSTILE[::-1]}
    text = as_text(Trace([nodes]), lambda ids: decode[tuple(ids)], width=500, dropped=True)
    assert "␛[2J␍⏎⟨202E⟩oof␀⟨2028⟩⟨009B⟩" in text and len(text.splitlines()) == 3
    assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Zl") for c in text)
    html = as_html(Trace([nodes]), lambda ids: decode[tuple(ids)], HOSTILE)
    page = Page(html)
    assert HOSTILE[:40] in page.title and HOSTILE[:40] in "".join(page.texts)
    assert "script" not in page.tags and not {c for c in html if unicodedata.category(c) == "Cc"} - {"\n"}
    assert "&amp;amp;" in html and "49" not in page.title


def test_the_page_needs_nothing_else():
    page = Page(html := as_html(search(1)[0], letters, "t"))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    names = {name for _, name, _ in page.attributes}
    assert not {"src", "href"} & names and not any(name.startswith("on") for name in names)
    assert "http" not in html and "url(" not in html and "@import" not in html
    assert "(prefers-color-scheme: dark)" in html and 'name="viewport"' in html


def test_searches_that_wrote_little():
    empty = "0 steps: 0 finished, 0 still running, 0 dropped"
    assert as_text(Trace(), letters) == empty and empty in as_html(Trace(), letters, "")
    assert as_text(Trace([[]]), letters).endswith("0 dropped\n(prompt)")
    assert Page(as_html(Trace([[]]), letters, "")).texts == {}
    one = Trace([[Node(-1, 1, -0.1, -0.1, "running")]])
    assert (
        as_text(one, letters) == "1 step: 0 finished, 1 still running, 0 dropped\n 90% a  ▸ still running, total -0.100"
    )
    banned = Trace([[Node(-1, 1, -0.1, -0.1, "dropped")]])
    assert as_text(banned, letters, dropped=True).endswith("1 dropped\n(prompt)\n   ✗ (prompt)  90% [a]")


def test_a_search_that_finished_everything():
    nodes = [Node(-1, 0, -0.7, -0.7, "finished", -0.7), Node(-1, 1, -0.7, -0.7, "finished", -0.7)]
    lines = as_text(Trace([nodes]), letters).split("\n")
    assert lines == [
        "1 step: 2 finished, 0 still running, 0 dropped",
        "(prompt)",
        "├─  50% $  ■ finished, score -0.700 ★ best",  # of equal scores the earlier one
        "└─  50% a  ■ finished, score -0.700",
    ]


def test_infinite_log_probabilities_are_drawn():
    trace = Trace([[Node(-1, 1, -math.inf, -math.inf, "running"), Node(-1, 2, 0.0, 0.0, "running")]])
    assert " <1% a" in as_text(trace, letters) and "100% b" in as_text(trace, letters)
    assert as_html(trace, letters, "")


def test_a_parent_that_is_missing_is_an_error():
    for parent in (1, -1):
        trace = Trace([[Node(-1, 1, -0.1, -0.1, "running")], [Node(parent, 1, -0.1, -0.2, "running")]])
        with pytest.raises(Error, match=f"node 0 of step 1.*{parent}"):
            as_text(trace, letters)
