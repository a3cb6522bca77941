"""What each way of stretching positions is worth: a small model trained at 256 tokens, stretched to 1024.

    python -m bench context --out runs/long                          rotary positions, in every way
    python -m bench context --out runs/long-gpt2 --shape gpt2        a table of learned positions
    ... --plot docs                                                  and draws the pictures of docs/context.md

One base model; then for each way the same number of steps at the longer length, on the same rows. Text: --clinical
(doctors and patients in conversation, and their notes), 40 of the long ones kept apart to judge by. Six facts stand
three times in every row, so that there is something to be found far back. Work is counted in steps; what has been
trained is kept in --out and not trained again.
"""

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRAINED, LONG = 256, 1024
EDGES = [1, 128, 256, 512, 1024]
WAYS = {"llama": ("none", "linear", "ntk", "dynamic", "yarn", "llama3"), "gpt2": ("interpolated",)}
FACTS = {  # statements as needle.Fact has them: the question is what comes before {}
    "\nAllergies:{}.\n": (" penicillin", " aspirin", " latex", " iodine", " peanuts", " codeine"),
    "\nWard:{}.\n": (" north", " south", " east", " west", " garden", " tower"),
    "\nImplant:{}.\n": (" pacemaker", " stent", " hip", " lens", " valve", " screw"),
    "\nDiet:{}.\n": (" vegan", " halal", " low salt", " soft", " liquid", " diabetic"),
    "\nLanguage:{}.\n": (" Spanish", " Polish", " Hindi", " Arabic", " French", " Greek"),
    "\nPharmacy:{}.\n": (" Mill Road", " Castle", " Station", " High Street", " Abbey", " Bridge"),
}
PANELS = ("not stretched, endless", "none, tuned", "yarn", "yarn, tuned", "interpolated", "interpolated, tuned")


class Text:
    """Token ids of short and long texts, and rows of them with facts in them."""

    def __init__(self, clinical: Path, out: Path):
        from minigpt.corpus.documents import Documents
        from minigpt.tokenizer import Tokenizer

        texts = [
            each.text
            for field in ("dialogue", "note")
            for each in Documents(clinical / "clinical_dialogue_notes" / "clinical_dialogue_notes.jsonl", field)
        ]
        random.Random(0).shuffle(texts)
        if not (out / "tokenizer.json").is_file():
            facts = [statement.format(value) for statement, values in FACTS.items() for value in values]
            Tokenizer.train([*texts[:1000], *facts * 20], 1024).save(out)
        self.tokenizer = Tokenizer.load(out)
        ids = [[self.tokenizer.eot, *self.tokenizer.encode(text)] for text in texts]
        self.long = [text for text in ids if len(text) > 1100][:40]  # for the judgement
        kept = set(map(tuple, self.long))
        self.train = [token for text in ids if tuple(text) not in kept for token in text]
        self.planted = {
            statement: [self.tokenizer.encode(statement.format(value)) for value in values]
            for statement, values in FACTS.items()
        }

    def row(self, length: int, draw: random.Random) -> list[int]:
        """length + 1 tokens of text; each fact stands in it three times, with one value."""
        facts = [draw.choice(values) for values in self.planted.values()] * 3
        body = length + 1 - sum(map(len, facts))
        start = draw.randrange(len(self.train) - body)
        row, places = self.train[start : start + body], sorted(draw.randrange(body) for _ in facts)
        draw.shuffle(facts)
        for place, fact in zip(reversed(places), facts, strict=True):
            row[place:place] = fact
        return row


def tune(model, text: Text, steps: int, length: int, rows: int, lr: float, seed: int, name: str):
    """So many steps on rows of that length, by train.py's optimizer and schedule."""
    import torch
    from tqdm import tqdm

    from minigpt.loss import cross_entropy
    from minigpt.training.optimizer import make_optimizer
    from minigpt.training.options import OptimizerConfig
    from minigpt.training.schedule import ScheduleConfig, learning_rate

    draw, optimizer = random.Random(seed), make_optimizer(model.train(), OptimizerConfig().decided(new=True))
    schedule = ScheduleConfig(lr=lr, warmup=min(20, steps // 4))
    for step in (bar := tqdm(range(steps), desc=name)):
        batch = torch.tensor([text.row(length, draw) for _ in range(rows)])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, schedule) * group.get("lr_scale", 1.0)
        loss = cross_entropy(model.hidden(batch[:, :-1]), model.head, batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return model.eval()


class Trial:
    """Models made once and kept in --out, and what was found about each."""

    def __init__(self, options, text: Text):
        self.options, self.text = options, text
        self.rows = _rows(text)
        self.found = {}

    def base(self):
        import torch

        from minigpt.training.options import SHAPES

        torch.manual_seed(0)
        sizes = {"n_layers": 3, "n_heads": 4, "d_model": 128, "vocab_size": self.text.tokenizer.vocab_size}
        shape = SHAPES[self.options.shape](**sizes, context=TRAINED)
        return self._made("base", lambda: _new(shape), self.options.steps, TRAINED, 4e-3)

    def tuned(self, way: str, longer):
        """The stretched model after the short training."""
        return self._made(f"{way}-tuned", lambda: longer, self.options.tune_steps, LONG, 1e-3)

    def _made(self, name: str, make, steps: int, length: int, lr: float):
        from minigpt import GPT

        place = self.options.out / name
        if not (place / "config.json").is_file():
            rows = self.options.tokens // length
            tune(make(), self.text, steps, length, rows, lr, 1, name).save_pretrained(place)
        return GPT.from_pretrained(place)

    def judge(self, name: str, model):
        """Perplexity by position, and the needle; a line of the table."""
        from minigpt.context.lengths import by_position
        from minigpt.context.needle import Fact, cell

        statement, values = next(iter(FACTS.items()))
        buckets = by_position(model, self.rows, EDGES)
        cells = [
            cell(model, self.text.tokenizer.encode, self.rows[:1], Fact(statement, values), length, depth)
            for length in (TRAINED - 4, LONG // 2, LONG - 4)
            for depth in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        self.found[name] = buckets, cells
        hits = {n: sum(c.hits for c in cells if c.length == n) / sum(c.trials for c in cells if c.length == n)
                for n in sorted({c.length for c in cells})}  # fmt: skip
        shown = " | ".join(f"{bucket.perplexity:.2f}" for bucket in buckets)
        print(f"| {name} | {shown} | {' | '.join(f'{share:.0%}' for share in hits.values())} |", flush=True)

    def keep(self):
        """All numbers as JSON, and with --plot the pictures."""
        from minigpt.context.show import draw_needle, draw_positions

        numbers = {name: {"buckets": [asdict(b) | {"perplexity": b.perplexity} for b in buckets],
                          "needle": [asdict(c) for c in cells]}
                   for name, (buckets, cells) in self.found.items()}  # fmt: skip
        (self.options.out / "found.json").write_text(json.dumps(numbers, indent=2))
        if self.options.plot:
            before = {n: b for n, (b, _) in self.found.items() if not n.endswith("tuned")}
            after = {n: b for n, (b, _) in self.found.items() if n.endswith("tuned")}
            shown = {n: c for n, (_, c) in self.found.items() if n in PANELS}
            for name, curves in (("before", before), ("after", after)):
                picture = draw_positions(curves, TRAINED)
                (self.options.plot / f"context-{self.options.shape}-{name}.svg").write_text(picture, encoding="utf-8")
            if shown:
                (self.options.plot / f"context-{self.options.shape}-needle.svg").write_text(draw_needle(shown), "utf-8")


def _new(config):
    from minigpt import GPT

    return GPT(config)


def _rows(text: Text) -> list[list[int]]:
    from minigpt.context.lengths import rows_of

    return rows_of([each[: LONG + 1] for each in text.long], LONG, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the models; those that are there stay")
    parser.add_argument("--clinical", type=Path, default=ROOT.parent / "shared" / "clinical", help="folder of the text")
    parser.add_argument("--shape", choices=WAYS, default="llama", help="llama has rotary positions, gpt2 a table")
    parser.add_argument("--steps", type=int, default=700, help="of the base model (default 700)")
    parser.add_argument("--tune-steps", type=int, default=30, help="of each stretched model (default 30)")
    parser.add_argument("--tokens", type=int, default=1024, help="of a step (default 1024)")
    parser.add_argument("--only", default="", metavar="WAYS", help="such as yarn,none (default all)")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the pictures there")
    options = parser.parse_args()
    import torch

    from minigpt.context.extend import endless, extend

    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    trial = Trial(options, Text(options.clinical, options.out))
    base, ways = trial.base(), options.only.split(",") if options.only else WAYS[options.shape]
    heads = [f"{a} to {b - 1}" for a, b in zip(EDGES, EDGES[1:], strict=False)]
    print(f"| tokens before | {' | '.join(heads)} | found in {TRAINED - 4} | {LONG // 2} | {LONG - 4} |\n{'|---' * 8}|")
    if options.shape == "llama":
        trial.judge("not stretched, endless", endless(base))
    for way in ways:  # each from weights of its own: what is stretched shares them with what it was made from
        longer = extend(trial.base(), LONG, way if options.shape == "llama" else "yarn")
        trial.judge(way, longer)
        trial.judge(f"{way}, tuned", trial.tuned(way, longer))
    trial.keep()
