"""The runs below a directory, to watch: which there are, how far they are, and what each of them wrote.

GET /runs                            the page
GET /api/runs                        {"runs": [{"name", "state", "age", "step", "steps", "left", ...}]}
GET /api/runs/metrics?run=a/b        what was recorded: thinned curves and samples, settings
                     &after=PLACE    only what came after, with the `place` of the last answer

state      by what the files tell
running    there is no final record, and the last is young
silent     there is no final record, and the last is old: it failed, was killed, or thinks for long
stopped    there is a final record, before the last step: it can be resumed
finished   there is a final record at the last step
unreadable the file cannot be read

Nothing outside of the directory is read, whatever is asked for and wherever links lead.
"""

import json
import math
import os
import stat
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePath

import yaml
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from minigpt.web.following import EVALUATED, Place, follow, number, parse, sound
from minigpt.web.refusals import Refusal

FILE = "metrics.jsonl"
DEPTH, MOST_RUNS, MOST_DIRECTORIES = 5, 500, 20_000
YOUNG = 120  # seconds in which a run that writes every step has written something, even if it evaluates
TAIL = 1 << 16  # bytes at the end that tell how far a run is


def routes(studio) -> list[Route]:
    """None where no runs are served. The functions are not `async`: they read files, beside the event loop."""
    root = studio.runs_dir
    if root is None:
        return []

    def page(request: Request) -> Response:
        return FileResponse(Path(__file__).with_name("page") / "runs.html")

    def listing(request: Request) -> Response:
        names = list(find(root))
        told = {"directory": sound(root.resolve().name, 200), "model": studio.model is not None}
        return JSONResponse(
            {**told, "more": len(names) > MOST_RUNS, "runs": [describe(root, n) for n in names[:MOST_RUNS]]}
        )

    def metrics(request: Request) -> Response:
        name = request.query_params.get("run", "")
        return JSONResponse(read(root, name, Place.read(request.query_params.get("after", ""))))

    return [Route("/runs", page), Route("/api/runs", listing), Route("/api/runs/metrics", metrics)]


def find(root: Path) -> Iterator[str]:
    """The runs below `root`, sorted, as paths from there; "." is `root` itself. One more than MOST_RUNS at most."""
    found = 0
    for i, (directory, below, files) in enumerate(os.walk(root)):
        place = Path(directory).relative_to(root)
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "checkpoints")
        if len(place.parts) >= DEPTH:
            below.clear()
        if FILE in files and sound(str(place), 10_000) == str(place) and inside(root, Path(directory, FILE)):
            yield place.as_posix()
            found += 1
        if found > MOST_RUNS or i > MOST_DIRECTORIES:
            return


def inside(root: Path, path: Path) -> bool:
    """Whether this is a plain file, and lies below `root` when all links are followed."""
    try:
        return path.resolve().is_relative_to(root.resolve()) and stat.S_ISREG(path.stat().st_mode)
    except (OSError, RuntimeError, ValueError):
        return False


def directory_of(root: Path, name: str) -> Path:
    """The directory of a run; `Refusal` if there is none of this name."""
    path = PurePath(name)
    if not name or path.is_absolute() or ".." in path.parts or not inside(root, root / path / FILE):
        raise Refusal(404, f"there is no run {name!r:.120} here: it may have been deleted", "run", "run_not_found")
    return root / path


def read(root: Path, name: str, place: Place) -> dict:
    """What the run wrote after `place`; with its settings, where a reader begins."""
    directory = directory_of(root, name)
    try:
        news = follow(directory / FILE, place)
    except OSError as problem:
        status = 404 if isinstance(problem, FileNotFoundError) else 403
        raise Refusal(status, f"{name:.120}/{FILE} cannot be read: {problem.strerror}", "run") from None
    told = {"settings": settings(root, directory), "floors": floors(root, directory)} if news.anew else {}
    return {"run": name, **news.answer(), **told}


def describe(root: Path, name: str) -> dict:
    """A run in a line of the list."""
    directory = root / name
    try:
        about = (directory / FILE).stat()
        known = ends(directory / FILE, about.st_size, about.st_mtime_ns)
    except OSError as problem:
        return {"name": name, "state": "unreadable", "problem": problem.strerror or "it cannot be read"}
    steps = number(settings(root, directory).get("steps"))
    age = max(0.0, time.time() - about.st_mtime)
    left = max(0, steps - known["step"]) if steps else None
    pace = known["seconds_per_step"]
    return {
        "name": name,
        **known,
        "steps": steps,
        "age": round(age),
        "version": f"{about.st_size}-{about.st_mtime_ns}",  # with another one there is something new to read
        "state": state_of(known, steps, age),
        "left": round(left * pace) if left is not None and pace else None,
    }


def state_of(known: dict, steps: int | None, age: float) -> str:
    """In one word.

    >>> state_of({"final": {"step": 9}, "step": 9, "interval": 1.0}, 10, 5.0)
    'stopped'
    """
    if known["final"]:
        return "finished" if not steps or known["final"]["step"] >= steps else "stopped"
    return "running" if age <= max(YOUNG, 20 * known["interval"]) else "silent"


@lru_cache(maxsize=2 * MOST_RUNS)
def ends(path: Path, size: int, modified: int) -> dict:
    """What the first and the last records of a file tell; read again only when it has another size or time."""
    with path.open("rb") as file:
        first = parse(file.readline(TAIL)) or {}
        tail = _tail(file, size, TAIL)
        if size > TAIL and not any(record["kind"] == "eval" for record in tail):
            tail = _tail(file, size, 16 * TAIL)  # some evaluate rarely
    trained = [record for record in tail if record["kind"] == "train"]
    evaluated = [record for record in tail if record["kind"] == "eval"]
    final = next((record for record in tail[::-1] if record["kind"] in ("train", "final")), {})
    step = tail[-1]["step"] if tail else 0
    known = {"step": step, "loss": number(trained[-1].get("loss")) if trained else None, **_pace(trained[-20:])}
    method = first if first.get("kind") == "method" else {}
    return known | {
        "method": sound(method.get("method"), 60),
        "trains": number(method.get("trains")),
        "evaluation": _judged(evaluated[-1]) if evaluated else None,
        "final": _judged(final) if final.get("kind") == "final" else None,  # one that was resumed has begun again
    }


def _tail(file, size: int, most: int) -> list[dict]:
    file.seek(max(0, size - most))
    return [record for line in file.read(most).split(b"\n") if line and (record := parse(line))]


def _judged(record: dict) -> dict:
    return {name: number(record.get(name)) for name in ("step", *EVALUATED, "tokens", "peak_memory")}


def _pace(trained: list[dict]) -> dict:
    """Tokens a second, seconds a step (medians) and seconds between two records, of the last records of steps."""
    speeds = sorted(speed for record in trained if (speed := number(record.get("tokens_per_second"))))
    tokens = sorted(count for record in trained if (count := number(record.get("tokens"))))
    if not speeds or not tokens or speeds[len(speeds) // 2] <= 0:
        return {"tokens_per_second": None, "seconds_per_step": None, "interval": 0.0}
    speed = speeds[len(speeds) // 2]
    pace = tokens[len(tokens) // 2] / speed
    apart = (trained[-1]["step"] - trained[0]["step"]) / max(1, len(trained) - 1)
    return {"tokens_per_second": speed, "seconds_per_step": pace, "interval": apart * pace}


def settings(root: Path, directory: Path) -> dict:
    """What train.yaml says, its plain values; {} if there is none."""
    file = directory / "train.yaml"
    if not inside(root, file):
        return {}
    try:
        about = file.stat()
        return _settings(file, about.st_size, about.st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=2 * MOST_RUNS)
def _settings(file: Path, size: int, modified: int) -> dict:
    try:
        with file.open("rb") as opened:
            found = yaml.safe_load(opened.read(TAIL).decode("utf-8"))
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    found = found if isinstance(found, dict) else {}
    return {sound(name, 80): plain for name, value in found.items() if (plain := _plain(value)) is not None}


def _plain(value) -> str | int | float | bool | None:
    """A value to show: lists in one line; None for what is not plain."""
    if isinstance(value, list):
        parts = [_plain(part) for part in value[:20] if not isinstance(part, list)]
        return sound(", ".join(str(part) for part in parts if part is not None), 300)
    if isinstance(value, bool):
        return value
    return sound(value, 300) if isinstance(value, str) else number(value)


def floors(root: Path, directory: Path) -> dict[str, float]:
    """Flat lines of the loss figure: ln V, the loss of a language model that knows nothing."""
    file = directory / "config.json"
    if settings(root, directory).get("task", "lm") not in ("lm", "instruct", "chat") or not inside(root, file):
        return {}
    try:
        with file.open("rb") as opened:
            size = number(json.loads(opened.read(TAIL)).get("vocab_size"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {"ln V": math.log(size)} if size and size >= 1 else {}
