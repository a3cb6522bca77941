"""How soon is our default as good as the GPT-2 recipe after 20 minutes?  On the same machine, text and parameters.

    python bench/time_to_quality.py                       English notes, questions and answers
    python bench/time_to_quality.py --language zh         Chinese questions, answers and consultations
    python bench/time_to_quality.py --minutes 5           a quicker look

The GPT-2 recipe is nanoGPT's: learned positions, LayerNorm, GELU, AdamW (0.9, 0.95), decay 0.1, cosine to a tenth,
8 rows of 256 tokens a step, the best of three learning rates (found in a quarter of the time); run by our code, which
takes two thirds of the time that nanoGPT's own takes. Ours is what train.py does when it is told nothing, at the same
width and depth. Both have a vocabulary of 4096.

A busy machine must not decide: the seconds of a step are medians of interleaved rounds, measured first; a run of M
minutes is then the steps that take M minutes at that pace, however long they take today. Results are kept in --out
and not measured again. Text: --clinical, or our embedded notes where it is absent.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from minigpt.cli import parse  # noqa: E402
from minigpt.corpus.preparation import prepare  # noqa: E402
from minigpt.corpus.tokens import load_tokens  # noqa: E402
from minigpt.model import GPT  # noqa: E402
from minigpt.training import compose  # noqa: E402
from minigpt.training.compute import Compute  # noqa: E402
from minigpt.training.evaluate import evaluate  # noqa: E402
from minigpt.training.loop import train_step  # noqa: E402
from minigpt.training.optimizer import make_optimizer  # noqa: E402
from minigpt.training.options import BatchConfig, ComputeConfig, LoopConfig, OptimizerConfig, ShapeConfig  # noqa: E402
from minigpt.training.schedule import ScheduleConfig, learning_rate  # noqa: E402
from minigpt.training.streams import stream_seed  # noqa: E402
from minigpt.tuning.options import MethodConfig  # noqa: E402

SIZE = "--n-layers 6 --n-heads 6 --d-model 384 --context 256"
GPT2 = f"{SIZE} --shape gpt2 --batch-size 8 --precision fp32 --optimizer adamw --schedule cosine --final-lr 0.1"
GPT2 += " --warmup 50"
RATES = ("5e-4", "1e-3", "2e-3")
SHARES = (0.25, 1 / 3, 0.5)  # of the minutes, for ours: until it is as good
FIELDS = {
    "en": {
        "clinical_dialogue_notes": ["note"],
        "medquad": ["question", "answer"],
        "pubmedqa": ["question", "long_answer"],
    },
    "zh": {"toyhom_zh_qa": ["title", "question", "answer"], "dialmed_zh": ["dialogue"]},
}


def tokens_of(language: str, clinical: Path, out: Path, vocab_size: int = 4096):
    """The text as tokens, made once for each vocabulary."""
    tokens = out / ("tokens" if vocab_size == 4096 else f"tokens-{vocab_size}")
    if not (tokens / "manifest.json").is_file():
        out.mkdir(parents=True, exist_ok=True)
        source = out / "text.jsonl" if clinical.is_dir() else ROOT / "data" / "notes.jsonl"
        if clinical.is_dir():
            with source.open("w", encoding="utf-8") as file:
                for record, fields in records_of(language, clinical):
                    text = "\n".join(record[field] for field in fields)
                    file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        prepare(source, tokens, "text", None, vocab_size, 0.05, "skip", ())
    return load_tokens(tokens)


def records_of(language: str, clinical: Path):
    for name, fields in FIELDS[language].items():
        with (clinical / name / f"{name}.jsonl").open(encoding="utf-8") as file:
            yield from ((json.loads(line), fields) for line in file)


class Run:
    """A recipe at work: what train.py makes of its options, a step at a time; `changes` are of its GPTConfig."""

    def __init__(self, recipe: str, tokens, seed: int, **changes):
        records = (ShapeConfig, BatchConfig, LoopConfig, OptimizerConfig, ScheduleConfig, ComputeConfig)
        shape, batching, loop, optimizer, schedule, computing = parse(*records, prog="recipe", args=recipe.split())
        self.schedule = schedule.decided(MethodConfig().rate(new=True))
        self.loop, self.clip = replace(loop, seed=seed), optimizer.clip
        torch.manual_seed(stream_seed(seed, "init"))
        self.model = GPT(replace(shape.model_config(tokens.vocab_size), **changes))
        self.batches, self.validation = compose.make_batches(tokens, shape.context, batching, seed)
        self.optimizer = make_optimizer(self.model, optimizer)
        self.compute = Compute(self.model, computing)
        self.model.train()

    def step(self, number: int, steps: int) -> float:
        rate = learning_rate(number, steps, self.schedule)
        return train_step(self.model, self.optimizer, self.batches, self.loop, number, rate, self.clip, self.compute)[0]


def pace(tokens, rounds: int) -> dict[str, float]:
    """Median seconds of a step of both recipes, measured in turn."""
    runs = {"gpt2": Run(GPT2, tokens, 0), "ours": Run(SIZE, tokens, 0)}
    seconds = {name: [] for name in runs}
    for number in tqdm(range(rounds), desc="pace"):
        for name, run in runs.items():
            began = time.perf_counter()
            run.step(number, 1000)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found[2:]) for name, found in seconds.items()}


def quality(recipe: str, steps: int, tokens, seed: int, **changes) -> dict:
    """Train for `steps`, and judge on all validation text."""
    run, began = Run(recipe, tokens, seed, **changes), time.perf_counter()
    for number in (bar := tqdm(range(steps), desc=f"{steps} steps", mininterval=5)):
        bar.set_postfix_str(f"loss {run.step(number, steps):.2f}", refresh=False)
    found = evaluate(run.model, run.validation, torch.from_numpy(tokens.tokenizer().token_lengths()))
    parameters = sum(weight.numel() for weight in run.model.parameters())
    took = time.perf_counter() - began
    return {"bits_per_byte": found.bits_per_byte, "parameters": parameters, "took": round(took)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=FIELDS, default="en")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the GPT-2 recipe (default 20)")
    parser.add_argument("--rounds", type=int, default=12, help="steps timed of each recipe (default 12)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clinical", type=Path, default=ROOT.parent / "shared" / "clinical")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    out = options.out / options.language
    tokens = tokens_of(options.language, options.clinical, out)
    seconds = remembered(out / "pace.json", lambda: pace(tokens, options.rounds))
    rows = []

    def measure(kind: str, recipe: str, share: float) -> float:
        minutes = options.minutes * share
        steps = round(60 * minutes / seconds[kind])
        path = out / f"{recipe} {minutes:.1f} minutes, seed {options.seed}.json".replace(" ", "_")
        found = remembered(path, lambda: quality(recipe, steps, tokens, options.seed))
        rows.append((kind, recipe, minutes, steps, found))
        print(f"{kind}, {minutes:.1f} minutes: {found}", file=sys.stderr, flush=True)
        return found["bits_per_byte"]

    rate = min(RATES, key=lambda rate: measure("gpt2", f"{GPT2} --lr {rate}", 0.25))
    goal = measure("gpt2", f"{GPT2} --lr {rate}", 1.0)
    for share in SHARES:
        if measure("ours", SIZE, share) <= goal:
            break
    print(
        "| | lr | parameters | seconds a step | steps | minutes | bits per byte | |\n|---|---|---|---|---|---|---|---|"
    )
    for kind, recipe, minutes, steps, found in rows:
        good = "as good" if kind == "ours" and found["bits_per_byte"] <= goal else ""
        lr = recipe.rpartition("--lr ")[2] if kind == "gpt2" else ""
        numbers = f"{seconds[kind]:.3f} | {steps:,} | {minutes:.1f} | {found['bits_per_byte']:.4f}"
        print(f"| {kind} | {lr} | {found['parameters']:,} | {numbers} | {good} |")


def remembered(path: Path, measure) -> dict:
    """What `measure` found the first time."""
    if not path.is_file():
        path.write_text(json.dumps(measure()) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
