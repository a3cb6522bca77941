"""Files that are damaged, processes that are killed, disks that are full: a quick part of `make faults`.

docs/reliability.md has what the long run found.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lora
import minigpt
from minigpt import GPT, hub
from minigpt.tokenizer import Tokenizer
from minigpt.training.log import Log, read_metrics
from minigpt.tuning import composed
from minigpt.yaml_files import read_yaml
from tests.faults import damage, dependencies, disks, kills, subjects, texts
from tests.faults import fuzz as judging
from tests.faults.fuzz import Subject, fuzz, limits

EVERY = [*subjects.models(), *subjects.adapters(), *subjects.runs(), *texts.notes(), *texts.made()]
WRITERS = ("a model", "a LoRA adapter", "a soft prompt", "a prefix", "an adapter", "a checkpoint", "a merged model",
           "tokens", "a task's head")  # fmt: skip


@pytest.mark.parametrize("subject", EVERY, ids=lambda subject: subject.name)
def test_a_damaged_file_is_read_as_it_says_or_refused_in_a_sentence(subject, tmp_path):
    found = fuzz(subject, 8, tmp_path, seed=1)
    assert not found.faults, "\n".join(found.faults)
    assert found.tried == 8 and found.counts["refused"] + found.counts["other"]


def test_the_judge_sees_what_a_bad_reader_does(tmp_path, monkeypatch):
    """A traceback, a value that is not in the file, a model half changed, no end: each is a fault to it."""
    monkeypatch.setattr(judging, "SECONDS", 0.2)
    held, whole = {"n": 0}, b'{"n": 1}'

    def half(folder: Path):
        held["n"] += 1
        raise minigpt.Error("refused after it has changed something")

    def endless(folder: Path):
        while (folder / "f").read_bytes() != whole:
            pass
        return 1

    for number, (read, why, more) in enumerate((
        (lambda folder: json.loads((folder / "f").read_bytes())["n"], "Error: ", {}),
        (lambda folder: len((folder / "f").read_bytes()), "not those of the file", {"witness": lambda *_: False}),
        (endless, "Late", {}),
    )):  # fmt: skip
        subject = Subject("bad", {"f": (damage.other,)}, texts.file("f", whole), read, **more)
        found = fuzz(subject, 1, tmp_path / str(number))
        assert len(found.faults) == 1 and why in found.faults[0]
    (tmp_path / "half").mkdir()
    verdict, why = judging.judge(Subject("bad", {}, None, half, memory=lambda: dict(held)), tmp_path / "half", None)
    assert verdict == "FAULT" and "half changed" in why


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "n_positions", "vocab_size", "n_head"])
@pytest.mark.parametrize("value", [10**4, 10**6, 2**31 - 1, 2**62, 10**40])
def test_a_config_that_asks_for_more_than_there_is_costs_neither_time_nor_memory(tmp_path, name, value):
    hub.save(subjects.gpt(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(minigpt.Error), limits(1.0):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text, why",
    [
        ("a: &x [1, 2]\nb: *x\n", "alias"),
        ("{" * 100_000, "nested more than 50 deep"),
        ("d: 2024-99-99", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_yaml_that_costs_more_than_it_says_is_refused(tmp_path, text, why):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(minigpt.Error, match=why), limits(1.0):
        read_yaml(tmp_path / "c.yaml", "config file")


def test_yaml_as_deep_as_settings_are_is_read(tmp_path):
    (tmp_path / "c.yaml").write_text("a: " + "[" * 40 + "1" + "]" * 40 + "\nb:\n  - c: [2]\n")
    assert read_yaml(tmp_path / "c.yaml", "config file")["b"] == [{"c": [2]}]


def test_records_of_a_run_are_those_lines_that_are_records(tmp_path):
    log = Log(tmp_path, 0, 2)
    log.record("train", 1, loss=1.0, lr=0.1)
    log.record("sample", 1, text="a\u2028b")  # a line separator to str.splitlines, and a character of a text
    log.close()
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    bad = (
        b'[]\n"x"\n7\n{"kind": "eval", "step": 1}\n{"kind": "train", "step": "1", "loss": 1, "lr": 1}\n\xff\n'
        + b"[" * 10**5
    )
    (tmp_path / "metrics.jsonl").write_bytes(whole + bad)
    assert [(r["kind"], r.get("text")) for r in read_metrics(tmp_path)] == [("train", None), ("sample", "a\u2028b")]


@pytest.mark.parametrize("value", [-1, 2**24, 2**40, 1.5, True, [1], "7"])
def test_an_id_that_is_none_is_refused(tmp_path, value):
    texts.gpt2_files(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(vocab | {"<|endoftext|>": value}))
    with pytest.raises(minigpt.Error, match="damaged"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path, name, size):
    write = disks.writers(tmp_path)[name]
    (tmp_path / "out").mkdir()
    with disks.full(size):
        said = disks.refused(lambda: write(tmp_path / "out" / "new"), tmp_path / "out")
    assert "File too large" in said and "\n" not in said


def test_a_run_whose_disk_fills_up_keeps_its_last_checkpoint(tmp_path):
    notes = kills.write_lines(tmp_path / "n.jsonl", ({"note": f"{t} {i}"} for i in range(9) for t in texts.NOTES))
    words = ["--data", notes, "--field", "note", *kills.SHAPE, *kills.SMALL, *kills.RARELY, "--save-every", 1]
    assert kills.train("--out", tmp_path / "run", *words, "--steps", 2)[0] == 0
    whole = kills._learned(tmp_path / "run")
    with disks.full(20_000):  # less than the model, more than the rest
        code, said = kills.train("--out", tmp_path / "run", "--resume", "--steps", 4)
    assert code == 2 and "File too large" in said
    assert kills._learned(tmp_path / "run") == whole
    assert kills.train("--out", tmp_path / "run", "--resume", "--steps", 4)[0] == 0


def test_a_real_disk_that_is_full(tmp_path):
    write = disks.writers(tmp_path)["a model"]
    with disks.mounted(tmp_path / "disk", 64) as disk:
        if disk is None:
            pytest.skip("this process may not mount a file system")
        assert "No space left" in disks.refused(lambda: write(disk / "new"), disk)


def test_a_place_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    """Root may write anywhere, so the system is made to refuse."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    writers = disks.writers(tmp_path)
    monkeypatch.setattr(os, "mkdir", refuse)
    for write in writers.values():
        with pytest.raises((minigpt.Error, lora.Error), match="Permission denied"):
            write(tmp_path / "out" / "new")


def test_killed_at_any_moment_nothing_is_half_there(tmp_path):
    for found in forked("[vars(kills.WORKS[w](folder / w, 4)) for w in ('saving', 'merging', 'preparing')]", tmp_path):
        assert found["kills"] == 4 and not found["faults"]


def test_two_at_once_leave_one_whole_result(tmp_path):
    for codes, same in forked("[at_once(w, folder) for w in (kills.merge_into, kills.prepare_into)]", tmp_path):
        assert 0 in codes and set(codes) <= {0, 2} and same


def forked(expression: str, folder: Path):
    """The value of an expression, in a process that has used no threads and so can fork."""
    code = f"""
import json, torch; torch.set_num_threads(1)
from pathlib import Path
from tests.faults import kills
def at_once(into, folder):
    work, here = into(folder / into.__name__), folder / into.__name__
    codes = kills.together(lambda: work(here / "out"))
    work(here / "alone")
    return codes, kills.content(here / "out") == kills.content(here / "alone")
folder = Path({str(folder)!r})
print(json.dumps({expression}))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a.b", ""])
def test_the_name_of_an_adapter_is_no_path(tmp_path, name):
    """It is refused, or a key in the model that no file is called by."""
    (tmp_path / "in").mkdir()
    subjects.with_lora(tmp_path / "in")
    model = subjects.gpt()
    try:
        lora.load(model, tmp_path / "in", name=name)
    except lora.Error:
        return
    lora.save(model, tmp_path / "out", name=name)
    assert lora.names(model) == [name] and {path.name for path in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "nowhere", "\x00"])
def test_the_base_that_an_adapter_names_is_a_directory_that_is_there_or_refused(tmp_path, name):
    subjects.with_lora(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": name}))
    with pytest.raises(minigpt.Error, match="which is not there"):
        composed.find(tmp_path)


def test_every_package_is_pinned_exactly_and_none_comes_from_an_address():
    pins = dependencies.pinned()
    assert all(pins.values()), [name for name, version in pins.items() if not version]
    assert not dependencies.needed() - pins.keys(), "renew constraints.txt"
    text = (dependencies.ROOT / "pyproject.toml").read_text() + (dependencies.ROOT / "constraints.txt").read_text()
    assert "git+" not in text and "://" not in text and " @ " not in text
    assert dependencies.named() == dependencies.PURPOSE.keys()


DEEP = b'{"a": ' + b"[" * 100_000


@pytest.mark.parametrize(
    "made, name, data, read",
    [
        (subjects.checkpoint, "state.json", DEEP, subjects.resumed),
        (subjects.checkpoint, "state.json", ('"tokens": 8', '"tokens": 8.5'), subjects.resumed),
        (subjects.checkpoint, "state.json", ('"seconds": 0', '"seconds": -1'), subjects.resumed),
        (subjects.checkpoint, "state.json", ('"scaler": {}', '"scaler": 1'), subjects.resumed),
        (texts.tokens, "manifest.json", DEEP, texts.read_tokens),
        (texts.tokens, "manifest.json", ("sha256", "sha257"), texts.read_tokens),
        (texts.tokens, "manifest.json", ('"eot": ', '"eot": 0.5, "was": '), texts.read_tokens),
        (lambda folder: None, "p.jsonl", DEEP, lambda folder: texts.read_prompts(folder / "p.jsonl")),
    ],
)
def test_what_no_run_has_written_is_refused(tmp_path, made, name, data, read):
    folder = tmp_path / "in"
    folder.mkdir()
    made(folder)
    if isinstance(data, tuple):
        text = (folder / name).read_text()
        assert data[0] in text
        data = text.replace(*data).encode()
    (folder / name).write_bytes(data)
    with pytest.raises(minigpt.Error):
        read(folder)


def test_matrices_that_64_bits_cannot_count_are_refused(tmp_path):
    hub.save(subjects.gpt(**subjects.LLAMA), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    huge = dict.fromkeys(("hidden_size", "vocab_size"), 2**31 - 1)
    (tmp_path / "config.json").write_text(json.dumps(config | huge | {"head_dim": 8}))
    with pytest.raises(minigpt.Error, match="larger than any memory"):
        GPT.from_pretrained(tmp_path)
