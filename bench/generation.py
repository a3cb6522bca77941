"""Writing text beside transformers: GPT-2 124M with random weights, fp32, 2 threads, 64 new tokens, prefill included.

    python bench/generation.py                  every kind of work, in turn, 3 rounds
    python bench/generation.py --only beams --rounds 5
    python bench/generation.py --length         what a step costs as the text grows

Both have the same weights in one process, and are measured one after the other in each round; ratios are medians over
rounds of ours / theirs. Ours runs inside `serving(model)`, as sample.py does. The floor is one pass over the weights
for each token (each row or beam reads the same weights), by the quickest product at hand.
"""

import argparse
import random
import statistics
import sys
import time
from contextlib import nullcontext
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

    def __init__(self):
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, logging

        from minigpt import GPT, hub, presets

        logging.set_verbosity_error()
        torch.manual_seed(0)
        torch.set_num_threads(2)
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


def seconds(run, work: Work) -> float:
    began = time.perf_counter()
    run(work)
    return time.perf_counter() - began


def compare(works: list[Work], rounds: int):
    from minigpt.serving import serving

    both = Both()
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


def cost_of_length(packed: bool):
    """Milliseconds of a step after so many tokens."""
    from minigpt import GPT, presets
    from minigpt.generation.reader import Reader
    from minigpt.serving import serving

    model = GPT(presets.gpt2("small")).eval()
    print("| entries in the cache | greedy, ms a step | 4 beams | 8 beams |\n|---|---|---|---|")
    with serving(model) if packed else nullcontext():
        for length in (16, 128, 256, 512, 768, 1000):
            row = []
            for beams in (1, 4, 8):
                reader = Reader(model, [0], room=beams * 12)
                reader.start([[1] * length])
                found = []
                for step in range(12):
                    parents = [[0] * beams if step == 0 else list(range(beams))]
                    began = time.perf_counter()
                    reader.step([[5] * beams], parents)
                    found.append(time.perf_counter() - began)
                row.append(f"{1000 * statistics.median(found[2:]):.1f}")
            print(f"| {length} | {' | '.join(row)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times each kind of work is measured (default 3)")
    parser.add_argument("--only", default="", metavar="WORDS", help="works whose name holds this")
    parser.add_argument("--length", action="store_true", help="the cost of a step by length instead")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if options.length:
        cost_of_length(packed=True)
        return
    works = [work for work in WORKS if options.only in work.name]
    if not works:
        sys.exit(f"--only {options.only!r} fits none of: {', '.join(work.name for work in WORKS)}")
    compare(works, options.rounds)


if __name__ == "__main__":
    main()
