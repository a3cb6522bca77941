"""One pass over GPT-2's weights with few rows, by kernel: what generating text costs at least, in tokens/s.

    python bench/few_rows.py                     F.linear, linear.fast, serving, serving with int8
    python bench/few_rows.py --run runs/notes    also the loss of a trained run in float32 and int8

12 layers of q, k, v, o (768 -> 768), up (768 -> 3072), down, and the head (768 -> 50257): 73 products, 124M weights,
fp32, 2 threads. The kernels take turns within a round. A product counts with its quickest of all rounds, a pass with
the sum of them: others on the machine only add time. The weights, 500 MB, are read from memory each time.
The loss is that of the run's whole validation text, every weight in 8 bits, small ones too.
"""

import argparse
import time

import torch
import torch.nn.functional as F

from minigpt import GPT, linear, serving
from minigpt.corpus.batches import Batches
from minigpt.corpus.tokens import load_tokens
from minigpt.linear import Linear
from minigpt.loss import IGNORE

C, V, LAYERS = 768, 50257, 12


def kernels() -> dict[str, list]:
    """The 73 products of each kernel: functions of x."""
    layers = [Linear(i, o) for _ in range(LAYERS) for i, o in [(C, C)] * 4 + [(C, 4 * C), (4 * C, C)]]
    layers.append(Linear(C, V, bias=False))
    kinds = {"F.linear": lambda weight: linear.plain, "linear.fast": lambda weight: linear.fast}
    for name, kind in serving.KINDS.items():
        kinds[f"serving, {name}"] = lambda weight, kind=kind: kind(weight, linear.fast, kind.lay_out(weight.detach()))
    return {name: [(layer, make(layer.weight)) for layer in layers] for name, make in kinds.items()}


def seconds(products: list, inputs: dict) -> list[float]:
    found = []
    for layer, multiply in products:
        began = time.perf_counter()
        multiply(inputs[layer.in_features], layer.weight, layer.bias)
        found.append(time.perf_counter() - began)
    return found


def speeds(rows: list[int], rounds: int):
    names = kernels()
    print("| rows | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for n in rows:
        inputs = {C: torch.randn(n, C), 4 * C: torch.randn(n, 4 * C)}
        found = {name: [] for name in names}
        for _ in range(rounds + 1):
            for name, products in names.items():
                found[name].append(seconds(products, inputs))
        best = (n / sum(map(min, zip(*found[name], strict=True))) for name in names)
        print(f"| {n} | " + " | ".join(f"{speed:,.0f}" for speed in best) + " |", flush=True)


def loss(model: GPT, batches: Batches) -> tuple[float, int]:
    """Mean nats a token, from the logits: `loss.cross_entropy` would read the head's weight as it is."""
    total, count = 0.0, 0
    for k in range(len(batches)):
        batch = batches[k]
        logits = model(batch.tokens, positions=batch.positions, documents=batch.documents)
        total += F.cross_entropy(logits.flatten(0, 1).double(), batch.targets.flatten(), reduction="sum").item()
        count += int((batch.targets != IGNORE).sum())
    return total / count, count


def losses(run: str):
    model, tokens = GPT.from_pretrained(run).eval(), load_tokens(f"{run}/tokens")
    batches = Batches(tokens.val, model.config.context, 8, 0, eot=tokens.eot, shuffle=False)
    serving.WORTH = 0
    base, count = loss(model, batches)
    print(f"\n{run}: {count} tokens\nas it is  {base:.5f} nats")
    for name in serving.KINDS:
        with serving.serving(model, name):
            found, _ = loss(model, batches)
        print(f"{name:9} {found:.5f} nats, {found - base:+.5f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 2, 4, 8, 16, 512])
    parser.add_argument("--rounds", type=int, default=25, help="times each kernel runs (default 25)")
    parser.add_argument("--run", help="directory of a run that train.py made")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with torch.inference_mode():
        speeds(options.rows, options.rounds)
        if options.run:
            losses(options.run)


if __name__ == "__main__":
    main()
