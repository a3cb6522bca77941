"""How many numbers each method learns and stores for the models of the papers, counted by the methods themselves.

    python -m bench counts         one table; the models are on the meta device, nothing is computed

A line is what a paper says, and what the method's own report says of that model and setting.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

import lora
from minigpt import GPT, GPTConfig, presets
from minigpt.tuning import adapter, freeze, prefix, prompt, ptuning
from minigpt.tuning.adapter import AdapterConfig
from minigpt.tuning.prefix import PrefixConfig

SMALL, MEDIUM, LARGEST = presets.gpt2("small"), presets.gpt2("medium"), presets.gpt3("175B")
T5 = GPTConfig(n_layers=1, n_heads=64, d_model=4096, vocab_size=32128, context=512)  # the width of T5-XXL, no more
QV = ["q_proj", "v_proj"]
L = {"after": ("mlp",), "norm": True}  # AdapterL


@dataclass(frozen=True)
class Case:
    """A method at a setting on a model; `paper` is what its paper says, `attach` does it."""

    setting: str
    model: str
    config: GPTConfig
    paper: str
    attach: partial


@dataclass(frozen=True)
class Count:
    """Numbers that learn, those kept afterwards, and those of the model before."""

    learned: int
    stored: int
    base: int


CASES = [
    Case("LoRA, q and v, r=4", "GPT-3 175B", LARGEST, "18 M", partial(lora.attach, config=lora.Config(4, 4, QV))),
    Case("LoRA, q and v, r=4", "GPT-2 medium", MEDIUM, "0.35 M", partial(lora.attach, config=lora.Config(4, 4, QV))),
    Case("prompt, P=20", "GPT-2 small", SMALL, "0.01 %", partial(prompt.attach, config=prompt.PromptConfig(20))),
    Case("prompt, P=5", "width of T5-XXL", T5, "20,480", partial(prompt.attach, config=prompt.PromptConfig(5))),
    Case("P-tuning, P=9", "GPT-2 small", SMALL, "0.01 %", partial(ptuning.attach, config=ptuning.PTuningConfig(9))),
    Case("prefix, P=5, m=512", "GPT-2 medium", MEDIUM, "0.1 %", partial(prefix.attach, config=PrefixConfig(5, 512))),
    Case("prefix, P=10", "GPT-2 medium", MEDIUM, "0.1 %", partial(prefix.attach, config=PrefixConfig(10))),
    *(
        Case(f"P-tuning v2, P={p}", "GPT-2 small", SMALL, "0.1 to 3 %",
             partial(prefix.attach, config=PrefixConfig.p_tuning_v2(p)))
        for p in (8, 200)
    ),
    *(
        Case(f"adapters, m={m}", "GPT-2 small", SMALL, "3.6 % on average, m 8 to 256",
             partial(adapter.attach, config=AdapterConfig(bottleneck=m)))
        for m in (8, 64, 256)
    ),
    *(
        Case(f"AdapterL, m={m}", "GPT-2 medium", MEDIUM, paper,
             partial(adapter.attach, config=AdapterConfig(bottleneck=m, **L)))
        for m, paper in ((6, "0.37 M"), (224, "11.09 M"))
    ),
    Case("top:2", "GPT-2 medium", MEDIUM, "25.19 M", partial(freeze.freeze, what="top:2")),
]  # fmt: skip


def count(case: Case) -> Count:
    """What the method's report says; LoRA's stores what it learns, the others' says how many bytes of float32."""
    with torch.device("meta"):
        model = GPT(case.config)
        base = sum(weight.numel() for weight in model.parameters())
        report = case.attach(model)
    stored = report.stored // 4 if hasattr(report, "stored") else report.parameters
    return Count(report.parameters, stored, base)


def table() -> Iterator[str]:
    """The lines of a table of Markdown."""
    yield "| method | model | the paper | learned | stored | stored, of the model |\n|---|---|---|---|---|---|"
    for case in CASES:
        found = count(case)
        share = "" if case.config is T5 else f"{100 * found.stored / found.base:.4f} %"
        yield f"| {case.setting} | {case.model} | {case.paper} | {found.learned:,} | {found.stored:,} | {share} |"


def main():
    for line in table():
        print(line, flush=True)
