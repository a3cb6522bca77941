"""docs/reliability.md: the words, and between them the tables of a run."""

from pathlib import Path

from tests.faults import dependencies
from tests.faults.fuzz import Result
from tests.faults.kills import Killed

WORDS = Path(__file__).with_name("reliability.md")


def files_table(results: list[Result]) -> str:
    rows = ["| what is read | damaged | refused | same | other | fault |", "|---|---|---|---|---|---|"]
    for result in results:
        counts = [result.counts[kind] for kind in ("refused", "same", "other", "FAULT")]
        rows.append(f"| {result.subject} | {result.tried} | {' | '.join(map(str, counts))} |")
    total = [sum(r.counts[kind] for r in results) for kind in ("refused", "same", "other", "FAULT")]
    return "\n".join([*rows, f"| **all** | {sum(total):,} | {' | '.join(f'{n:,}' for n in total)} |"])


def kills_table(killed: list[Killed]) -> str:
    rows = ["| work | killed | ended on its own | half or lost |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| {k.work} | {k.kills} | {k.ended} | {len(k.faults)} |" for k in killed)])


def page(results: list[Result], killed: list[Killed]) -> str:
    faults = sum(len(each.faults) for each in [*results, *killed])
    return WORDS.read_text(encoding="utf-8").format(
        tried=sum(result.tried for result in results),
        kills=sum(each.kills for each in killed),
        verdict=f"{faults} faults" if faults else "no fault",
        files=files_table(results),
        killed=kills_table(killed),
        packages="\n".join(dependencies.table()),
    )
