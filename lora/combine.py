"""Adapters added with weights, exactly.

Shapes: O out, I in, r rank; A (r, I), B (O, r), dW = scale B A (O, I).

A sum of products of ranks r_1, r_2, ... is one product of rank r_1 + r_2 + ...:

    sum_i w_i s_i B_i A_i  =  [w_1 s_1 B_1, w_2 s_2 B_2, ...] [A_1; A_2; ...]

so nothing is lost, negative weights included, and the scale of the result is 1 (alpha = r). Averaging the A and the B
instead is something else: (B_1 + B_2)(A_1 + A_2) has the products B_1 A_2 and B_2 A_1 in it, which nobody learned.
"""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from lora import files, peft_config
from lora.errors import Error
from lora.exact import Update
from lora.files import Stored
from lora.truncate import Parts, config_of, refuse_tied, scaled, truncate, wide


@dataclass(frozen=True)
class Part:
    """What one adapter brings to one layer of the sum."""

    update: Update
    weight: float
    kind: str
    name: str
    parts: Parts = ()


def combine(
    adapters: Sequence[Stored], weights: Sequence[float], rank: int | None = None, names: Sequence[str] = ()
) -> tuple[Stored, dict[str, float]]:
    """sum_i w_i dW_i as one adapter; with `rank`, cut back by `truncate`, whose errors are returned (else zeros).

    A layer that only some adapters have is the sum of just those. Adapters of different bases, of different shapes or
    kinds, and tensors that are replaced by several and differ are refused; what is replaced by one, or by all alike,
    is kept whole. DoRA is no sum: it must be alone, with weight 1. Errors name adapters by `names`.

    >>> from lora.config import Config
    >>> one = Stored(Config(r=1, alpha=2), {"q_proj": Update(torch.tensor([[1.0]]), torch.tensor([[3.0]]), scale=2.0)})
    >>> total, _ = combine([one, one], [1, -0.5])
    >>> total.updates["q_proj"].B, total.updates["q_proj"].scale
    (tensor([[ 6., -3.]]), 1.0)
    """
    names = names or [f"adapter {number}" for number in range(1, len(adapters) + 1)]
    _check(adapters, weights, names)
    layers = {}
    for adapter, weight, name in zip(adapters, weights, names, strict=True):
        for path, update in adapter.updates.items():
            kind = "an embedding" if path in adapter.embeddings else "a linear layer"
            layers.setdefault(path, []).append(Part(update, weight, kind, name, adapter.parts.get(path, ())))
    sums = {path: _sum(path, layers[path]) for path in sorted(layers)}
    updates = {path: update for path, (update, _) in sums.items()}
    replaced = _replaced(adapters, names)
    config = config_of([adapter.config for adapter in adapters], updates)
    for path in updates:
        if config.modules_to_save and not config.wants(path):
            raise Error(f"{path}: adapted by one adapter, replaced whole (modules_to_save) by another: no sum of these")
    embeddings = frozenset().union(*(adapter.embeddings for adapter in adapters))
    fingerprint = reduce(dict.__or__, (adapter.fingerprint for adapter in adapters))
    parts = {path: parts for path, (_, parts) in sums.items() if parts}
    total = Stored(config, updates, embeddings, replaced, fingerprint, parts, adapters[0].rounded)
    return (total, dict.fromkeys(updates, 0.0)) if rank is None else truncate(total, rank)


def _sum(path: str, layers: list[Part]) -> tuple[Update, Parts]:
    """[w_1 s_1 B_1, ...] and [A_1; ...] of one layer, and its parts if all have the same ones."""
    first = layers[0]
    for other in layers[1:]:
        if (other.update.shape, other.kind) != (first.update.shape, first.kind):
            raise Error(
                f"{path}: in {first.name} an update of {first.update.shape} for {first.kind}, in {other.name} of "
                f"{other.update.shape} for {other.kind}: adapters of different models"
            )
    A = torch.cat([wide(layer.update.A) for layer in layers])
    B = torch.cat([scaled(layer.update.B, layer.weight, layer.update.scale) for layer in layers], dim=1)
    if not B.isfinite().all():
        raise Error(f"{path}: too large for {B.dtype} after weighting: give smaller weights")
    sizes = {tuple(size for size, _ in layer.parts) for layer in layers}
    if sizes == {()} or len(sizes) > 1:
        return replace(first.update, A=A, B=B, scale=1.0), ()
    # All of q before all of v: the ranks of a part stand together.
    owner = torch.cat([_owners(layer.parts) for layer in layers])
    order = owner.argsort(stable=True)
    parts = tuple((size, int((owner == number).sum())) for number, (size, _) in enumerate(first.parts))
    return replace(first.update, A=A[order], B=B[:, order].contiguous(), scale=1.0), parts


def _owners(parts: Parts) -> Tensor:
    """For each rank, the number of the part it belongs to."""
    return torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([rank for _, rank in parts]))


def _check(adapters: Sequence[Stored], weights: Sequence[float], names: Sequence[str]):
    if not adapters or len(weights) != len(adapters):
        raise Error(
            f"{len(adapters)} adapters and {len(weights)} weights: give at least one adapter, a weight for each"
        )
    for adapter, name in zip(adapters, names, strict=True):
        if adapter.rounded != adapters[0].rounded:
            raise Error(f"{name} and {names[0]} were trained beside a base rounded in different ways: no sum of these")
    for weight, name in zip(weights, names, strict=True):
        if not math.isfinite(weight) or weight == 0:
            raise Error(f"{name}: its weight is {weight}: give a finite number, or leave out what should count nothing")
    dora = [name for adapter, name in zip(adapters, names, strict=True) if adapter.config.dora]
    if dora and (len(adapters), weights[0]) != (1, 1):
        raise Error(f"{dora[0]}: DoRA rescales rows, which is no sum: merge it into the base, and adapt that")
    refuse_tied(adapters)
    known = {}
    for adapter, name in zip(adapters, names, strict=True):
        for tensor, value in adapter.fingerprint.items():
            whose, expected = known.setdefault(tensor, (name, value))
            if value != expected:
                raise Error(
                    f"{tensor}: {whose} was trained on a base with fingerprint {expected[:8]}, "
                    f"{name} with {value[:8]}: updates of different bases do not add up"
                )


def _replaced(adapters: Sequence[Stored], names: Sequence[str]) -> dict[str, Tensor]:
    """What stands in the place of tensors of the base: one value for each, as there is no sum of heads."""
    found, owner = {}, {}
    for adapter, name in zip(adapters, names, strict=True):
        for tensor, value in adapter.replaced.items():
            other = found.get(tensor, value)
            if other.dtype != value.dtype or not torch.equal(other, value):
                raise Error(
                    f"{tensor}: replaced by {owner[tensor]} and, differently, by {name}: "
                    "only updates can be added; combine adapters of which one has it"
                )
            found.setdefault(tensor, value)
            owner.setdefault(tensor, name)
    return found


def add_arguments(parser: ArgumentParser):
    """The options of `python -m lora combine`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="new directory for the sum")
    parser.add_argument("adapters", type=Path, nargs="+", metavar="ADAPTER", help="directories of adapters")
    parser.add_argument(
        "--weights", help="one for each adapter, as 0.7,0.3; negative ones as --weights=1,-1; default 1"
    )
    parser.add_argument("--rank", type=int, help="cut the sum back to this rank and print the error")


def run(options: Namespace) -> int:
    """Add adapters, write the sum, print what it cost; 0."""
    if (options.out / peft_config.NAME).exists():
        raise Error(f"{options.out}: already holds an adapter: remove it or choose another name")
    names = [str(directory) for directory in options.adapters]
    adapters = [files.read(directory) for directory in options.adapters]
    weights = _weights(options.weights, len(adapters))
    total, errors = combine(adapters, weights, options.rank, names)
    files.write(total, options.out, _base(options.adapters))
    for weight, name in zip(weights, names, strict=True):
        print(f"{weight:+8g}  {name}")
    print(f"= {options.out}: {len(total.updates)} layers, {total.nbytes:,} bytes")
    width = max(map(len, total.updates), default=0)
    for path, update in total.updates.items():
        lost = f"   relative error {errors[path]:.2e}" if options.rank is not None else ""
        print(f"  {path:<{width}}  rank {len(update.A):>4}{lost}")
    for name in total.replaced:
        print(f"  {name}: kept whole, not weighted")
    return 0


def _weights(text: str | None, count: int) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text is not None else [1.0] * count
    except ValueError:
        raise Error(f"--weights is {text!r}: give {count} numbers with commas between, such as 0.7,0.3") from None


def _base(directories: list[Path]) -> str:
    """The name of the base, where all adapters give the same; PEFT opens an adapter by it."""
    configs = [json.loads((directory / peft_config.NAME).read_text(encoding="utf-8")) for directory in directories]
    given = {config.get("base_model_name_or_path") for config in configs}
    return (given.pop() or "") if len(given) == 1 else ""
