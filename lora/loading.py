"""An adapter from disk into a model, as one more or into one that is there; only where it belongs."""

from pathlib import Path

from torch import nn

from lora import files
from lora.errors import Error
from lora.installing import fill, install
from lora.inventory import Report, report
from lora.layout import Layout
from lora.rounded import rounded_in
from lora.saving import on_disk, the_only, weights_of


def load(
    model: nn.Module,
    directory: str | Path,
    name: str = "default",
    trainable: bool = False,
    check_base: bool = True,
) -> Report:
    """Attach an adapter from disk and use it; it learns on only if `trainable`.

    Every tensor must find its layer, and every layer that the config names its tensor. An adapter that recorded the
    weights it was trained on refuses others, unless told not to look (`check_base=False`). On `Error` the model is as
    it was.

    >>> import lora, tempfile
    >>> model, folder = nn.Sequential(nn.Linear(4, 3)), tempfile.TemporaryDirectory()
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> lora.save(model, folder.name)
    >>> lora.detach(model)
    >>> print(load(model, folder.name, name="letters", trainable=True))
    trains 14 of 29 (48.2759 %), stores 56 bytes, in 1 layers
    """
    stored = files.read(directory)
    if check_base:
        check_fingerprint(model, stored, directory)
    install(model, stored, name, trainable, where=str(directory))
    return report(model, name)


def refill(model: nn.Module, directory: str | Path, name: str | None = None, check_base: bool = True) -> None:
    """Put the numbers of an adapter on disk into the one attached as `name`, which must have its shape.

    >>> import lora, tempfile
    >>> model, folder = nn.Sequential(nn.Linear(4, 3)), tempfile.TemporaryDirectory()
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> lora.save(model, folder.name)
    >>> refill(model, folder.name)  # the optimizer's tensors stay the same objects
    """
    stored = files.read(directory)
    if check_base:
        check_fingerprint(model, stored, directory)
    fill(model, stored, the_only(model) if name is None else name, where=str(directory))


def check_fingerprint(model: nn.Module, stored: files.Stored, where):
    """`Error` if the adapter says that it was trained on other weights than these."""
    layout, weights = Layout(model), weights_of(model)
    for tensor, digest in stored.fingerprint.items():
        entry = layout.at(tensor)
        if entry is None or any(ours not in weights for ours in entry.ours):
            raise Error(f"{where}: was trained on a base with {tensor!r}, which this model has not: give its own base")
        if files.fingerprint(on_disk(entry, weights)) != digest:
            if stored.rounded and not rounded_in(model):
                raise Error(f"{where}: was trained beside weights in four bits: lora.round_base(model, {str(where)!r})")
            raise Error(
                f"{where}: was trained on other weights: {tensor!r} differs from the base it recorded; "
                "give that base, or check_base=False to try it on this one"
            )
