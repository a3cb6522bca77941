"""A toy language in which a task must be guessed: rows of four digits and what an operation makes of them.

    [begin] 3 1 4 1 = 1 1 3 4 ; 5 9 2 6 = 2 5 6 9 ; ...        sort, not named: the rows say which
    [sort]  3 1 4 1 = 1 1 3 4 ; 5 9 2 6 = 2 5 6 9 ; ...        sort, named

Five operations are in the training text, in half of the sequences named; a sixth is not. All 10,000 inputs of an
operation are possible, so a base may have seen them all: what it is asked is *which* task. Tuning leaves out every
fifth input, and is judged on those.
"""

import torch
from torch import Tensor

from minigpt import GPT, GPTConfig
from minigpt.corpus.batches import Batch
from minigpt.generation import generate
from minigpt.loss import IGNORE, cross_entropy
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import OptimizerConfig

EQUALS, END, BEGIN, SEPARATOR, NAMES, SENTINELS, VOCAB = 10, 11, 12, 13, 14, 20, 32
OPERATIONS = ("copy", "reverse", "sort", "plus one", "rotate", "minus one")  # the last one is new
KNOWN = 5
CONTEXT = 64
SHAPE = {"n_layers": 3, "n_heads": 4, "d_model": 64, "vocab_size": VOCAB, "context": CONTEXT}


def apply(operation: int, x: Tensor) -> Tensor:
    """(..., 4) digits -> (..., 4).

    >>> [apply(k, torch.tensor([3, 1, 9, 4])).tolist() for k in (1, 2, 3, 4, 5)]
    [[4, 9, 1, 3], [1, 3, 4, 9], [4, 2, 0, 5], [1, 9, 4, 3], [2, 0, 8, 3]]
    """
    if operation == 0:
        return x
    if operation == 1:
        return x.flip(-1)
    if operation == 2:
        return x.sort(-1).values
    if operation == 4:
        return x.roll(-1, -1)
    return (x + (1 if operation == 3 else -1)) % 10


def inputs(shape: tuple[int, ...], generator: torch.Generator, which: str = "all") -> Tensor:
    """Random inputs (*shape, 4): of "all", those to "tune" with, or the "held" fifth."""
    number = torch.randint(10_000, shape, generator=generator)
    if which == "held":
        number = number // 5 * 5
    elif which == "tune":
        number = number // 5 * 5 + 1 + number % 4
    return torch.stack([number // 10**k % 10 for k in (3, 2, 1, 0)], dim=-1)


def rows(operation: int, x: Tensor) -> Tensor:
    """(B, K, 4) inputs -> (B, 10 K) tokens."""
    mark = x.new_full((*x.shape[:-1], 1), EQUALS)
    return torch.cat([x, mark, apply(operation, x), mark + (END - EQUALS)], dim=-1).flatten(1)


def texts(operation: int, count: int, k: int, generator, named: bool = False, which: str = "all") -> Tensor:
    """`count` sequences of k rows of one operation: (count, 1 + 10 k)."""
    first = torch.full((count, 1), NAMES + operation if named else BEGIN)
    return torch.cat([first, rows(operation, inputs((count, k), generator, which))], dim=1)


def mixed(count: int, generator, k: int = 4, operations=range(KNOWN)) -> Tensor:
    """A training batch: operations in turn, half of them named."""
    share = max(1, count // (2 * len(operations)))
    return torch.cat([texts(op, share, k, generator, named) for op in operations for named in (False, True)])


def batch_of(tokens: Tensor, answers_only: bool = False) -> Batch:
    """Next-token targets: all of them, or those of the last row's answer."""
    targets = torch.nn.functional.pad(tokens[:, 1:], (0, 1), value=IGNORE)
    if answers_only:
        targets[:, : -1 - 5] = IGNORE  # four digits and the end
    return Batch(tokens, targets, None, None, int((targets != IGNORE).sum()))


def make_model(seed: int = 0, **changes) -> GPT:
    torch.manual_seed(seed)
    return GPT(GPTConfig(**SHAPE | changes))


def fit(model: GPT, batches, steps: int, lr: float, optimizer: str = "adamw", tick=int) -> float:
    """Train on `batches(step)`, the rate rising for 5 % of them, then falling to 0. The mean of the last 20 losses."""
    tool = make_optimizer(model, OptimizerConfig(optimizer=optimizer, weight_decay=0.0))
    warm, losses = max(1, steps // 20), []
    model.train()
    for step in range(steps):
        rate = lr * min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        for group in tool.param_groups:
            group["lr"] = rate * group["lr_scale"]
        batch = batches(step)
        loss = cross_entropy(model.hidden(batch.tokens, positions=batch.positions), model.head, batch.targets)
        tool.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w for w in model.parameters() if w.requires_grad], 1.0)
        tool.step()
        losses.append(loss.item())
        tick()
    model.eval()
    return sum(losses[-20:]) / len(losses[-20:])


def exact_match(model: GPT, operation: int, shots: int = 0, named: bool = False, front=(), count: int = 200,
                seed: int = 1, which: str = "all") -> float:  # fmt: skip
    """Share of inputs answered without a wrong digit, after `shots` rows of the same operation."""
    generator = torch.Generator().manual_seed(seed + 1000 * operation)
    if shots:
        shown = texts(operation, count, shots, generator, named, "tune" if which == "held" else which)
    else:
        shown = texts(operation, count, 1, generator, named)[:, :1]
    x = inputs((count, 1), generator, which)[:, 0]
    asked = torch.cat([shown, x, torch.full((count, 1), EQUALS)], dim=1)
    written = generate(model, [[*front, *row] for row in asked.tolist()], max_new_tokens=4, temperature=0)
    return (torch.tensor(written) == apply(operation, x)).all(1).double().mean().item()
