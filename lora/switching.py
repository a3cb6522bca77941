"""Which adapters are at work.

use(model, "radiology")         use(model)  none       with disabled(model): ...
with rows(model, ["radiology", None, "default"]): ...  one adapter per row of the batch
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lora.errors import Error
from lora.inventory import check_known, config_of, holders, layers_of
from lora.saved import Holder, Saved


def use(model: nn.Module, *names: str | None):
    """From now on these adapters work, their updates added; none without a name, or for None. Who learns is another
    matter.
    """
    names = tuple(name for name in names if name is not None)
    check_known(model, *names)
    refuse_merged(model, "changing which adapters work")
    for name in names:
        if names.count(name) > 1:
            raise Error(f"lora: {name!r} is named twice, which would double its update: name each adapter once")
    if len(names) > 1:
        for name in names:
            if config_of(model, name).dora or _replaces(model, name):
                raise Error(f"lora: {name!r} has dora, a bias or saved modules, which do not add up: use it alone")
    for holder in holders(model).values():
        holder.active = tuple(name for name in names if name in holder.adapters)


def _replaces(model: nn.Module, name: str) -> bool:
    """Whether an adapter puts whole tensors in the place of the base's."""
    for holder in holders(model).values():
        if name in holder.adapters and (isinstance(holder, Saved) or holder.adapters[name].bias is not None):
            return True
    return False


def refuse_merged(model: nn.Module, what: str):
    if any(layer.merged for layer in layers_of(model).values()):
        raise Error(f"lora: adapters are merged: call lora.unmerge(model) before {what}")


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside, the model is its base, merged or not; outside, everything is as before, and as trainable."""
    with _off(list(holders(model).values())):
        yield


@contextmanager
def _off(found: list[Holder]) -> Iterator[None]:
    before = [holder.enabled for holder in found]
    for holder in found:
        holder.enable(False)
    try:
        yield
    finally:
        for holder, enabled in zip(found, before, strict=True):
            holder.enable(enabled)


@contextmanager
def rows(model: nn.Module, names: list[str | None]) -> Iterator[None]:
    """Inside, row b of every batch uses the adapter names[b] alone, or the base where it is None.

    Where activations are checkpointed backward computes forward again, so it, too, belongs inside.
    """
    given = tuple(names)
    check_known(model, *(name for name in given if name is not None))
    refuse_merged(model, "giving each row its own")
    for name in {name for name in given if name is not None}:
        if config_of(model, name).dora or _replaces(model, name):
            raise Error(f"lora.rows: {name!r} has dora, a bias or saved modules, which rows cannot have each their own")
    found = list(layers_of(model).values())
    before = [layer.rows for layer in found]
    for layer in found:
        layer.rows = given
    try:
        with _off([holder for holder in holders(model).values() if isinstance(holder, Saved)]):
            yield
    finally:
        for layer, was in zip(found, before, strict=True):
            layer.rows = was


@contextmanager
def serving(model: nn.Module) -> Iterator[None]:
    """Inside, no adapter's numbers change: what generating text needs of them is joined once, not for each token.

    `use` and `rows` may be called inside. Whoever trains inside, or writes to an A or B, gets texts of before.
    """
    found = list(layers_of(model).values())
    for layer in found:
        layer.serving = True
    try:
        yield
    finally:
        for layer in found:
            layer.serving, layer.kept = False, None
