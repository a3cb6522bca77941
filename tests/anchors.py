"""python -m tests.anchors: papers.md and walks.md lead to the line of each function and test. Run it when any moved."""

import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (DOCS / "papers.md", DOCS / "walks.md")
NAME = re.compile(r"\[(`\w+`)\]\([^)]*\)|(`\w+`)|\[\w+\.py\]\((\.\./[^)#]+)\)")  # `name`, with its link or without


def renewed(text: str) -> str:
    """The page with a link at each name between backticks: to its definition in the file named before it in the same
    line, or, of a test, in whatever file of tests has it."""
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    file = ""

    def link(found: re.Match) -> str:
        nonlocal file
        if found[3]:
            file = found[3]
            return found[0]
        quoted = found[1] or found[2]
        target = _test(quoted[1:-1]) if quoted.startswith("`test_") else _definition(file, quoted[1:-1])
        return f"[{quoted}]({target})" if target else quoted

    return NAME.sub(link, line)


def _definition(file: str, name: str) -> str | None:
    if not file:
        return None
    found = _lines((DOCS / file).resolve()).get(name)
    return f"{file}#L{found}" if found else None


def _test(name: str) -> str | None:
    if (ROOT / "tests" / f"{name}.py").is_file():
        return f"../tests/{name}.py"
    places = [(file, found) for file in sorted(ROOT.glob("tests/test_*.py")) if (found := _lines(file).get(name))]
    return f"../tests/{places[0][0].name}#L{places[0][1]}" if places else None


@lru_cache(None)
def _lines(file: Path) -> dict[str, int]:
    """Functions and classes of a file, and the line where each begins."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = ((re.match(r"\s*(?:def|class) (\w+)", line), number) for number, line in enumerate(lines, 1))
    return {match[1]: number for match, number in reversed([each for each in found if each[0]])}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
