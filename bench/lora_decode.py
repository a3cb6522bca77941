"""What adapters cost at decoding: one token for 1 or 8 rows of GPT-2 124M, float32, inside `lora.serving`.

The reference is the base without adapters. r 8; mixed: four adapters of all linear layers, two rows each. laid out:
inside `minigpt.serving` too, as sample.py does it.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

UNIT, REFERENCE, ROUNDS = "tokens/s", "base", 15
VOCABULARY = 50257


@dataclass(frozen=True)
class Work:
    """How many rows, and whether the weights are laid out for few of them."""

    name: str
    rows: int = 1
    laid_out: bool = False

    @property
    def units(self) -> int:
        return self.rows


WORKS = [
    Work("1 row"),
    Work("8 rows", 8),
    Work("1 row, laid out", 1, True),
    Work("8 rows, laid out", 8, True),
]


def adapted(targets=None, names=("default",)):
    """GPT-2 124M with these adapters, none of them zero."""
    import torch

    import lora
    from minigpt import GPT, presets

    torch.manual_seed(0)
    model = GPT(presets.gpt2("small")).eval()
    for name in names if targets else ():
        lora.attach(model, lora.Config(r=8, alpha=16, targets=targets), name=name)
    for parameter in lora.parameters(model):
        torch.nn.init.normal_(parameter, std=0.01)
    return model


def decoding(work: Work, targets=None, merged: bool = False, mixed: str = ""):
    """turn(): one token of each row."""
    import torch

    import lora
    from minigpt.serving import serving

    model = adapted(targets, tuple(mixed) or ("default",))
    tokens, stack = torch.randint(VOCABULARY, (work.rows, 1)), ExitStack()
    if merged:
        lora.merge(model)
    stack.enter_context(lora.serving(model))
    if mixed:
        stack.enter_context(lora.rows(model, [mixed[row % len(mixed)] for row in range(work.rows)]))
    if work.laid_out:
        stack.enter_context(serving(model))

    def turn(stack=stack):  # which holds the contexts open
        with torch.inference_mode():
            model(tokens)

    return turn


PEERS = {
    "base": decoding,
    "merged": partial(decoding, targets="all-linear", merged=True),
    "q and v": partial(decoding, targets=("q_proj", "v_proj")),
    "all linear": partial(decoding, targets="all-linear"),
    "4 adapters mixed": partial(decoding, targets="all-linear", mixed="abcd"),
}
