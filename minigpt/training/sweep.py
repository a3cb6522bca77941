"""What does a hyper-parameter do?  Train once for each value of a few options; a table and a picture at the end.

    python -m minigpt.training.sweep --out runs/sweep --vary lr=3e-4,1e-3,3e-3,1e-2 --vary batch_size=4,8 \\
        --train "--steps 200 --n-layers 2"

Each run is train.py in a process of its own, in a directory named after its values; one that is finished is not
repeated. A run that diverges is a finding, not a failure: it is in the table, with its last finite loss.
"""

import itertools
import json
import math
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from minigpt import svg
from minigpt.cli import parse, run
from minigpt.errors import Error
from minigpt.files import write_atomic
from minigpt.training.log import read_metrics

TRAIN = Path(__file__).parents[2] / "train.py"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Sweep: what varies, and what stays."""

    vary: tuple[str, ...] = ("lr=3e-4,1e-3,3e-3,1e-2",)  # an option of train.py and its values; repeat it for a grid
    train: str = ""  # options of train.py that stay the same, in quotes
    out: Path = Path("runs/sweep")  # directory of the runs and of sweep.html

    def grid(self) -> list[dict[str, str]]:
        """Every combination of the values, the last option fastest.

        >>> SweepConfig(vary=("lr=1e-3,2e-3", "clip=0,1")).grid()[1]
        {'lr': '1e-3', 'clip': '1'}
        """
        options = {}
        for each in self.vary:
            name, _, values = each.partition("=")
            if not values.strip(", ") or name.strip("-") in options:
                raise Error(f"--vary {each!r}: give each option once, with its values, as in lr=1e-3,3e-3")
            options[name.strip("-").replace("-", "_")] = [value.strip() for value in values.split(",")]
        return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


@dataclass(frozen=True)
class Outcome:
    """How one run of a sweep went."""

    values: dict[str, str]
    curve: list[tuple[int, float]]  # step, validation bits per byte
    seconds: float
    problem: str = ""  # in train.py's words; empty if it came to its end

    @property
    def best(self) -> float:
        return min((bits for _, bits in self.curve if math.isfinite(bits)), default=math.inf)

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items())


def main() -> int:
    (config,) = parse(SweepConfig, prog="python -m minigpt.training.sweep", description=__doc__.partition("\n")[0])
    grid, outcomes = config.grid(), []
    for number, values in enumerate(grid, 1):
        outcome = train(values, config)
        outcomes.append(outcome)
        print(f"{number}/{len(grid)}  {outcome.name}: {outcome.best:.3f} bits per byte  {outcome.problem}", flush=True)
    print(f"\n{table(outcomes)}")
    write_atomic(config.out / "sweep.svg", picture(outcomes))
    print(f"\n{config.out / 'sweep.svg'} shows it: open it in a browser")
    return 0


def train(values: dict[str, str], config: SweepConfig) -> Outcome:
    """One run, or what is left of it from an earlier sweep with the same options."""
    directory = config.out / ",".join(f"{name}={value}" for name, value in values.items())
    record = directory / "sweep.json"
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()] + shlex.split(config.train)
    if record.is_file() and (known := json.loads(record.read_text(encoding="utf-8")))["options"] == asked:
        problem = known["problem"]
    else:
        quiet = ["--sample-every=0", "--save-every=0", "--overwrite", f"--out={directory}"]
        done = subprocess.run([sys.executable, TRAIN, *quiet, *asked], stderr=subprocess.PIPE, text=True,
                              stdout=subprocess.DEVNULL)  # fmt: skip
        if done.returncode < 0 or done.returncode > 128:
            raise Error(f"the run {directory.name} was stopped: start the sweep again, it goes on where it was")
        problem = done.stderr.strip().splitlines()[-1] if done.returncode else ""
        if problem and not read_metrics(directory):
            raise Error(f"the run {directory.name} did not begin: {problem}")
        write_atomic(record, json.dumps({"options": asked, "problem": problem}, ensure_ascii=False) + "\n")
    records = read_metrics(directory)
    curve = [(r["step"], r["bits_per_byte"]) for r in records if r["kind"] == "eval"]
    seconds = sum(r["tokens"] / r["tokens_per_second"] for r in records if r["kind"] == "train")
    return Outcome(values, curve, seconds, problem)


def table(outcomes: list[Outcome]) -> str:
    """The runs, best first, in a table of Markdown."""
    names = list(outcomes[0].values)
    lines = [f"| {' | '.join(names)} | bits per byte | steps | seconds | |", "|---" * (len(names) + 4) + "|"]
    for outcome in sorted(outcomes, key=lambda each: (bool(each.problem), each.best)):
        steps = outcome.curve[-1][0] if outcome.curve else 0
        cells = [*outcome.values.values(), f"{outcome.best:.3f}", f"{steps}", f"{outcome.seconds:.0f}", outcome.problem]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(outcomes: list[Outcome]) -> str:
    """Left, how each run went; right, where it ended, against the option that varies most, a line for each of the rest.

    Colours go from dark to light in the order of the values; a run that diverged is a cross at the top.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, outcome in enumerate(outcomes):
        colour = colormaps["viridis"](0.9 * place / max(1, len(outcomes) - 1))
        left.plot(*zip(*outcome.curve, strict=True) if outcome.curve else ([], []), color=colour, label=outcome.name)
    left.set(xlabel="step", ylabel="validation bits per byte")
    left.legend(frameon=False, fontsize=7)
    name = max(outcomes[0].values, key=lambda name: len({outcome.values[name] for outcome in outcomes}))
    _ends(right, name, outcomes)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return svg.text_of(figure, salt="sweep")


def _ends(axes, name: str, outcomes: list[Outcome]):
    """The best of each run over the values of `name`, to scale where they are numbers."""
    values = list(dict.fromkeys(outcome.values[name] for outcome in outcomes))
    try:
        place = {value: float(value) for value in values}
    except ValueError:
        place = {value: float(number) for number, value in enumerate(values)}
        axes.set_xticks(list(place.values()), values)
    lines: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        lines.setdefault(", ".join(f"{n} {v}" for n, v in outcome.values.items() if n != name), []).append(outcome)
    for rest, line in lines.items():
        sound = sorted((place[outcome.values[name]], outcome.best) for outcome in line if not outcome.problem)
        axes.plot(*zip(*sound, strict=True) if sound else ([], []), marker="o", label=rest or None)
    top = max((outcome.best for outcome in outcomes if not outcome.problem), default=1.0)
    lost = [place[outcome.values[name]] for outcome in outcomes if outcome.problem]
    if lost:
        axes.plot(lost, [top] * len(lost), "x", color="#c33", label="diverged")
    if min(place.values()) > 0 and max(place.values()) >= 10 * min(place.values()):
        axes.set_xscale("log")
    axes.set(xlabel=name, ylabel="best validation bits per byte")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    run(main, "sweep")
