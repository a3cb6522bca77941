"""What is each part of the default recipe worth?  One part changed at a time, three seeds, the same computing time.

    python bench/ablation.py                       all variants, three seeds: about half an hour of one core
    python bench/ablation.py --seeds 1             a first look
    python bench/ablation.py --only Muon,cosine    some of them

Each variant is timed in turns with the default, in processor time, and makes as many steps as the default's --steps
take: a part that costs time pays for it. What was measured is kept in --out and not measured again, so the bench can
be stopped and started. It ends in a table of Markdown and a picture. Text: English notes, questions and answers under
--clinical, or our embedded notes where it is absent.
"""

import argparse
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

from time_to_quality import Run, quality, remembered, tokens_of  # noqa: E402

from minigpt import svg  # noqa: E402
from minigpt.files import write_atomic  # noqa: E402

SIZE = "--size tiny --context 256"  # 2 blocks of 128, 0.95 million parameters


@dataclass(frozen=True)
class Variant:
    """The default with one part changed: by options of train.py, or by the model's config where there is no option."""

    name: str
    options: str = ""
    shape: dict = field(default_factory=dict)
    vocab_size: int = 4096
    timed: bool = True  # False where a step is the same work by construction

    @property
    def recipe(self) -> str:
        return f"{SIZE} {self.options}".strip()

    @property
    def key(self) -> str:
        """As part of a file name."""
        words = [self.recipe, *(f"{name} {value}" for name, value in self.shape.items()), f"of {self.vocab_size}"]
        return " ".join(words).replace("--", "").replace(" ", "_")


# d_ff 576 in two matrices, 384 in three: feed-forward layers of equal weight.
UNGATED = {"gated": False, "d_ff": 576}
VARIANTS = (
    Variant("the default", timed=False),
    Variant("embeddings at the matrices' rate", "--embed-lr 1", timed=False),
    Variant("AdamW at 2e-3", "--optimizer adamw --lr 2e-3"),
    Variant("AdamW at 4e-3", "--optimizer adamw --lr 4e-3"),
    Variant("learned positions", shape={"positions": "learned"}),
    Variant("LayerNorm", shape={"norm": "layernorm"}),
    Variant("GELU, not gated", shape=UNGATED | {"activation": "gelu_tanh"}),
    Variant("ReLU squared, not gated", shape=UNGATED | {"activation": "relu2"}),
    Variant("cosine to 0", "--schedule cosine", timed=False),
    Variant("wsd", "--schedule wsd", timed=False),
    Variant("4 rows a step", "--batch-size 4"),
    Variant("16 rows a step", "--batch-size 16"),
    Variant("vocabulary 2,048", vocab_size=2048),
    Variant("vocabulary 8,192", vocab_size=8192),
    Variant("documents do not see each other", "--document-mask"),
    Variant("1 head of 128", "--n-heads 1"),
    Variant("1 block of 160", "--n-layers 1 --d-model 160"),
    Variant("3 blocks of 112", "--n-layers 3 --d-model 112"),
    Variant("momentum 0.9", "--momentum 0.9", timed=False),
    Variant("rate 8e-3", "--lr 8e-3", timed=False),
    Variant("embeddings at six times the rate", "--embed-lr 6", timed=False),
    Variant("no weight decay", "--weight-decay 0", timed=False),
    Variant("linear to a tenth", "--final-lr 0.1", timed=False),
    Variant("no warm-up", "--warmup 0", timed=False),
    Variant("rate 2e-3", "--lr 2e-3", timed=False),
    Variant("head not tied", shape={"tied": False}),
    Variant("context 128, 16 rows", "--context 128 --batch-size 16"),
    Variant("4 heads of 32", "--n-heads 4"),
)


@dataclass(frozen=True)
class Outcome:
    """What one variant came to, a number a seed."""

    variant: Variant
    cost: float  # of a step, in the default's
    steps: int
    bits: list[float]

    def worse(self, default: "Outcome") -> list[float]:
        """Bits per byte more than the default with the same seed."""
        return [mine - its for mine, its in zip(self.bits, default.bits, strict=False)]


def pace(variant: Variant, tokens_for, rounds: int) -> dict[str, float]:
    """Median processor seconds of a step of the default and of `variant`, measured in turns."""
    default = VARIANTS[0]
    runs = [Run(each.recipe, tokens_for(each), 0, **each.shape) for each in (default, variant)]
    seconds = [[], []]
    for number in range(rounds + 1):
        for run, found in zip(runs, seconds, strict=True):
            began = time.process_time()
            run.step(number, 1000)
            found.append(time.process_time() - began)
    return dict(zip(("default", "variant"), (statistics.median(found[1:]) for found in seconds), strict=True))


def measure(variant: Variant, tokens_for, options) -> Outcome:
    """The variant's pace and all its seeds, from --out where they are there."""
    found = {"default": 1.0, "variant": 1.0}
    if variant.timed:
        found = remembered(options.out / f"pace {variant.key}.json", lambda: pace(variant, tokens_for, options.rounds))
    cost = found["variant"] / found["default"]
    steps, bits = round(options.steps / cost), []
    for seed in range(options.seeds):
        path = options.out / f"{variant.key}, {steps} steps, seed {seed}.json"
        job = partial(quality, variant.recipe, steps, tokens_for(variant), seed, **variant.shape)
        bits.append(remembered(path, job)["bits_per_byte"])
    return Outcome(variant, cost, steps, bits)


def table(outcomes: list[Outcome]) -> str:
    """Best first, in a table of Markdown; the spread is the standard deviation over seeds."""
    default = outcomes[0]
    lines = ["| | a step costs | steps | bits per byte | spread | worse by | spread |", "|---|---|---|---|---|---|---|"]
    for outcome in sorted(outcomes, key=lambda each: statistics.mean(each.bits)):
        name = f"**{outcome.variant.name}**" if outcome is default else outcome.variant.name
        cells = [name, f"{outcome.cost:.2f}", f"{outcome.steps}", *_mean(outcome.bits, "")]
        cells += ["", ""] if outcome is default else _mean(outcome.worse(default), "+")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float], sign: str) -> list[str]:
    spread = f"{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return [f"{statistics.mean(values):{sign}.3f}", spread]


def picture(outcomes: list[Outcome]) -> str:
    """How much worse each variant is than the default: a dot a seed, a line at their mean."""
    from matplotlib.figure import Figure

    default = outcomes[0]
    rest = sorted(outcomes[1:], key=lambda each: -statistics.mean(each.worse(default)))
    figure = Figure(figsize=(8, 0.6 + 0.28 * len(rest)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="#888", linewidth=1)
    for place, outcome in enumerate(rest):
        worse = outcome.worse(default)
        axes.plot(statistics.mean(worse), place, "|", color="#c33", markersize=13, markeredgewidth=2)
        axes.plot(worse, [place] * len(worse), "o", color="#36c", markersize=4)
    axes.set_yticks(range(len(rest)), [outcome.variant.name for outcome in rest])
    axes.set(xlabel="validation bits per byte more than the default (left is better)")
    axes.spines[["top", "right"]].set_visible(False)
    return svg.text_of(figure, salt="ablation")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="of the default (default 120)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="steps timed of each variant (default 7)")
    parser.add_argument("--only", help="names of variants, or parts of them, with commas between")
    parser.add_argument("--clinical", type=Path, default=ROOT.parent / "shared" / "clinical")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)

    def tokens_for(variant: Variant):
        return tokens_of("en", options.clinical, options.out, variant.vocab_size)

    wanted = [part.strip().lower() for part in (options.only or "").split(",")]
    chosen = [each for each in VARIANTS[1:] if any(part in each.name.lower() for part in wanted)]
    outcomes = []
    for variant in tqdm([VARIANTS[0], *chosen], desc="variants"):
        outcomes.append(measure(variant, tokens_for, options))
        bits = statistics.mean(outcomes[-1].bits)
        tqdm.write(f"{variant.name}: {bits:.4f}", file=sys.stderr) if math.isfinite(bits) else None
    write_atomic(options.out / "ablation.svg", picture(outcomes))
    print(f"{table(outcomes)}\n\n{options.out / 'ablation.svg'} shows it: open it in a browser")


if __name__ == "__main__":
    main()
