"""Eight rows with five different things beside the model: in one batch, an adapter at a time, or a row at a time.

    python -m bench mixed_rows

Tokens written in a second of CPU time, one thread, best of four rounds in turn; the texts are the same.
"""

import time

import torch

import lora
from minigpt import GPT, GPTConfig
from minigpt.generation import generate
from minigpt.serving import serving
from minigpt.tuning import adapter, mixed, prefix

NAMES = ["lora", "houlsby", "all", "prefix", None, "lora", "houlsby", "prefix"]
TEXTS = [list(range(5 + row, 25 + row)) for row in range(8)]
NEW = 40


def tuned() -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layers=4, n_heads=4, d_model=256, vocab_size=4096, context=256)).eval()
    lora.attach(model, lora.Config(r=8), "lora")
    lora.attach(model, lora.Config(r=8, targets="all-linear"), "all")
    adapter.attach(model, adapter.Config(bottleneck=32), "houlsby")
    prefix.attach(model, prefix.Config(length=8), "prefix")
    return model


def write(model: GPT, texts) -> list[list[int]]:
    return generate(model, texts, NEW, temperature=0)


def in_one_batch(model: GPT) -> list[list[int]]:
    with mixed.rows(model, NAMES, lora):
        return write(model, TEXTS)


def an_adapter_at_a_time(model: GPT) -> list[list[int]]:
    written = {}
    for name in dict.fromkeys(NAMES):
        mixed.use(model, name, lora)
        rows = [row for row, each in enumerate(NAMES) if each == name]
        written |= dict(zip(rows, write(model, [TEXTS[row] for row in rows]), strict=True))
    return [written[row] for row in range(len(NAMES))]


def a_row_at_a_time(model: GPT) -> list[list[int]]:
    written = []
    for name, text in zip(NAMES, TEXTS, strict=True):
        mixed.use(model, name, lora)
        written += write(model, [text])
    return written


def one_adapter_for_all(model: GPT) -> list[list[int]]:
    mixed.use(model, "lora", lora)
    return write(model, TEXTS)


def main():
    torch.set_num_threads(1)
    model, best = tuned(), {}
    ways = (in_one_batch, an_adapter_at_a_time, a_row_at_a_time, one_adapter_for_all)
    with serving(model), lora.serving(model):
        same = [way(model) for way in ways]
        for _ in range(4):
            for way in ways:
                start = time.process_time()
                way(model)
                best[way] = min(time.process_time() - start, best.get(way, float("inf")))
    assert same[0] == same[1] == same[2]
    for way in ways:
        print(f"{way.__name__.replace('_', ' '):<22} {len(NAMES) * NEW / best[way]:6.0f} tokens a CPU second")
