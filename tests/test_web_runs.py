"""The runs of a directory, as the server tells them: read while they grow, and never more than the directory."""

import json
import os
import time

import pytest
import yaml
from web import ask, served

from minigpt.training import command
from minigpt.web import opening, runs
from minigpt.web.following import MOST, Place, follow, thin

SECRET = '{"kind": "sample", "step": 1, "text": "outside"}\n'


def train(step: int, loss: float = 1.0, tokens: int = 100, speed: float = 50.0, **more) -> dict:
    measured = {"loss": loss, "lr": 0.1, "grad_norm": 2.0, "tokens": tokens, "tokens_per_second": speed}
    return {"kind": "train", "step": step} | measured | more


def lines(*records: dict) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def begin(directory, *records: dict, **settings):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text(lines(*records), "utf-8")
    if settings:
        (directory / "train.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    return directory / "metrics.jsonl"


@pytest.fixture
def root(tmp_path):
    """Two runs: one at work, one that ended."""
    method = {"kind": "method", "step": 0, "method": "lora", "trains": 29012}
    begin(tmp_path / "runs/a", method, *(train(k, 5 / k) for k in range(1, 5)), steps=10, lr=0.1, task="lm", out="a")
    ended = {"kind": "final", "step": 2, "loss": 0.5, "bits_per_byte": 0.2, "tokens": 9, "peak_memory": 2**20}
    begin(tmp_path / "runs/deep/b", train(1), train(2), ended, steps=2, lr=0.2)
    return tmp_path / "runs"


@pytest.fixture
def port(root):
    with served(opening.of_runs(root)) as port:
        yield port


def told(port, name: str, place: str = "") -> dict:
    found = ask(port, "GET", f"/api/runs/metrics?run={name}&after={place}")
    assert found.status == 200, found.raw
    return found.json


def test_the_list_says_how_far_each_run_is(port, root):
    found = {run["name"]: run for run in ask(port, "GET", "/api/runs").json["runs"]}
    assert list(found) == ["a", "deep/b"]
    a, b = found["a"], found["deep/b"]
    assert (a["state"], a["step"], a["steps"], a["method"], a["trains"]) == ("running", 4, 10, "lora", 29012)
    assert (a["left"], a["tokens_per_second"]) == (12, 50.0)  # 6 steps of 100 tokens, 50 a second
    assert (b["state"], b["final"]["loss"], b["final"]["peak_memory"]) == ("finished", 0.5, 2**20)


@pytest.mark.parametrize(
    ("records", "age", "state"),
    [
        ([train(3)], 10, "running"),
        ([train(3)], 500, "silent"),
        ([train(1), train(2, tokens=5000)], 500, "running"),  # its steps take minutes
        ([train(3), {"kind": "final", "step": 3, "loss": 1}], 500, "stopped"),
        ([train(3), {"kind": "final", "step": 3, "loss": 1}, train(4)], 10, "running"),  # it was resumed
        ([train(3), {"kind": "final", "step": 3, "loss": 1}, train(4)], 500, "silent"),
        ([train(9), {"kind": "final", "step": 9, "loss": 1}, {"kind": "sample", "step": 9, "text": ""}], 0, "finished"),
        ([], 3, "running"),
    ],
)
def test_the_state_is_what_records_and_their_age_tell(tmp_path, records, age, state):
    file = begin(tmp_path / "a", *records, steps=9)
    os.utime(file, (time.time() - age,) * 2)
    assert runs.describe(tmp_path, "a")["state"] == state


def test_only_what_is_new_is_read(port, root):
    first = told(port, "a")
    assert first["anew"] and first["trained"]["step"] == [1, 2, 3, 4] and first["read"] == first["size"]
    again = told(port, "a", first["place"])
    assert not again["anew"] and again["trained"]["step"] == [] and again["place"] == first["place"]
    whole, half = lines(train(5, 0.5), {"kind": "sample", "step": 5, "text": "<b>咳嗽</b>"}), '{"kind": "eval", "st'
    with (root / "a/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(whole + half)
    news = told(port, "a", first["place"])
    assert news["trained"]["step"] == [5] and news["samples"] == [{"step": 5, "text": "<b>咳嗽</b>"}]
    assert (news["unreadable"], news["size"] - news["read"]) == (0, len(half))
    with (root / "a/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('ep": 5, "loss": 0.7}\n')
    last = told(port, "a", news["place"])
    assert last["evaluated"]["loss"] == [0.7] and last["trained"]["step"] == [] and last["unreadable"] == 0


def test_read_in_pieces_is_read_at_once(tmp_path):
    """Sums, smoothed losses and samples do not depend on where a reader was interrupted."""
    records = [train(3 * k, (k * 37 % 11) / 7, speed=40 + k % 5) for k in range(1, 60)]
    records[30:30] = [{"kind": "eval", "step": 90, "loss": 2.5}, {"kind": "sample", "step": 90, "text": "患者"}]
    file = begin(tmp_path, *records)
    whole, place, pieces = follow(file), Place(), []
    while place.offset < whole.size:
        pieces.append(follow(file, Place.read(str(place)), chunk=700))
        place = pieces[-1].place
    assert len(pieces) > 10 and [piece.anew for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    for name in ("trained", "evaluated", "samples"):
        joined = [row for piece in pieces for row in getattr(piece, name)]
        if name != "samples":
            joined, expected = [[*map(float, filter(None, r))] for r in joined], getattr(whole, name)
            assert joined == [pytest.approx([*map(float, filter(None, r))], abs=0.05) for r in expected]
        else:
            assert joined == whole.samples
    step, tokens, seconds, smoothed = whole.trained[-1][:4]
    assert (step, tokens) == (177, 17700)
    assert seconds == pytest.approx(sum(300 / (40 + k % 5) for k in range(1, 60)), abs=0.01)
    assert whole.trained[2][3] == pytest.approx((records[0]["loss"] + records[1]["loss"] + records[2]["loss"]) / 3)
    assert smoothed == pytest.approx(5 / 7, abs=0.15)


def test_another_file_of_this_name_is_read_from_its_beginning(tmp_path):
    file = begin(tmp_path, *(train(k, speed=50 + k) for k in range(1, 20)))
    place = follow(file).place
    begin(tmp_path, *(train(k, speed=50 + k) for k in range(1, 10)))  # resumed: the end is cut off
    cut = follow(file, place)
    assert cut.anew and len(cut.trained) == 9
    assert "settings" in runs.read(tmp_path.parent, tmp_path.name, place)
    begin(tmp_path, *(train(k, speed=60 + k) for k in range(1, 30)))  # begun again, and longer by now
    assert follow(file, place).anew and len(follow(file, place).trained) == 29


def test_lines_that_are_no_records_are_counted_and_passed_over(tmp_path):
    bad = [b"\xff\xfe", b"[1]", b'{"kind": 3, "step": 1}', b'{"kind": "train"}', b'{"a": ' * 9000, b"", b"9" * 6000]
    bad += [b'{"kind": "train", "step": -1}', b'{"kind": "train", "step": ' + b"9" * 40 + b"}"]
    file = tmp_path / "metrics.jsonl"
    half = '{"kind": "sample", "step": 2, "text": "\\ud83d"}\n'
    strange = '{"kind": "eval", "step": 2, "loss": NaN, "accuracy": true, "perplexity": 1e999, "macro_f1": "x"}\n'
    file.write_bytes(b"\n".join(bad) + b"\n" + lines(train(1)).encode() + half.encode() + strange.encode())
    news = follow(file)
    assert (news.unreadable, len(news.trained)) == (len(bad) - 1, 1)
    answer = json.dumps(runs.read(tmp_path.parent, tmp_path.name, Place()), allow_nan=False, ensure_ascii=False)
    assert json.loads(answer.encode("utf-8"))["samples"] == [{"step": 2, "text": "?"}]
    assert news.evaluated[0][3:] == (None,) * 5
    place, found = Place(), 0
    for _ in range(40):  # a line longer than what is read at once does not stop a reader
        news = follow(file, place, chunk=4000)
        place, found = news.place, found + len(news.trained)
    assert (place.offset, found) == (news.size, 1)


def test_a_spike_of_one_step_is_seen_however_long_the_run_is(tmp_path):
    records = [
        train(k, 2 + (k * 7919 % 101) / 100, speed=40 + k * 13 % 7, lr=1 / k, grad_norm=k * 31 % 17)
        for k in range(1, 30_001)
    ]
    records[17_003] |= {"loss": 99.0}
    records[12_345] |= {"grad_norm": 77.0}
    records[5_432] |= {"loss": 0.001}
    answer = follow(begin(tmp_path, *records)).answer()["trained"]
    assert 500 < len(answer["step"]) <= MOST and [*answer["step"]] == sorted(set(answer["step"]))
    assert (answer["step"][0], answer["step"][-1]) == (1, 30_000)
    assert (max(answer["loss"]), min(answer["loss"]), max(answer["grad_norm"])) == (99.0, 0.001, 77.0)
    assert answer["step"][answer["loss"].index(99.0)] == 17_004


@pytest.mark.parametrize("n", [1, 10, 11, 50, 999])
def test_thinned_rows_keep_ends_and_extremes(n):
    rows = [(k, (k * 37) % 101, None if k % 3 else k) for k in range(n)]
    kept = thin(rows, [1, 2], most=10)
    assert len(kept) <= 10 and set(kept) <= set(rows) and kept == sorted(kept)
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    for extreme in (min, max):
        assert extreme(row[1] for row in kept) == extreme(row[1] for row in rows)


def test_a_large_file_is_read_in_pieces_of_bounded_work(tmp_path):
    record = lines(train(1, padding="x" * 800))
    file = tmp_path / "metrics.jsonl"
    with file.open("w") as out:
        for k in range(1, 19_001):
            out.write(record.replace('"step": 1,', f'"step": {k},', 1))
    place, rounds, answers = Place(), 0, []
    while place.offset < file.stat().st_size:
        news = follow(file, place)
        place, rounds = news.place, rounds + 1
        answers.append(len(json.dumps(news.answer())))
    assert (rounds, place.step) == (3, 19_000) and max(answers) < 200_000
    assert runs.describe(tmp_path.parent, tmp_path.name)["step"] == 19_000


def test_an_evaluation_far_from_the_end_is_found(tmp_path):
    records = [{"kind": "eval", "step": 1, "loss": 0.25}, *(train(k, padding="x" * 200) for k in range(2, 900))]
    file = begin(tmp_path / "a", *records)
    assert file.stat().st_size > 2 * runs.TAIL
    assert runs.describe(tmp_path, "a")["evaluation"]["loss"] == 0.25


WAYS_OUT = ["..", "../secret", "a/../../secret", "/etc", "%2e%2e/secret", "link", "linked", "", ".", "a/", "nothing"]
WAYS_OUT += [
    "a%00",
    "pipe",
    "folder",
    "%ff%fe",
    "a/metrics.jsonl",
    "x" * 5000,
    "a\\..\\..\\secret",
    "loop",
    "deep/../a",
]


@pytest.mark.parametrize("name", WAYS_OUT)
def test_nothing_outside_the_directory_is_read(port, root, name):
    outside = root.parent / "secret"
    outside.mkdir()
    (outside / "metrics.jsonl").write_text(SECRET)
    (root / "link").symlink_to(outside)
    for folder in ("linked", "pipe", "folder/metrics.jsonl", "loop"):
        (root / folder).mkdir(parents=True)
    (root / "linked/metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    (root / "loop/metrics.jsonl").symlink_to(root / "loop/metrics.jsonl")
    os.mkfifo(root / "pipe/metrics.jsonl")
    found = ask(port, "GET", f"/api/runs/metrics?run={name}")
    assert b"outside" not in found.raw
    if name == "a/":
        assert found.status == 200
    else:
        assert found.status == 404 and "there is no run" in found.json["error"]["message"]
    assert [run["name"] for run in ask(port, "GET", "/api/runs").json["runs"]] == ["a", "deep/b"]


def test_settings_and_floors_stay_inside_too(root):
    outside = root.parent / "other.yaml"
    outside.write_text("password: secret\n")
    (root / "a/train.yaml").unlink()
    (root / "a/train.yaml").symlink_to(outside)
    assert runs.read(root, "a", Place())["settings"] == {}


def test_settings_are_plain_and_the_floor_is_that_of_a_language_model(tmp_path):
    begin(tmp_path / "a", train(1), task="lm", lr=0.1, where=["x=1", "y=2"], deep={"a": 1}, none=None, note="<b>咳</b>")
    (tmp_path / "a/config.json").write_text('{"vocab_size": 4096}')
    first = runs.read(tmp_path, "a", Place())
    assert first["settings"] == {"task": "lm", "lr": 0.1, "where": "x=1, y=2", "note": "<b>咳</b>"}
    assert first["floors"] == {"ln V": pytest.approx(8.317766)}
    begin(tmp_path / "b", train(1), task="classify")
    (tmp_path / "b/config.json").write_text('{"vocab_size": 4096}')
    assert runs.read(tmp_path, "b", Place())["floors"] == {}
    for broken in ("a: [", "- 1", "&a [*a]", "\udcff", "a: !!python/object:os.system 1"):
        (tmp_path / "a/train.yaml").write_bytes(broken.encode("utf-8", "surrogateescape"))
        (tmp_path / "a/config.json").write_text("[" * 50_000)
        found = runs.read(tmp_path, "a", Place())
        assert (found["settings"], found["floors"]) == ({}, {})


def test_a_run_may_vanish_and_a_file_may_be_closed(port, root, monkeypatch):
    place = told(port, "a")["place"]
    (root / "a/metrics.jsonl").unlink()
    gone = ask(port, "GET", f"/api/runs/metrics?run=a&after={place}")
    assert gone.status == 404 and "deleted" in gone.json["error"]["message"]

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs, "follow", refuse)
    monkeypatch.setattr(runs, "ends", refuse)
    (run,) = ask(port, "GET", "/api/runs").json["runs"]
    assert run == {"name": "deep/b", "state": "unreadable", "problem": "Permission denied"}
    closed = ask(port, "GET", "/api/runs/metrics?run=deep/b")
    assert closed.status == 403 and "deep/b/metrics.jsonl cannot be read" in closed.json["error"]["message"]


def test_the_directory_may_be_a_run_itself(root):
    with served(opening.of_runs(root / "a")) as port:
        (run,) = ask(port, "GET", "/api/runs").json["runs"]
        assert run["name"] == "." and told(port, ".")["trained"]["step"] == [1, 2, 3, 4]


def test_a_run_says_how_to_watch_it(tmp_path):
    assert command.watching(tmp_path / "my runs/a") == f"watch       python sample.py '{tmp_path}/my runs' --serve"
    begin(tmp_path / "my runs/a", train(1))
    assert opening.holds_runs(tmp_path / "my runs")  # so that these words serve it


def test_the_page_is_open_and_what_runs_hold_is_not(root):
    with served(opening.of_runs(root), token="secret") as port:
        assert ask(port, "GET", "/runs").status == 200
        assert ask(port, "GET", "/static/runs.js").status == 200
        assert ask(port, "GET", "/api/runs").status == 401
        assert ask(port, "GET", "/api/runs/metrics?run=a").status == 401
        assert ask(port, "GET", "/api/runs", Authorization="Bearer secret").status == 200


@pytest.mark.parametrize(
    "place", ["x", "1", "-1_0_0_0_0_0_0", "9" * 30, "99999999_0_0_0_0_0_0", "1_2_3_4_5_6_7", "1_1"]
)
def test_a_place_that_is_none_means_the_beginning(port, place):
    assert told(port, "a", place)["trained"]["step"] == [1, 2, 3, 4]
