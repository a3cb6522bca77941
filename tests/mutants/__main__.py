"""python -m tests.mutants: break the core on purpose, and count what the tests notice."""

import argparse
import random
import tempfile
from pathlib import Path

from tqdm import tqdm

from tests.mutants.areas import AREAS, area_of
from tests.mutants.by_lot import Mutation, mutations
from tests.mutants.running import ROOT, SURVIVED, Workshop
from tests.mutants.semantic import semantic

EQUIVALENT = Path(__file__).with_name("equivalent.txt")


def equivalent() -> dict[str, str]:
    """`file: old -> new  @  line of code` of changes that change nothing, and why."""
    found = {}
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            change, _, reason = line.rpartition("  # ")
            found[change.strip()] = reason.strip()
    return found


def name_of(mutation: Mutation) -> str:
    """As the list of equivalent ones has it: with the line of code, for its number moves."""
    file, number, change = str(mutation).split(":", 2)
    line = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    return f"{file}:{change}  @  {line.partition('  # ')[0].strip()}"


def drawn(area: str, count: int, seed: int) -> list[Mutation]:
    """So many changes of an area's files, by lot; the same for the same files and seed."""
    every = [m for file in AREAS[area][0] for m in mutations(file, (ROOT / file).read_text(encoding="utf-8"))]
    return random.Random(f"{seed} {area}").sample(every, min(count, len(every)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--areas", default=",".join(AREAS), help="comma between them (default: all)")
    parser.add_argument("--draw", type=int, default=40, help="changes by lot in each area (default 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--semantic", action=argparse.BooleanOptionalAction, default=True, help="those by meaning, too")
    parser.add_argument("--memory", type=Path, default=ROOT / "build" / "mutants.jsonl", help="verdicts of before")
    options = parser.parse_args()
    areas = options.areas.split(",")
    if unknown := set(areas) - set(AREAS):
        parser.error(f"no such area: {min(unknown)}; there are {', '.join(AREAS)}")
    chosen = [m for area in areas for m in drawn(area, options.draw, options.seed)]
    chosen += [m for m in semantic() if area_of(m.file) in areas] if options.semantic else []
    same, counts, survivors = equivalent(), {area: [0, 0, 0] for area in areas}, []
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder) / "tree", options.memory)
        for mutation in tqdm(chosen, unit="change", disable=None):
            survived = workshop.verdict(mutation) == SURVIVED
            excused = name_of(mutation) in same
            counts[area_of(mutation.file)][2 if survived and excused else survived] += 1
            if excused and not survived:
                tqdm.write(f"caught, though equivalent.txt says it changes nothing: {mutation}")
            if survived and not excused:
                survivors.append(mutation)
                tqdm.write(f"survived  {mutation}   {mutation.why}")
        workshop.close()
    report(counts, survivors)
    return 1 if survivors else 0


def report(counts: dict[str, list[int]], survivors: list[Mutation]):
    print("\n| area | changes | caught | survived | equivalent | share caught |\n|---|---|---|---|---|---|")
    total = [sum(count[i] for count in counts.values()) for i in range(3)]
    for area, (caught, survived, same) in [*counts.items(), ("all", total)]:
        share = f"{caught / (caught + survived):.1%}" if caught + survived else ""
        print(f"| {area} | {caught + survived + same} | {caught} | {survived} | {same} | {share} |")
    for mutation in survivors:
        print(f"- {mutation}   {mutation.why}")


if __name__ == "__main__":
    raise SystemExit(main())
