"""Does a model follow an instruction that it was never tuned on?  Compositions of operations on short sequences.

    python -m bench instruct                 the table of docs/chat.md: about three and a half minutes of one core
    python -m bench instruct --seeds 1       half of it

    Reverse. d a c b         ->  b c a d                the base has read such lines as text, one operation each
    Reverse, then raise. d a c b  ->  B C A D           an instruction; some pairs are held out, in this order and that

Everything goes through files of records and `open_records`, the held-out pairs as `held_out` tasks. An answer counts
when all of it is right. The sequences asked for are no input of any training text; of a held-out pair the other order
is trained on. Steps are counted, not seconds.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from minigpt import GPT, presets
from minigpt.corpus.examples import open_records, texts
from minigpt.corpus.records import RecordConfig
from minigpt.corpus.talk import Layout
from minigpt.generation import generate
from minigpt.loss import cross_entropy
from minigpt.tokenizer import Tokenizer
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import OptimizerConfig

OPERATIONS = {
    "reverse": lambda s: s[::-1],
    "rotate": lambda s: s[1:] + s[:1],
    "swap": lambda s: s[-1:] + s[1:-1] + s[:1],
    "sort": sorted,
    "raise": lambda s: [c.upper() for c in s],
    "double": lambda s: [c for c in s for _ in range(2)],
    "shorten": lambda s: s[:-1],
}
HELD_OUT = (
    "reverse rotate",
    "raise swap",
    "double reverse",
    "rotate shorten",
    "swap double",
    "shorten raise",
    "sort swap",
)
SINGLES, PAIRS = list(OPERATIONS), [" ".join(pair) for pair in itertools.permutations(OPERATIONS, 2)]
AS_TEXT = {"template": "{instruction} {input} = {output}", "mask": "off"}
CONTEXT, ROWS, RATE = 64, 16, 1.2e-2  # 3.5 records a row, 181,000 parameters


def record(task: str, sequence: list[str]) -> dict:
    """The instruction, and the answer: `task` names the operations in their order."""
    result = list(sequence)
    for name in task.split():
        result = list(OPERATIONS[name](result))
    words = ", then ".join(task.split())
    return {
        "instruction": words.capitalize() + ".",
        "input": " ".join(sequence),
        "output": " ".join(result),
        "task": task,
    }


def records(tasks: list[str], count: int, apart: bool, seed: int) -> list[dict]:
    """`count` of each task; the sequences with `apart` are never among those without."""
    draw, found = random.Random(f"{seed} {apart}"), []
    for task in tasks:
        mine = []
        while len(mine) < count:
            sequence = draw.choices("abcdefgh", k=draw.randint(3, 5))
            if (sum(map(ord, sequence)) % 5 == 0) == apart:
                mine.append(record(task, sequence))
        found += mine
    return found


def tune(model: GPT, batches, steps: int, rate: float = RATE, weight_decay: float = 0.01):
    """Muon, warmed up over 30 steps, then linear to 0."""
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="muon", weight_decay=weight_decay))
    model.train()
    for step in tqdm(range(steps), desc="training", unit="step", disable=None, leave=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / 30, 1 - step / steps)
        batch = batches[step]
        hidden = model.hidden(batch.tokens, positions=batch.positions, documents=batch.documents)
        cross_entropy(hidden, model.head, batch.targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def right(model: GPT, tokenizer: Tokenizer, asked: list[dict], as_text: bool = False) -> float:
    """Share of the answers that are right, greedy; `as_text` asks as the base has read it, for the text to go on."""
    layout, ids = Layout.of(tokenizer), []
    for each in asked:
        if as_text:
            ids.append([layout.begin, *tokenizer.encode(f"{each['instruction']} {each['input']} =")])
        else:
            ids.append(layout.join([tokenizer.encode(f"{each['instruction']}\n\n{each['input']}")]))
    found = generate(model, ids, max_new_tokens=14, temperature=0, eos=layout.end)
    said = [tokenizer.decode(token for token in new if token != layout.end).strip() for new in found]
    return sum(a == each["output"] for a, each in zip(said, asked, strict=True)) / len(asked)


def experiment(seed: int, folder: Path, steps: int) -> dict[str, list[float]]:
    """Right answers of each model: to single operations, to pairs it was tuned on, to pairs held out."""
    files = {}
    for name, tasks, count in (("singles", SINGLES, 1500), ("pairs", SINGLES + PAIRS, 400)):
        files[name] = folder / f"{name}-{seed}.jsonl"
        lines = (json.dumps(each) + "\n" for each in records(tasks, count, False, seed))
        files[name].write_text("".join(lines))
    tokenizer = Tokenizer.train(texts(files["pairs"], "instruct", RecordConfig()), 400)
    seen = [pair for pair in PAIRS if pair not in HELD_OUT]
    asked = [records(tasks, 40, True, seed) for tasks in (SINGLES, seen, list(HELD_OUT))]

    def tuned(start: GPT | None, name: str, **options) -> GPT:
        config = RecordConfig(pack=True, held_out=HELD_OUT if name == "pairs" else (), **options)
        training, _, _ = open_records(files[name], "instruct", config, tokenizer, CONTEXT, ROWS, seed, progress=False)
        torch.manual_seed(seed)
        shape = {"n_layers": 3, "n_heads": 4, "d_model": 64, "context": CONTEXT}
        model = GPT(presets.llama_like(vocab_size=tokenizer.vocab_size, **shape))
        if start is not None:
            model.load_state_dict(start.state_dict())
        tune(model, training, steps)
        return model

    def measured(model: GPT, as_text: bool = False) -> list[float]:
        return [right(model, tokenizer, each, as_text) for each in asked]

    base = tuned(None, "singles", **AS_TEXT)
    return {
        "base, as text to complete": measured(base, as_text=True),
        "base, as an instruction": measured(base),
        "base, tuned on single operations": measured(tuned(base, "singles")),
        "base, tuned on pairs too": measured(tuned(base, "pairs")),
        "the same, learning every token (mask off)": measured(tuned(base, "pairs", mask="off")),
        "no base, tuned on pairs too": measured(tuned(None, "pairs")),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500, help="of each of the five trainings of a seed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, began = [], time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            found.append(experiment(seed, Path(folder), options.steps))
            print(f"seed {seed}: {found[-1]} after {time.process_time() - began:.0f} s of processor time", flush=True)
    print(
        "\n| right answers, %, lowest to highest | one operation | pairs tuned on | pairs held out |\n|---|---|---|---|"
    )
    for name in found[0]:
        columns = zip(*(each[name] for each in found), strict=True)
        spans = [f"{100 * min(column):.0f} to {100 * max(column):.0f}" for column in columns]
        print(f"| {name} | " + " | ".join(spans) + " |")
