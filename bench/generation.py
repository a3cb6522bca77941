"""Writing text beside transformers: GPT-2 124M with random weights, fp32, 2 threads, 64 new tokens, prefill included.

    python bench/generation.py                  every kind of work, in turn, 3 rounds
    python bench/generation.py --only beams --rounds 5
    python bench/generation.py --length         what a step costs as the text grows; --plot FILE.svg draws it

Both have the same weights in one process, and are measured one after the other in each round; ratios are medians over
rounds of ours / theirs. Ours runs inside `serving(model)`, as sample.py does. The floor is one pass over the weights
for each token (each row or beam reads the same weights), by the quickest product at hand.
"""

import argparse
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

NEW, VOCABULARY = 64, 50257


@dataclass
class Work:
    """`goal`: how many times as fast as transformers it should be."""

    name: str
    rows: int = 1
    beams: int = 1
    prompt: int = 64
    weights: str = "float32"
    goal: float | None = None


WORKS = [
    Work("greedy", goal=1.45),
    Work("greedy, 8 rows", rows=8, goal=1.9),
    Work("greedy, int8", weights="int8", goal=3.0),
    Work("4 beams", beams=4, goal=2.5),
    Work("8 beams", beams=8, goal=2.8),
    Work("4 beams, prompt 512", beams=4, prompt=512, goal=3.5),
    Work("8 beams, prompt 512", beams=8, prompt=512, goal=5.0),
    Work("8 samples, prompt 512", rows=-8, prompt=512),
]


class Both:
    """The same weights, as ours and as transformers'."""

    def __init__(self, threads: int):
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, logging

        from minigpt import GPT, hub, presets

        logging.set_verbosity_error()
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        self.torch, self.ours = torch, GPT(presets.gpt2("small")).eval()
        self.theirs = GPT2LMHeadModel(GPT2Config()).eval()
        weights = dict(_their_names(hub, self.ours))
        missing, unknown = self.theirs.load_state_dict(weights, strict=False)
        assert not unknown and set(missing) <= {"lm_head.weight"}, (missing, unknown)
        self.theirs.tie_weights()

    def prompts(self, work: Work) -> list[list[int]]:
        draw = random.Random(work.prompt)
        if work.rows < 0:
            return [[draw.randrange(VOCABULARY) for _ in range(work.prompt)]] * -work.rows
        return [[draw.randrange(VOCABULARY) for _ in range(work.prompt)] for _ in range(work.rows)]

    def run_ours(self, work: Work):
        from minigpt.generation import beam_search, generate

        if work.beams > 1:
            return beam_search(self.ours, self.prompts(work), num_beams=work.beams, max_new_tokens=NEW)[0][0].tokens
        greedy = 0 if work.rows > 0 else 1.0
        return generate(self.ours, self.prompts(work), max_new_tokens=NEW, temperature=greedy)[0]

    def run_theirs(self, work: Work):
        ids = self.torch.tensor(self.prompts(work))
        options = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0, "num_beams": work.beams}
        options |= {"do_sample": work.rows < 0, "top_k": 0}
        if work.rows < 0:
            ids, options["num_return_sequences"] = ids[:1], -work.rows
        with self.torch.inference_mode():
            out = self.theirs.generate(ids, attention_mask=self.torch.ones_like(ids), **options)
        return out[0, ids.shape[1] :].tolist()


def _their_names(hub, model):
    """Our parameters as transformers names and joins them."""
    import torch

    ours = dict(model.named_parameters(remove_duplicate=False))
    for entry in hub.layout(model.config):
        whole = torch.cat([ours[name].detach() for name in entry.ours])
        name = (
            entry.name if entry.name.startswith("lm_head") else f"transformer.{entry.name.removeprefix('transformer.')}"
        )
        yield name, whole.T.contiguous() if entry.transposed else whole


def seconds(run, *what) -> float:
    began = time.perf_counter()
    run(*what)
    return time.perf_counter() - began


def compare(works: list[Work], rounds: int, threads: int):
    from minigpt.serving import serving

    both = Both(threads)
    ours, theirs = {}, {}
    for number in range(rounds):
        for work in works:
            with serving(both.ours, weights=work.weights):
                if not number:
                    same = both.run_ours(work) == both.run_theirs(work)  # also warms up
                    if not same and work.rows > 0 and work.weights == "float32":
                        print(
                            f"{work.name}: the two wrote different tokens (rounding decides near ties)", file=sys.stderr
                        )
                ours.setdefault(work.name, []).append(seconds(both.run_ours, work))
            theirs.setdefault(work.name, []).append(seconds(both.run_theirs, work))
            print(f"round {number + 1}/{rounds}  {work.name}", file=sys.stderr)
    print("| 64 new tokens | ours, tokens/s | transformers | ratio | rounds | goal |\n|---|---|---|---|---|---|")
    for work in works:
        pairs = [b / a for a, b in zip(ours[work.name], theirs[work.name], strict=True)]
        speed = [NEW * abs(work.rows) / statistics.median(found[work.name]) for found in (ours, theirs)]
        goal = f"{work.goal:.2f}" if work.goal else ""
        spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
        print(f"| {work.name} | {speed[0]:.1f} | {speed[1]:.1f} | {statistics.median(pairs):.2f} | {spread} | {goal} |")


class Ours:
    """A text of so many tokens, read; `step` reads a token more of each beam."""

    def __init__(self, both: Both, length: int, beams: int):
        from minigpt.generation.reader import Reader

        self.beams, self.parents = beams, [0] * beams
        self.reader = Reader(both.ours, [0], room=beams * STEPS)
        self.reader.start([[1] * length])

    def step(self):
        self.reader.step([[5] * self.beams], [self.parents])
        self.parents = list(range(self.beams))[::-1]  # a search seldom keeps the order


class Theirs:
    """The same by transformers, in the way of its beam search: a copy of the cache each, brought into order."""

    def __init__(self, both: Both, length: int, beams: int):
        from transformers import DynamicCache

        self.torch, self.model = both.torch, both.theirs
        self.tokens, self.order = self.torch.full((beams, 1), 5), self.torch.arange(beams).flip(0)
        self.cache = DynamicCache(config=both.theirs.config)
        with self.torch.inference_mode():
            self.model(self.torch.ones(1, length, dtype=int), past_key_values=self.cache, logits_to_keep=1)
            self.cache.batch_repeat_interleave(beams)

    def step(self):
        with self.torch.inference_mode():
            if len(self.order) > 1:
                self.cache.reorder_cache(self.order)
            self.model(self.tokens, past_key_values=self.cache)


def cost_of_length(rounds: int, threads: int, plot: Path | None):
    """Milliseconds of a step, a token for each beam, after so many: medians over the steps of all rounds, in turn."""
    from minigpt.serving import serving

    both, found = Both(threads), {}
    with serving(both.ours):
        for number in range(rounds):
            for length in LENGTHS:
                for name, (kind, beams, _) in CURVES.items():
                    text = kind(both, length, beams)
                    taken = [seconds(text.step) for _ in range(STEPS)]
                    found.setdefault((name, length), []).extend(taken[2:])
                print(f"round {number + 1}/{rounds}  {length} entries", file=sys.stderr)
    table = {name: [1000 * statistics.median(found[name, length]) for length in LENGTHS] for name in CURVES}
    print(f"| ms a step after | {' | '.join(CURVES)} |\n|{'---|' * (len(CURVES) + 1)}")
    for row, length in enumerate(LENGTHS):
        print(f"| {length} | {' | '.join(f'{times[row]:.1f}' for times in table.values())} |")
    if plot:
        from minigpt.training.report import draw

        curves = [(name, LENGTHS, times, CURVES[name][-1]) for name, times in table.items()]
        plot.write_text(draw("ms a step", curves, {}, across="entries in the cache"), encoding="utf-8")


STEPS, LENGTHS = 10, (16, 128, 256, 512, 768, 1000)
CURVES = {
    "transformers, 8 beams": (Theirs, 8, "#c33"),
    "transformers, greedy": (Theirs, 1, "#e99"),
    "minigpt, 8 beams": (Ours, 8, "#36c"),
    "minigpt, greedy": (Ours, 1, "#8ad"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times each kind of work is measured (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2; 1 where others compute too)")
    parser.add_argument("--only", default="", metavar="WORDS", help="works whose name holds this")
    parser.add_argument("--length", action="store_true", help="the cost of a step by length instead")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the cost of a step by length")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if options.length or options.plot:
        cost_of_length(options.rounds, options.threads, options.plot)
        return
    works = [work for work in WORKS if options.only in work.name]
    if not works:
        sys.exit(f"--only {options.only!r} fits none of: {', '.join(work.name for work in WORKS)}")
    compare(works, options.rounds, options.threads)


if __name__ == "__main__":
    main()
