"""Partial fine-tuning: a mask on `requires_grad`, and nothing else.

    freeze(model, "top:2")             the two highest blocks and the final norm learn, all else stays, bit for bit
    freeze(model, "top:1,biases")      parts can be added up
    gradual(model, step, Gradual())    layer by layer: one block more every so many steps

Parts, L blocks of width d: each learns, what no part names is frozen.

    all                everything               none               nothing (a task head from heads.py alone learns)
    top:k              the k highest blocks and the final norm: k (12 d^2 + 13 d) + 2 d in GPT-2
    freeze:k           the same said from below: all but the embeddings and the k lowest blocks, top:(L - k)
    bottom:k           the k lowest blocks
    tokens, positions  an embedding each         embeddings        both
    head               the matrix that makes logits
    norms, biases      every gain and shift of a norm; every bias (BitFit: Ben Zaken et al. 2022)

A tied head is the token embedding: one matrix, two parts. To name only one of them is an error unless `tied` says
what is meant: "share", the matrix learns in both its places, or "untie", the head becomes a matrix of its own first
and only what is named learns.

Traps. AdamW leaves alone what has no gradient (None), but decays what has the gradient 0: frozen weights get None.
Freeze before attaching adapters, which freeze the base themselves.
"""

import re
from dataclasses import dataclass

from torch import nn

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning.report import Report

PARTS = ("all", "none", "tokens", "positions", "embeddings", "head", "norms", "biases")
COUNTED = ("top", "freeze", "bottom")


def freeze(model: GPT, what: str, tied: str = "refuse") -> Report:
    """From now on only the parts named in `what` learn: parts with commas between, as above.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=3, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> print(freeze(model, "top:1"))
    trains 12,768 of 41,888 (30.4813 %), stores 51,072 bytes
    """
    if tied not in ("refuse", "share", "untie"):
        raise Error(f"freeze: tied is {tied!r}: {nearest(str(tied), ('refuse', 'share', 'untie'))}")
    parts = parse(what, model.config.n_layers)
    _settle_tied(model, parts, tied)
    return apply(model, {name for name, _ in _named(model) if _learns(name, parts, model.config.n_layers)})


def parse(what: str, n_layers: int) -> dict[str, int]:
    """ "top:2,biases" -> {"top": 2, "biases": 0}.

    >>> parse("freeze:5, norms", n_layers=12)
    {'top': 7, 'norms': 0}
    """
    parts = {}
    for word in what.split(","):
        name, colon, count = word.strip().partition(":")
        if name in PARTS and not colon:
            parts[name] = 0
        elif name in COUNTED:
            lowest, highest = (0, n_layers - 1) if name == "freeze" else (1, n_layers)
            if not re.fullmatch("[0-9]+", count) or not lowest <= int(count) <= highest:
                raise Error(f"freeze: {word.strip()!r}: give {name}:k with k from {lowest} to {highest} blocks")
            key, k = ("top", n_layers - int(count)) if name == "freeze" else (name, int(count))
            parts[key] = max(k, parts.get(key, 0))
        else:
            raise Error(f"freeze: no part {word.strip()!r}: {nearest(name, (*PARTS, *COUNTED))}")
    if "none" in parts and len(parts) > 1:
        raise Error(f"freeze: {what!r} says none and more: leave out none")
    return parts


def apply(model: GPT, names: set[str]) -> Report:
    """Exactly these parameters learn; the others lose their gradients, lest an optimizer decay them."""
    chosen = {id(weight) for name, weight in _named(model) if name in names}
    learned, kept = [], 0
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in chosen)
        if weight.requires_grad:
            learned.append(weight)
        else:
            weight.grad, kept = None, kept + weight.numel()
    return Report(sum(w.numel() for w in learned), sum(w.nbytes for w in learned), kept)


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """All parameters, a tied head under both its names."""
    return list(model.named_parameters(remove_duplicate=False))


def _learns(name: str, parts: dict[str, int], n_layers: int) -> bool:
    top = name.split(".")[0]
    if "all" in parts or ("biases" in parts and name.endswith(".bias")):
        return True
    if top == "blocks":
        layer, norm = int(name.split(".")[1]), "norm" in name.split(".")[2]
        inside = layer >= n_layers - parts.get("top", 0) or layer < parts.get("bottom", 0)
        return inside or (norm and "norms" in parts)
    if top == "final_norm":
        return "norms" in parts or "top" in parts
    part = {"token_embedding": "tokens", "position_embedding": "positions", "head": "head"}.get(top)
    return part in parts or ("embeddings" in parts and part in ("tokens", "positions"))


def _settle_tied(model: GPT, parts: dict[str, int], tied: str):
    """The question a tied head asks: answered, or refused."""
    if model.head.weight is not model.token_embedding.weight or "all" in parts:
        return
    tokens, head = bool({"tokens", "embeddings"} & parts.keys()), "head" in parts
    if tied == "untie":
        model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    elif tied == "refuse" and tokens != head:
        named, other = ("embedding", "head") if tokens else ("head", "embedding")
        raise Error(
            f"freeze: the {named} is to learn and the {other} not, but they are one matrix (tied): "
            "give tied='share' to train it in both places, or tied='untie' to make the head its own"
        )


@dataclass(frozen=True)
class Gradual:
    """Layer by layer: every `every` steps one block more learns, until all do; a pure function of the step.

    direction    "up": from the lowest block; "down": from the highest (ULMFiT, Howard & Ruder 2018, section 3.3)
    embeddings   whether embeddings (and an untied head: the head) learn too, from when all blocks do

    The final norm, above all blocks, learns with the highest.

    >>> [Gradual(every=10).blocks(step, n_layers=3) for step in (0, 9, 10, 99)]
    [(0,), (0,), (0, 1), (0, 1, 2)]
    >>> Gradual(every=10, direction="down").blocks(10, n_layers=3)
    (1, 2)
    """

    every: int = 100
    direction: str = "up"
    embeddings: bool = False

    def __post_init__(self):
        if type(self.every) is not int or self.every < 1:
            raise Error(f"Gradual.every is {self.every!r}: give a number of steps of at least 1")
        if self.direction not in ("up", "down"):
            raise Error(f"Gradual.direction is {self.direction!r}: give 'up' (lowest block first) or 'down'")

    def blocks(self, step: int, n_layers: int) -> tuple[int, ...]:
        """The blocks that learn in this step (or epoch, if `every` counts epochs)."""
        count = min(step // self.every + 1, n_layers)
        return tuple(range(count)) if self.direction == "up" else tuple(range(n_layers - count, n_layers))

    def names(self, model: GPT, step: int) -> set[str]:
        """Of the parameters that learn in this step."""
        n_layers, blocks = model.config.n_layers, self.blocks(step, model.config.n_layers)
        ends = self.embeddings and step // self.every >= n_layers
        return {
            name
            for name, _ in model.named_parameters()
            if (int(name.split(".")[1]) in blocks if name.startswith("blocks.") else ends)
            or (name.startswith("final_norm.") and n_layers - 1 in blocks)
        }


def gradual(model: GPT, step: int | None, schedule: Gradual) -> Report:
    """Make `requires_grad` what the schedule says for this step; step None is its end, when most learns.

    One optimizer for all of it, made at the end's mask, so that it knows every weight that will learn; the moments
    of a weight come into being in its first own step. Before each step, then, and first thing after a resume:

        gradual(model, None, schedule);  optimizer = make_optimizer(model, ...)
        for step in ...:  gradual(model, step, schedule);  loss.backward();  optimizer.step()
    """
    if step is None:
        step = schedule.every * model.config.n_layers
    return apply(model, schedule.names(model, step))
