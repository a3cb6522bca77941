"""The commands of README and docs, one after the other as a reader types them, on the scale of a small machine, in a
folder where what they name is there. Only what a number of steps, minutes or a size says is made smaller."""

import io
import json
import re
import shlex
import shutil
import sys

import pytest
from runs import ROOT, labelled_notes, write_lines
from test_docs import COMMANDS, command_lines, load, name, program

from minigpt.training import compose, options
from minigpt.training.compute import Compute

ELSEWHERE = {
    "python -m bench": "measured by hand, tested in tests/test_bench*.py",
    "torchrun": "tests/test_ranks.py",
    "--serve": "tests/test_web_*.py, tests/test_page*.py",
    "--compile on": "tests/test_precision.py, tests/test_throughput.py",
    "OUT A B": "tests/test_lora_combine.py",
    "base/ adapter/ merged/": "tests/test_lora_verify.py",
    "ADAPTER MERGED": "tests/test_lora_verify.py",
    "figures --docs": "tests/test_figures.py",
    "minigpt.training.sweep": "tests/test_sweep.py, which trains in processes of its own",
}
LEARN = sorted((ROOT / "docs" / "learn").glob("0*.md")) + [ROOT / "docs" / "learn" / "10-memory.md"]
TRAIN = "--threads 1 --sample-every 0 --overwrite --eval-batches 1".split()
NEW = "--n-layers 2 --n-heads 2 --d-model 32 --context 256 --vocab-size 300".split()


def shortened(words: list[str], made: bool) -> list[str]:
    """A run of train.py with few steps; a new model (unless `made`) of few numbers."""
    kept, rest = [], iter(words)
    for word in rest:
        if word in ("--steps", "--minutes", "--size"):
            next(rest)
        else:
            kept.append(word)
    more = ["--steps", "3" if "--resume" not in words else "5", *TRAIN]
    if "--resume" in words:
        more.remove("--overwrite")
    return [*kept, *more, *([] if made else NEW)]


def typed(line: str, monkeypatch) -> int:
    """Run it here; its exit code."""
    words = shlex.split(line)
    if words[1] == "train.py":
        words[2:] = shortened(words[2:], made="--init" in words or "--resume" in words)
    module, argv = (program(words[2]), words[2:]) if words[1] == "-m" else (load(ROOT / words[1]), words[1:])
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Chief complaint:\n" if "--interactive" in line else "fever\n"))
    try:
        return module.main() or 0
    except SystemExit as left:
        return left.code or 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files by the names that the pages give them, and the notes of data/ in small."""
    notes = [json.loads(line) for line in (ROOT / "data" / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    few = [note | {"text": f"{i}: {note['text'][:100]}"} for i, note in enumerate(notes)][:1000]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "notes.jsonl", few)
    monkeypatch.setattr(options, "EMBEDDED", tmp_path / "data" / "notes.jsonl")
    write_lines(tmp_path / "data" / "pairs.jsonl", [{"prompt": f"{i} days?", "response": "yes"} for i in range(30)])
    long = [" ".join(note["text"] for note in few[i : i + 40]) for i in range(9)]
    texts = [*long, *(note["text"] for note in few[9:])]
    write_lines(tmp_path / "notes.jsonl", [note | {"note": text} for note, text in zip(few, texts, strict=True)])
    write_lines(tmp_path / "long.jsonl", [{"note": text} for text in long])
    write_lines(tmp_path / "letters.jsonl", [{"text": note["text"]} for note in few[:8]])
    write_lines(tmp_path / "n.jsonl", [{"text": each["text"], "type": each["kind"]} for each in labelled_notes(130)])
    turns = [{"role": "user", "content": "cough"}, {"role": "assistant", "content": "since when?"}]
    write_lines(tmp_path / "dialogues.jsonl", [{"messages": turns + [{"role": "user", "content": str(i)}, turns[1]]}
                                               for i in range(30)])  # fmt: skip
    (tmp_path / "file.txt").write_text("Chief complaint:\nDiagnosis:\n")
    monkeypatch.setattr(Compute, "measure", lambda self, context: None)
    monkeypatch.setattr(compose, "measure_peak", lambda device, dtype: 1e9)
    return tmp_path


def runnable(page) -> list[str]:
    """In the order of the page."""
    text = page.read_text(encoding="utf-8")
    lines = sorted(command_lines(page), key=lambda line: text.find(line[:40]))
    whole = [
        line for line in lines if len(line.split()) > 3 or "sample.py" in line or "train.py" in line
    ]  # no mere name
    named = [
        re.sub(r"\b(RUN|MODEL|BASE)\b", "runs/notes", line).replace("--method M", "--method lora") for line in whole
    ]
    return [line for line in named if not any(part in line for part in ELSEWHERE)]


def test_the_commands_of_readme_run_one_after_the_other(folder, monkeypatch, capsys):
    lines = runnable(ROOT / "README.md")
    assert len(lines) > 25 and lines[0].startswith("python train.py --data notes.jsonl")
    for line in lines:
        if "path/to/gpt2" in line:  # a model of that shape, as somebody else may have it
            shutil.copytree(folder / "runs" / "mine", folder / "path" / "to" / "gpt2")
        assert typed(line, monkeypatch) == 0, (line, capsys.readouterr())
    assert (folder / "runs" / "letters" / "adapter_model.safetensors").is_file() and (folder / "a.svg").is_file()


def test_the_command_of_every_chapter_runs(folder, monkeypatch, capsys):
    for line in (
        "python train.py --out runs/demo --where type!=radiology",
        "python train.py --init runs/demo --method lora --where type=radiology --out runs/demo-radiology",
        "python -m lora merge runs/demo runs/demo-radiology runs/demo-merged",
    ):  # what `make demo` leaves
        assert typed(line, monkeypatch) == 0, capsys.readouterr()
    for page in LEARN:
        (line,) = command_lines(page)
        assert typed(line, monkeypatch) == 0, (name(page), line, capsys.readouterr())


OTHERS = ("chat", "context", "generation", "gpt-family", "lora", "memory", "privacy", "rows", "tasks", "figures")


@pytest.mark.parametrize("page", OTHERS)
def test_the_commands_of_the_other_pages_run(page, folder, monkeypatch, capsys):
    for line in (
        "python train.py --out runs/notes",
        "python train.py --init runs/notes --method lora --data letters.jsonl --field text --out runs/letters",
        "python train.py --init runs/notes --method adapter --data letters.jsonl --field text --out runs/triage",
    ):
        assert typed(line, monkeypatch) == 0, capsys.readouterr()
    for other in ("demo", "mine", "small", "tiny"):
        shutil.copytree(folder / "runs" / "notes", folder / "runs" / other)
    for source, other in (("notes", "models/notes"), ("letters", "runs/demo-radiology")):
        shutil.copytree(folder / "runs" / source, folder / other)
    for line in runnable(ROOT / "docs" / f"{page}.md"):
        assert typed(line, monkeypatch) == 0, (line, capsys.readouterr())


def test_what_is_not_run_here_is_said_to_be_tested_elsewhere():
    for reason in ELSEWHERE.values():
        for file in re.findall(r"tests/\S+\.py", reason):
            assert list(ROOT.glob(file.rstrip(","))), file
    assert all(any(part in line for _, line in COMMANDS) for part in ELSEWHERE)
