"""The bench harness: turns go round, times are those that were spent, who is missing is left out, numbers add up."""

import importlib
import json
import math
import sys
from dataclasses import dataclass

import fake_bench
import pytest

from bench import peers, show
from bench.__main__ import OTHERS, TIMED, main
from bench.harness import Failed, Missing, Result, Settings, lines, measure, quartiles

FAKE = "tests.fake_bench"


def measured(*names: str, rounds: int = 2, clock: str = "wall", say=print, **work) -> list[Result]:
    return measure(FAKE, fake_bench.Work(**work), list(names), Settings(rounds, 1, clock), say)


def test_every_peer_has_a_turn_in_every_round_there_and_back_in_a_process_of_its_own(tmp_path):
    log = tmp_path / "log"
    found = measured("short", "long", rounds=3, log=str(log))
    written = [line.split() for line in log.read_text().splitlines()]
    first = ["short", "long"]  # does not count
    assert [name for name, _ in written] == first + ["short", "long"] + ["long", "short"] + ["short", "long"]
    assert len({tuple(line) for line in written}) == len({number for _, number in written}) == 2
    assert [len(result.turns) for result in found] == [3, 3]
    assert all(second >= 0.02 for second in found[0].seconds) and all(second >= 0.2 for second in found[1].seconds)
    assert found[0].answers == ["slept"] * 3


def test_seconds_of_the_processor_are_those_of_work_and_not_of_waiting():
    asleep, busy, parent = measured("long", "busy", "parent", clock="cpu")
    assert asleep.median < 0.05 and asleep.turns[0]["seconds"] >= 0.2
    assert 0.1 <= busy.median < 0.15
    assert parent.median >= 0.2, "a process it has waited for counts too"
    assert busy.speed == pytest.approx(10 / busy.median)


def test_the_peak_is_that_of_the_work_and_not_of_preparing_it():
    large, small = (result.peak_mib for result in measured("large", "short"))
    assert 60 < large - small < 200


def test_who_is_missing_is_left_out_in_one_line_and_who_is_broken_ends_it():
    said = []
    found = measured("absent", "short", say=said.append)
    assert said == ["nothing: without absent: nobody wrote it"] and [result.peer for result in found] == ["short"]
    with pytest.raises(Failed, match=r"broken: the process has ended\n[\s\S]*ZeroDivisionError: cannot be prepared"):
        measured("short", "broken")
    with pytest.raises(Failed, match=r"dies: the process has ended\n[\s\S]*StopIteration"):
        measured("dies")
    with pytest.raises(Failed, match="want of memory perhaps"):
        measured("killed")


@dataclass(frozen=True)
class Point:
    name: str
    at: int = 0
    axis: str = "size"
    units: int = 100
    same: bool = False


def result(seconds, work=None, peer="ours", answer=None, peak=100.0) -> Result:
    turns = [{"seconds": s, "cpu_seconds": s / 2, "peak_mib": peak, "answer": answer} for s in seconds]
    return Result(work or fake_bench.Work("small", 100), peer, turns)


def test_speeds_are_of_medians_and_ratios_of_the_same_work():
    ours, theirs = result([1.0, 5.0, 2.0]), result([4.0, 8.0, 3.0], peer="theirs")
    assert (ours.median, ours.speed) == (2.0, 50.0)
    assert theirs.times(ours) == 2.0
    assert theirs.spread(ours) == (1.55, pytest.approx(2.8))  # quartiles of 4, 1.6 and 1.5
    assert Result(ours.work, "ours", ours.turns, "cpu").median == 1.0
    assert quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == (2.0, 4.0)
    assert result([3.0], peer="one").spread(result([2.0])) == (1.5, 1.5)


def test_the_table_and_the_lines():
    work, other = fake_bench.Work("small", 100), fake_bench.Work("large", 1000)
    results = [result([1.0, 1.0], work), result([2.0, 2.0], work, "theirs", peak=2000.4), result([4.0, 4.0], other)]
    assert show.table(results, "ours", "tokens/s").splitlines()[2:] == [
        "| small | ours | 100.0 |  | 100 |",
        "|  | theirs | 50.0 | 2.00x (2.00 to 2.00) | 2,000 |",
        "| large | ours | 250.0 |  | 100 |",
    ]
    records = list(map(json.loads, lines(results)))
    assert len(records) == 6 and records[3]["peer"] == "theirs" and records[3]["round"] == 1
    assert show.table(results[2:], "nobody", "tokens/s").endswith("| large | ours | 250 |  | 100 |")


def test_who_should_write_the_same_and_does_not():
    work = Point("greedy", same=True)
    pair = [result([1.0], work, answer=[1, 2]), result([1.0], work, "theirs", answer=[1, 3])]
    assert show.disagreements(pair) == ["greedy: ours and theirs did not write the same"]
    floor = result([1.0], work, "floor")  # writes nothing
    assert show.disagreements([pair[0], result([1.0], work, "theirs", answer=[1, 2]), floor]) == []
    assert show.disagreements([result([1.0], Point("a"), answer=1), result([1.0], Point("a"), "b", answer=2)]) == []


def test_pictures_are_curves_of_what_grows_and_bars_of_what_does_not():
    grown = [result([at / 10], Point(f"size {at}", at), peer) for at in (0, 1, 2) for peer in ("ours", "theirs")]
    picture = show.draw(grown, "tokens/s")
    assert picture.startswith("<svg") and ">size<" in picture and "ms a turn" in picture
    picture = show.draw([result([1.0]), result([2.0], peer="theirs")], "tokens/s")
    assert "tokens/s" in picture and "theirs" in picture and "ms a turn" not in picture


@pytest.mark.parametrize("name", TIMED)
def test_every_benchmark_has_what_the_harness_wants(name):
    module = importlib.import_module(f"bench.{name}")
    assert module.REFERENCE in module.PEERS and module.UNIT.endswith("/s") and module.__doc__
    assert all(work.units > 0 and work.name for work in module.WORKS)
    assert len({work.name for work in module.WORKS}) == len(module.WORKS)


def command(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    return main()


def test_the_command(monkeypatch, capsys, tmp_path):
    assert command(monkeypatch) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in (*TIMED, *OTHERS))
    monkeypatch.setitem(sys.modules, "bench.import_time", fake_bench)  # workers know nothing of it: they import theirs
    for words, says in (
        (["import_time", "--only", "x"], "fits none of: nothing"),
        (["import_time", "--peers", "ours"], "is none of: short; long"),
        (["train_step", "--nanogpt", str(tmp_path)], "no model.py there"),
    ):
        assert command(monkeypatch, *words) == 2
        assert says in capsys.readouterr().err


TINY = peers.Shape("tiny", layers=2, heads=2, width=32, context=16, vocabulary=60, batch=2)


@pytest.mark.parametrize("name", ["ours", "transformers", "nanogpt", "litgpt"])
def test_peers_are_models_of_one_shape_that_learn(name):
    try:
        model, loss = getattr(peers, name)(TINY, *TINY.tokens())
    except Missing as why:
        pytest.skip(str(why))
    ours, _ = peers.ours(TINY, *TINY.tokens())
    extra = TINY.vocabulary * TINY.width - TINY.context * TINY.width if name == "litgpt" else 0
    assert sum(w.numel() for w in model.parameters()) == extra + sum(w.numel() for w in ours.parameters())
    assert loss().item() == pytest.approx(math.log(60), abs=0.1)
    turn = peers.step(model, loss)
    assert turn() > turn() > turn()


@pytest.mark.parametrize("adapted, wanted", [("q and v", 2 * 1024), ("all linear", 2 * 4608)])
def test_lora_peers_train_as_many_numbers(adapted, wanted, monkeypatch):
    """q and v, 32 wide, r 8: two times 8 (32 + 32) a block; with k, o, up and down 4608."""
    from bench import lora_step

    models = {}
    work = lora_step.Work(adapted, 2, 2, 32, 16, 60, 2)
    for peer in ("ours", "peft", "loralib", "litgpt"):
        monkeypatch.setattr(lora_step, "step", lambda model, loss, peer=peer: models.update({peer: model}))
        try:
            lora_step.PEERS[peer](work)
        except Missing:
            continue
    counts = {name: sum(w.numel() for w in model.parameters() if w.requires_grad) for name, model in models.items()}
    joined = 2 * 512 if adapted == "all linear" else 0  # one A for q, k and v together where they are one matrix
    assert counts.pop("peft") == wanted - joined
    assert set(counts.values()) == {wanted}
