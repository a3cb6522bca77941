"""The tool that breaks the core: it changes what it says, catches what is caught, and spares what is right."""

import ast
from pathlib import Path

import pytest

from tests.mutants import areas, running
from tests.mutants.by_lot import Mutation, mutations
from tests.mutants.semantic import semantic

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("area", areas.AREAS)
def test_every_change_is_another_program_that_can_be_read(area):
    for file in areas.AREAS[area][0]:
        source = (ROOT / file).read_text(encoding="utf-8")
        found = mutations(file, source)
        assert len(found) >= 20
        for mutation in found:
            changed = mutation.apply(source)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), mutation
    assert all((ROOT / name).is_file() for name in areas.tests_of(area))


def test_semantic_changes_have_their_place():
    assert len(semantic()) >= 40
    assert {areas.area_of(mutation.file) for mutation in semantic()} <= set(areas.AREAS)


SOURCE = '''def f(x, y=3):
    """x < 1 here is no code."""
    if not x:
        raise ValueError(f"{x + 1} is wrong")
    return x.amax(-1) < y and x != 2.5
'''


def test_what_is_changed_and_what_is_not():
    found = {f"{mutation.old} -> {mutation.new}" for mutation in mutations("f.py", SOURCE)}
    assert found == {
        "3 -> 4",
        "not x -> x",
        "not x -> (not (not x))",
        "x.amax(-1) < y and x != 2.5 -> (x.amax(-1) < y) or (x != 2.5)",
        "x.amax(-1) < y -> x.amax(-1) <= y",
        "x.amax -> x.amin",
        "-1 -> 1",
        "1 -> 2",
        "x != 2.5 -> x == 2.5",
        "2.5 -> 5.0",
    }


def test_a_change_is_caught_or_survives_and_is_put_back(tmp_path, monkeypatch):
    tree, source = tmp_path / "tree", "def double(x):\n    y = x + 1\n    return 2 * x\n"
    (tree / "minigpt").mkdir(parents=True), (tree / "tests").mkdir()
    (tree / "minigpt" / "small.py").write_text(source)
    (tree / "tests" / "test_small.py").write_text(
        "from minigpt.small import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    )
    monkeypatch.setattr(running, "ROOT", tree)
    monkeypatch.setattr(running, "KEPT", ("minigpt", "tests"))
    small = {"small": (("minigpt/small.py",), ("small",))}
    monkeypatch.setattr(areas, "AREAS", small)
    workshop = running.Workshop(tmp_path / "copy", tmp_path / "memory.jsonl")
    changes = {str(m).rpartition(": ")[2]: m for m in mutations("minigpt/small.py", source)}
    assert workshop.verdict(changes["2 * x -> 2 / x"]) == running.CAUGHT
    assert workshop.verdict(changes["x + 1 -> x - 1"]) == running.SURVIVED
    assert (tmp_path / "copy" / "minigpt" / "small.py").read_text() == source
    again = running.Workshop(tmp_path / "copy", tmp_path / "memory.jsonl")
    monkeypatch.setattr(again, "_tests", None)  # what is known is not tried again
    assert again.verdict(changes["x + 1 -> x - 1"]) == running.SURVIVED
    broken = Mutation("minigpt/small.py", 0, 3, "def", "fed", 1, "")
    fresh = running.Workshop(tmp_path / "copy", tmp_path / "other.jsonl")
    assert fresh.verdict(broken) == running.CAUGHT


def test_what_is_said_to_change_nothing_is_still_there():
    """Each excuse names a change of today's code, and one line of it."""
    from tests.mutants.__main__ import equivalent, name_of

    files = [file for files, _ in areas.AREAS.values() for file in files]
    every = {name_of(m) for file in files for m in mutations(file, (ROOT / file).read_text(encoding="utf-8"))}
    assert equivalent().keys() <= every, min(equivalent().keys() - every)
