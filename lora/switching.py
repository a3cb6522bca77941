"""Which adapters are at work.

use(model, "radiology")         use(model)  none       with disabled(model): ...
with rows(model, ["radiology", None, "default"]): ...  one adapter per row of the batch
with scaled(model, "radiology", 0.5): ...              half as strongly
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn

from lora.adapter import TiedAdapter
from lora.errors import Error
from lora.inventory import check_known, holders, layers_of
from lora.layers import Layer
from lora.saved import Holder, Saved


def use(model: nn.Module, *names: str | None) -> None:
    """From now on these adapters work, their updates added; none without a name, or for None. Who learns is another
    matter.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = [lora.attach(model, lora.Config(r=2, targets=["0"]), name) for name in ("a", "b")]
    >>> use(model, "a", "b")  # h = W0 x + s B_a A_a x + s B_b A_b x
    """
    names = tuple(name for name in names if name is not None)
    check_known(model, *names)
    refuse_merged(model, "changing which adapters work")
    for name in names:
        if names.count(name) > 1:
            raise Error(f"lora: {name!r} is named twice, which would double its update: name each adapter once")
    found = list(holders(model).values())
    if len(names) > 1 and (name := _alone(found, names)):
        raise Error(f"lora: {name!r} has dora, a bias or saved modules, which do not add up: use it alone")
    for holder in found:
        holder.active = tuple(name for name in names if name in holder.adapters)


def _alone(found: list[Holder], names: Collection[str]) -> str | None:
    """The first of these adapters that is more than a sum: it has dora, or whole tensors in the place of the base's."""
    for holder in found:
        for name in holder.adapters.keys() & names:
            adapter = holder.adapters[name]
            if isinstance(holder, Saved) or adapter.bias is not None or adapter.config.dora:
                return name
    return None


def refuse_merged(model: nn.Module, what: str):
    _refuse_merged(holders(model).values(), what)


def _refuse_merged(found: Collection[Holder], what: str):
    if any(isinstance(holder, Layer) and holder.merged for holder in found):
        raise Error(f"lora: adapters are merged: call lora.unmerge(model) before {what}")


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside, the model is its base, merged or not; outside, everything is as before, and as trainable.

    >>> import torch, lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> with disabled(model):
    ...     torch.equal(model(torch.ones(1, 4)), model[0].base(torch.ones(1, 4)))
    True
    """
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
def scaled(model: nn.Module, name: str, factor: float) -> Iterator[None]:
    """Inside, the adapter works `factor` times as strongly: W0 x + factor (alpha/r) B A x. 0 is off, 1 as it is.

    What DoRA or a learned bias put in the place of the base's is not scaled.

    >>> import torch, lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> _ = nn.init.ones_(model[0].adapters["default"].B)
    >>> x = torch.ones(1, 4)
    >>> with lora.disabled(model):
    ...     base = model(x)
    >>> with scaled(model, "default", 2):
    ...     twice = model(x)
    >>> torch.allclose(twice - base, 2 * (model(x) - base), atol=1e-6)
    True
    """
    check_known(model, name)
    refuse_merged(model, "changing how strongly an adapter works")
    layers = [layer for layer in layers_of(model).values() if name in layer.adapters]
    own = [(layer.adapters[name], layer.adapters[name].scale) for layer in layers if not _is_tied(layer, name)]
    try:
        for adapter, scale in own:
            adapter.scale = scale * factor
        _let_go(layers)
        yield
    finally:
        for adapter, scale in own:
            adapter.scale = scale
        _let_go(layers)


def _is_tied(layer: Layer, name: str) -> bool:
    """Whether its scale is that of the head's adapter."""
    return isinstance(layer.adapters[name], TiedAdapter)


def _let_go(layers: list[Layer]):
    """Of what was joined while `serving` promised that nothing changes."""
    for layer in layers:
        layer.kept = None


@contextmanager
def rows(model: nn.Module, names: list[str | None]) -> Iterator[None]:
    """Inside, row b of every batch uses the adapter names[b] alone, or the base where it is None.

    Where activations are checkpointed backward computes forward again, so it, too, belongs inside.

    >>> import torch, lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = [lora.attach(model, lora.Config(r=2, targets=["0"]), name) for name in ("a", "b")]
    >>> with rows(model, ["b", None, "a"]):
    ...     model(torch.ones(3, 4)).shape
    torch.Size([3, 3])
    """
    given, wanted = tuple(names), set(names) - {None}
    found = list(holders(model).values())  # the one walk over the model: `rows` may be entered for every token
    if not wanted <= {name for holder in found for name in holder.adapters}:
        check_known(model, *wanted)
    _refuse_merged(found, "giving each row its own")
    if name := _alone(found, wanted):
        raise Error(f"lora.rows: {name!r} has dora, a bias or saved modules, which rows cannot have each their own")
    layers = [holder for holder in found if isinstance(holder, Layer)]
    before = [layer.rows for layer in layers]
    for layer in layers:
        layer.rows = given
    try:
        with _off([holder for holder in found if isinstance(holder, Saved)]):
            yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            layer.rows = was


@contextmanager
def serving(model: nn.Module) -> Iterator[None]:
    """Inside, no adapter's numbers change: what generating text needs of them is joined once, not for each token.

    `use` and `rows` may be called inside. Whoever trains inside, or writes to an A or B, gets texts of before.

    >>> import torch, lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> with torch.no_grad(), serving(model.eval()):
    ...     model(torch.ones(1, 4)).shape  # the first call joins what the next ones use
    torch.Size([1, 3])
    """
    found = list(layers_of(model).values())
    for layer in found:
        layer.serving = True
    try:
        yield
    finally:
        for layer in found:
            layer.serving, layer.kept = False, None
