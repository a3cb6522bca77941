"""train.py in this process: a run of a few steps without the seconds that torch takes to be imported."""

import contextlib
import importlib.util
import io
import json
import random
import sys
from pathlib import Path

from minigpt.training import compose, memorising
from minigpt.training.compute import Compute
from minigpt.training.log import read_metrics

ROOT = Path(__file__).parents[1]
SHAPE = "--n-layers 2 --n-heads 2 --d-model 64 --vocab-size 300".split()
SMALL = "--context 32 --batch-size 4 --threads 1 --precision fp32 --validation 0.3".split()
RARELY = "--eval-every 0 --sample-every 0 --save-every 0".split()
WORDS = "cough fever chest pain denies allergies 患者 咳嗽 发热 three days".split()


def train(*words) -> tuple[int, str]:
    """Exit code and what was said: on stdout, or in the one sentence of an error."""
    sys.path.insert(0, str(ROOT))
    import train as script

    before, sys.argv = sys.argv, ["train.py", *map(str, words)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            return script.main(), said.getvalue()
    except (script.Error, script.lora.Error) as problem:
        return 2, str(problem)
    finally:
        sys.argv = before
        sys.path.remove(str(ROOT))


def without_pictures(patch):
    """The report, what it says of memory, and the timing of the machine cost more than the few steps of a test."""
    patch.setattr(memorising, "after_training", lambda *things: {})
    patch.setattr(compose, "write_report", lambda *things: None)
    patch.setattr(Compute, "measure", lambda self, context: None)


def write_lines(path: Path, records) -> Path:
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def labelled_notes(count: int = 40) -> list[dict]:
    """Notes whose class is their last word, and pairs and choices of the same words."""
    draw, records = random.Random(0), []
    for i in range(count):
        text, other = (" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(2))
        kind = i % 3
        records.append(
            {
                "text": f"{text} {('fever', 'pain', 'days')[kind]}",
                "other": other,
                "kind": ("b", "a", "c")[kind],
                "answers": draw.sample(WORDS, k=2 + i % 2),
                "right": i % 2,
            }
        )
    return records


def records(run: Path, kind: str) -> list[dict]:
    return [record for record in read_metrics(run) if record["kind"] == kind]


def sample_in_process(monkeypatch, capsys):
    """A function that is sample.main in this process: what it prints; its `err` is what it said beside."""
    spec = importlib.util.spec_from_file_location("sample", ROOT / "sample.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sample", module)  # dataclasses look their module up
    spec.loader.exec_module(module)

    def call(*args, stdin=""):
        monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        module.main()
        out, call.err = capsys.readouterr()
        return out

    return call
