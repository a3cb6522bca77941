"""What README and docs quote is there and works: links, Python, the options of every command line."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

import lora
from minigpt import GPT, GPTConfig
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import adapter, prefix, prompt
from tests import anchors

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "data" / "README.md"]
MODULES = (
    "minigpt.memory",
    "minigpt.context",
    "minigpt.prompting",
    "minigpt.training.sweep",
    "minigpt.figures",
    "minigpt.privacy",
    "minigpt.privacy.plant",
)
KNOWN = ("pytest", "pip", "http.server", "minigpt.training.schedule", "tests.anchors", "tests.mutants", "tests.faults")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Without the blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def headings(page: Path) -> set[str]:
    """The anchors that a page has, as its reader's browser makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{name(page)}: {target}"
        assert ROOT in (there, *there.parents), f"{name(page)}: {target} is outside"
        if anchor and there.suffix == ".md":
            assert anchor in headings(there), f"{name(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_that_is_named_is_there(page):
    text = page.read_text(encoding="utf-8")
    for file, test in re.findall(r"(test_\w+)(?:\.py)?::(\w+)", text):
        source = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert re.search(rf"(def|class) {test}\b", source), f"{name(page)}: {file}::{test}"
    everything = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").glob("test_*.py"))
    for test in re.findall(r"`(test_\w+)(?:\.py)?`", text):
        there = (ROOT / "tests" / f"{test}.py").is_file() or f"def {test}(" in everything
        assert there, f"{name(page)}: {test}"


def command_lines(page: Path) -> list[str]:
    """`python ...` in blocks of code and between backticks, without what is said about it."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"`(python [^`]+)`", prose(page))
    for line in text.splitlines():
        if re.match(r"\s*(?:-\s+run:\s*)?(python|torchrun) ", line):
            found += re.split(r"(?<=\S)\s{3,}(?=python )", line.strip())
    cut = [re.split(r"\s+#\s|(?<=\S)\s{3,}(?=\S)", line)[0].strip() for line in found]
    named = re.compile(r"python -m lora \w+|python data/generate.py.*")  # a word of it alone; one with its own argparse
    return [line.replace(" LR", " 1") for line in cut if "..." not in line and not named.fullmatch(line)]


COMMANDS = sorted({(name(page), line) for page in PAGES for line in command_lines(page)})


def test_command_lines_were_found():
    assert len(COMMANDS) > 80
    scripts = {" ".join(line.split()[:3]) for _, line in COMMANDS}
    assert any("train.py" in each for each in scripts) and any("-m lora" in each for each in scripts)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}"[:100] for page, line in COMMANDS])
def test_a_command_line_has_options_that_exist(page, line, monkeypatch, capsys):
    words = shlex.split(line)
    if words[0] == "torchrun":
        words = ["python", *words[words.index("train.py") :]]
    monkeypatch.chdir(ROOT)
    if words[1] != "-m":
        script = load(ROOT / words[1])
        parses(script.main, [words[1], *words[2:]], monkeypatch)
    elif words[2] == "lora":
        from lora.cli import parser

        parser(words[3:]).parse_args(words[3:])
    elif words[2] == "bench":
        known_bench(words[3:])
    elif words[2] in MODULES:
        parses(program(words[2]).main, words[2:], monkeypatch)
    else:
        assert words[2] in KNOWN, line


def program(name: str):
    """The module that `python -m name` runs."""
    there = (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()
    return importlib.import_module(name if there else f"{name}.__main__")


def load(file: Path):
    assert file.is_file(), file
    spec = importlib.util.spec_from_file_location(f"quoted_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parses(main, words: list[str], monkeypatch):
    """The program reads the options, prints them and leaves before it does anything."""
    monkeypatch.setattr(sys, "argv", [words[0], "--print-config", *words[1:]])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code in (0, None)


def known_bench(words: list[str]):
    from bench.__main__ import OTHERS, TIMED, make_parser

    if words and words[0] in OTHERS:
        source = (ROOT / "bench" / f"{words[0]}.py").read_text(encoding="utf-8")
        for word in words[1:]:
            if word.startswith("--"):
                assert f'"{word.partition("=")[0]}"' in source, word
    elif words and words[0] != "all":
        assert words[0] in TIMED
        make_parser().parse_args(words)


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder in which what the examples name is there: a model, and beside it an adapter of each kind."""
    tokenizer = Tokenizer.train(["the patient has a cough for three days"] * 9, 300)
    gpt = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, context=128, n_layers=2, n_heads=2, d_model=32,
                        norm="rmsnorm", positions="rotary", gated=True, activation="silu", bias=False))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for run in ("mine", "notes"):
        gpt.save_pretrained(tmp_path / "runs" / run)
        tokenizer.save(tmp_path / "runs" / run)
    kinds = {"letters": lora, "triage": adapter, "short": prompt, "style": prefix}
    for run, method in kinds.items():
        config = method.Config(length=3) if method in (prompt, prefix) else method.Config()
        method.attach(gpt, config)
        method.save(gpt, tmp_path / "runs" / run, "default")
        method.detach(gpt)
    return {"model": gpt.eval(), "tokenizer": tokenizer}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_python_that_is_quoted_runs(page, runs, capsys):
    names = dict(runs)  # one after the other, as a reader would
    for block in blocks(page):
        exec(compile(block, name(page), "exec"), names)  # the text is ours


@pytest.mark.parametrize("page", anchors.PAGES, ids=name)
def test_papers_and_walks_lead_to_the_line(page):
    """In a table, what stands between backticks is a link to where it is defined, in the file named before it."""
    text = page.read_text(encoding="utf-8")
    assert text == anchors.renewed(text), "lines have moved: python -m tests.anchors renews the links"
    rows = [line for line in text.splitlines() if line.startswith("|") and "](" in line]
    assert len(rows) >= 25
    for row in rows:
        assert not re.findall(r"(?<!\[)`\w+`", "|".join(row.split("|")[2:])), f"not to be found: {row}"


def test_a_link_is_made_once_and_follows_its_function():
    line = "| eq. 3 | [product.py](../lora/product.py) `plain`, `nobody` | `test_every_link_leads_somewhere` |"
    made = anchors.renewed(line)
    assert re.search(r"\[`plain`\]\(\.\./lora/product\.py#L\d+\), `nobody` \|", made)
    assert re.search(r"\[`test_every_link_leads_somewhere`\]\(\.\./tests/test_docs\.py#L\d+\)", made)
    assert anchors.renewed(made) == made
    assert anchors.renewed(re.sub(r"#L\d+", "#L1", made)) == made
