"""A sweep: which runs it makes, which it does not repeat, and what it says of those that diverge."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest

from minigpt import Error
from minigpt.training import sweep
from minigpt.training.sweep import Outcome, SweepConfig, picture, table


def fake_train(calls, problem="", code=0, evaluations=((5, 3.0), (10, 2.5))):
    """Stands in for a run of train.py: writes the metrics such a run leaves."""

    def run(command, **_):
        words = [str(word) for word in command]
        out = next(word.removeprefix("--out=") for word in words if word.startswith("--out="))
        calls.append(words)
        records = [{"kind": "eval", "step": n, "loss": bits, "bits_per_byte": bits} for n, bits in evaluations]
        speed = {"loss": 3.0, "lr": 1e-3, "tokens": 100, "tokens_per_second": 50.0}
        records += [{"kind": "train", "step": step} | speed for step in (1, 2)]
        sweep.write_atomic(sweep.Path(out) / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        return SimpleNamespace(returncode=code, stderr=f"noise\n{problem}\n")

    return run


def test_grid_is_every_combination_once():
    grid = SweepConfig(vary=("--lr=1,2", "batch-size = 4, 8".replace(" ", ""))).grid()
    assert grid == [{"lr": lr, "batch_size": size} for lr in "12" for size in "48"]


@pytest.mark.parametrize("vary", [("lr",), ("lr=",), ("lr=1", "lr=2")])
def test_grid_that_cannot_be_is_refused(vary):
    with pytest.raises(Error, match="give each option once"):
        SweepConfig(vary=vary).grid()


def test_a_finished_run_is_not_repeated_unless_asked_for_something_else(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", fake_train(calls))
    config = SweepConfig(out=tmp_path, train="--steps 10 --prompt 'a b'")
    first = sweep.train({"lr": "1e-3"}, config)
    assert sweep.train({"lr": "1e-3"}, config) == first and len(calls) == 1
    assert calls[0][-4:] == ["--steps", "10", "--prompt", "a b"] and "--lr=1e-3" in calls[0]
    assert first.curve == [(5, 3.0), (10, 2.5)] and first.best == 2.5 and first.seconds == 4.0 and not first.problem
    sweep.train({"lr": "1e-3"}, SweepConfig(out=tmp_path, train="--steps 20"))
    assert len(calls) == 2


def test_a_run_that_diverges_is_a_finding_and_one_that_never_began_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", fake_train([], "train.py: step 3: the loss is nan", code=1))
    outcome = sweep.train({"lr": "9"}, SweepConfig(out=tmp_path))
    assert outcome.problem == "train.py: step 3: the loss is nan" and outcome.best == 2.5
    monkeypatch.setattr(
        subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1, stderr="train.py: no such data\n")
    )
    with pytest.raises(Error, match="did not begin: train.py: no such data"):
        sweep.train({"lr": "8"}, SweepConfig(out=tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=130, stderr=""))
    with pytest.raises(Error, match="was stopped"):
        sweep.train({"lr": "7"}, SweepConfig(out=tmp_path))


def outcomes():
    return [
        Outcome({"lr": "1e-3", "shape": "llama"}, [(1, 4.0), (2, 3.0)], 5.0),
        Outcome({"lr": "1e-1", "shape": "llama"}, [(1, math.nan)], 5.0, "diverged"),
        Outcome({"lr": "1e-2", "shape": "gpt2"}, [(1, 4.0), (2, 2.0)], 5.0),
        Outcome({"lr": "1", "shape": "gpt2"}, [], 5.0, "diverged"),
    ]


def test_table_has_the_best_first_and_what_diverged_last():
    rows = table(outcomes()).splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows[:2]] == ["1e-2", "1e-3"]
    assert all("diverged" in row for row in rows[2:]) and len(rows) == 4


def test_picture_is_drawn_of_numbers_of_words_and_of_runs_without_an_evaluation():
    for each in (outcomes(), [Outcome({"schedule": name}, [(1, 2.0)], 1.0) for name in ("wsd", "cosine")]):
        svg = picture(each)
        assert svg.startswith("<svg") and "validation bits per byte" in svg and svg == picture(each)


def test_end_to_end(tmp_path):
    small = "--steps 2 --n-layers 1 --d-model 16 --n-heads 2 --context 16 --vocab-size 300 --eval-batches 1"
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"text": f"Pain for {i} days."}) + "\n" for i in range(200)), "utf-8")
    words = ["--out", tmp_path / "sweep", "--vary", "lr=1e-3", "--train", f"{small} --data {notes} --field text"]
    command = [sys.executable, "-m", "minigpt.training.sweep", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=sweep.TRAIN.parent)
    assert done.returncode == 0 and "| 1e-3 |" in done.stdout, done.stderr
    assert (tmp_path / "sweep" / "sweep.svg").is_file()
