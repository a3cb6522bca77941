"""What a tuning method costs when the model is used: the grid of the LoRA paper's table 1, on a smaller model.

    python -m bench latency                 some three minutes of one core
    python -m bench latency --rounds 3      a look

One forward pass of a batch without the head's logits, no gradients, one thread, float32. The paper times GPT-2 medium
on a graphics card; here it is a model of its kind with 4 blocks of width 256, and everything in proportion: bottlenecks
of 224/1024 (AdapterL) and 112/1024 (AdapterH) of the width, LoRA of rank 4 on queries and values. What counts is the
processor's time, not the clock's; variants take turns, another one first each time, and of each the fastest pass is
kept, for a busy machine only ever adds. The order means something, the milliseconds are this machine's.
"""

import argparse
import copy
import os
import time
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from tqdm import tqdm

import lora
from minigpt import GPT, GPTConfig
from minigpt.tuning import adapter, prefix, prompt
from minigpt.tuning.adapter import AdapterConfig

CONFIG = GPTConfig(n_layers=4, n_heads=4, d_model=256, vocab_size=4096, context=576)
GRID = [(32, 512, 1), (16, 256, 3), (1, 128, 30)]  # rows, tokens, rounds for each one asked for
PREFIX, PROMPT = 10, 20  # virtual tokens
PAPER = {"base": (1449.4, 338.0, 19.8), "AdapterL": (1482.0, 354.8, 23.9), "AdapterH": (1492.2, 366.3, 25.8)}
PAPER["LoRA, merged"] = PAPER["base"]


def variants(stack: ExitStack) -> dict[str, tuple[GPT, list[int]]]:
    """name -> the model, and the ids that stand before every text; `stack` holds what stays open."""
    torch.manual_seed(0)
    base = GPT(CONFIG).eval()
    models = {name: copy.deepcopy(base) for name in ("LoRA, merged", "LoRA", "LoRA, lora.serving")}
    for model in models.values():
        lora.attach(model, lora.Config(r=4, alpha=4, targets=["q_proj", "v_proj"]))
        for weight in lora.parameters(model):
            nn.init.normal_(weight, std=0.02)
    lora.merge(models["LoRA, merged"])
    stack.enter_context(lora.serving(models["LoRA, lora.serving"]))
    width = CONFIG.d_model
    bottlenecks = {
        "AdapterL": AdapterConfig(bottleneck=224 * width // 1024, after=("mlp",), norm=True),
        "AdapterH": AdapterConfig(bottleneck=112 * width // 1024),
    }
    for name, config in bottlenecks.items():
        models[name] = copy.deepcopy(base)
        adapter.attach(models[name], config)
    models["prefix, P=10"], models["prompt, P=20"] = copy.deepcopy(base), copy.deepcopy(base)
    prefix.attach(models["prefix, P=10"], prefix.PrefixConfig(length=PREFIX))
    prompt.attach(models["prompt, P=20"], prompt.PromptConfig(length=PROMPT))
    found = {name: (model.eval(), []) for name, model in {"base": base, **models}.items()}
    found["prompt, P=20"] = (models["prompt, P=20"], prompt.ids(models["prompt, P=20"]))
    return found


@torch.inference_mode()
def seconds(model: GPT, tokens: Tensor) -> float:
    """Of one pass, on the processor."""
    began = time.process_time()
    model.hidden(tokens)
    return time.process_time() - began


def measure(models: dict[str, tuple[GPT, list[int]]], rows: int, length: int, rounds: int) -> dict[str, float]:
    """The fastest pass of each variant, in milliseconds, all of them in turn."""
    text = torch.randint(CONFIG.vocab_size, (rows, length))
    best, names = dict.fromkeys(models, float("inf")), list(models)
    for number in tqdm(range(rounds + 1), desc=f"{rows} x {length}", leave=False):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            model, virtual = models[name]
            tokens = torch.cat([torch.tensor(virtual, dtype=torch.int64).expand(rows, -1), text], dim=1)
            took = seconds(model, tokens)
            best[name] = min(best[name], took) if number else best[name]  # the first round warms up
    return {name: 1000 * found for name, found in best.items()}


def table(found: list[dict[str, float]]) -> str:
    """The grid, each cell with its distance from the base's, and the paper's distances beside ours."""
    names = [f"{rows} x {length}" for rows, length, _ in GRID]
    lines = [f"| ms | {' | '.join(names)} | the paper: {' / '.join(names)} |", "|---" * (len(GRID) + 2) + "|"]
    for name in found[0]:
        cells = [f"{cell[name]:,.1f} ({cell[name] / cell['base'] - 1:+.1%})" for cell in found]
        theirs = [f"{a / b - 1:+.1%}" for a, b in zip(PAPER.get(name, ()), PAPER["base"], strict=False)]
        lines.append(f"| {name} | {' | '.join(cells)} | {' / '.join(theirs)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="passes of the largest batch (default 7), of others more")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with ExitStack() as stack:
        models = variants(stack)
        found = [measure(models, rows, length, rounds * more) for rows, length, more in GRID]
    print(table(found))
    print(f"\nload of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
