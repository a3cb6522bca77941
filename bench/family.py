"""What the papers of the GPT family claim, measured at a size that fits a coffee break. For docs/gpt-family.md.

    python -m bench family                        all, some nine minutes of one core: a table for each
    python -m bench family few_shot starts        some of them
    python -m bench family --plot docs/gpt-family.svg

few_shot      examples in the prompt against none, with and without the task's name        (GPT-3)
methods       a known and a new task by each way of tuning, and what is forgotten
targets       a target at every token against 15 % of them                                 (why decoders)
turns         tokens read in a conversation, with a cache and without                      (why decoders)
sizes         loss by parameters                                                           (GPT-2, GPT-3)
infilling     strings with gaps, then n steps of plain text, then a soft prompt            (prompt tuning)
span_corruption   the same, with targets on what fills the gaps only, as T5           (prompt tuning)
lengths       soft prompts of 1 to 50 vectors, text moved or not                           (prompt tuning)
starts        what a soft prompt begins as                                                 (prompt tuning)
instruction   a soft prompt, examples, both, none                                          (instruction prompt tuning)
notes         the same on clinical notes, the examples retrieved

Work is counted in steps, never in time. Results are kept in --out and not measured again.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from bench import family_text as text
from bench import family_toy as toy
from minigpt import GPT, svg
from minigpt.files import write_atomic

OF_THE_BASE = {"few_shot": toy, "methods": toy, "lengths": toy, "starts": toy, "instruction": toy, "turns": text}
OF_THEIR_OWN = dict.fromkeys(("targets", "sizes", "notes"), text)  # models they train themselves
OF_THEIR_OWN |= dict.fromkeys(("infilling", "span_corruption"), toy)
ORDER = "few_shot methods targets turns sizes infilling span_corruption lengths starts instruction notes".split()


def base(out: Path) -> GPT:
    """The pre-trained toy model, made once."""
    if not (out / "base" / "model.safetensors").is_file():
        with tqdm(total=toy.BASE_STEPS, desc="base", unit="step") as bar:
            toy.pretrain(bar.update).save_pretrained(out / "base")
    return GPT.from_pretrained(out / "base").eval()


def measure(name: str, out: Path) -> dict:
    """The table of one experiment, and the seconds of the processor it took."""
    if (out / f"{name}.json").is_file():
        return json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    given = base(out) if name in OF_THE_BASE else out
    began = time.process_time()
    with tqdm(desc=name, unit="step") as bar:
        found = getattr((OF_THE_BASE | OF_THEIR_OWN)[name], name)(given, bar.update)
    found["seconds"] = round(time.process_time() - began)
    write_atomic(out / f"{name}.json", json.dumps(found) + "\n")
    return found


def table(found: dict) -> str:
    lines = [f"| {' | '.join(name.strip() for name in found['columns'])} |", "|---" * len(found["columns"]) + "|"]
    for row in found["rows"]:
        cells = [
            f"{cell:,}" if isinstance(cell, int) else cell if isinstance(cell, str) else f"{cell:.3f}" for cell in row
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(found: dict[str, dict]) -> str:
    """Six of the tables as curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    _shots(axes[0], found["few_shot"]["rows"])
    _forgetting(axes[1], found["methods"]["rows"])
    rows = found["targets"]["rows"]
    for column, label in ((1, "every token is a target"), (2, "15 % of them are")):
        axes[2].plot([row[0] for row in rows], [row[column] for row in rows], marker="o", label=label)
    axes[2].set(title="why decoders", xlabel="tokens read", ylabel="validation loss")
    rows = found["sizes"]["rows"]
    axes[3].plot([row[1] for row in rows], [row[-1] for row in rows], marker="o")
    axes[3].set(title="scale", xlabel="parameters", ylabel="validation loss", xscale="log")
    for name, label in (("infilling", "every token was a target"), ("span_corruption", "targets as T5's")):
        rows = found[name]["rows"]
        axes[4].plot([str(row[0]) for row in rows], [row[2] for row in rows], marker="o", label=label)
    axes[4].set(title="after span corruption", xlabel="steps of plain text", ylabel="exact match", ylim=(0, 1.03))
    rows = found["lengths"]["rows"]
    for column, label in ((2, "text keeps its positions"), (4, "text is moved")):
        axes[5].plot([str(row[0]) for row in rows], [row[column] for row in rows], marker="o", label=label)
    axes[5].set(title="prompt length", xlabel="vectors", ylabel="exact match", ylim=(0, 1.03))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        if each.get_legend_handles_labels()[1]:
            each.legend(frameon=False, fontsize=8)
    return svg.text_of(figure, salt="family")


def _shots(axes, rows: list[list]):
    for name in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == name]
        label = "without its name" if name == "without" else name
        axes.plot([row[1] for row in own], [row[2] for row in own], marker="o", label=label)
        axes.fill_between([row[1] for row in own], [row[3] for row in own], [row[4] for row in own], alpha=0.15)
    axes.set(title="in-context learning", xlabel="examples in the prompt", ylabel="exact match", ylim=(0, 1.03))
    axes.set_xticks(range(4))


def _forgetting(axes, rows: list[list]):
    places = range(len(rows))
    axes.bar([p - 0.2 for p in places], [row[2] for row in rows], 0.4, label="known task")
    axes.bar([p + 0.2 for p in places], [row[3] for row in rows], 0.4, label="new task")
    axes.set_xticks(places, [row[0] for row in rows], rotation=20, fontsize=8)
    axes.set(title="tuning", ylabel="exact match", ylim=(0, 1.25))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="which; all if none is named")
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--plot", type=Path, help="write the picture there")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ORDER):
        parser.error(f"there is no experiment {min(unknown)!r}: {', '.join(ORDER)}")
    torch.set_num_threads(1)
    found = {}
    for name in options.names or ORDER:
        found[name] = measure(name, options.out)
        print(f"\n{name} ({found[name]['seconds']} s of one core)\n\n{table(found[name])}", flush=True)
    if options.plot:
        found = {name: measure(name, options.out) for name in ORDER}
        write_atomic(options.plot, picture(found))
