"""Which tensor was the first that is not finite?  Asked once, after a step that failed, before the run stops.

The failed step is made again, its dropout included, with a hook on every module's output and on its gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigpt.errors import Error


class NotFinite(Error):
    """A loss or gradient is NaN or infinite; `sound` says whether the weights it started from are finite."""

    def __init__(self, message: str, sound: bool):
        super().__init__(message)
        self.sound = sound


def bad_weights(model: nn.Module) -> list[str]:
    """Names of the parameters that hold something not finite."""
    return [name for name, weight in model.named_parameters() if not _finite(weight)]


def find(model: nn.Module, loss_of: Callable[[int], Tensor], backward: Callable[[Tensor], None], n: int):
    """The first bad tensor of n micro-batches: (what, which micro-batch or None, its rows or None).

    `loss_of(k)` makes the loss of micro-batch k, `backward` its gradients, which add up as in a step. Gradients are
    left empty.
    """
    with Watch(model) as watch:
        for k in range(n):
            loss = loss_of(k)
            if watch.found is None and not _finite(loss):
                watch.found = "the loss, of finite hidden states", None
            if watch.found is None:
                backward(loss)
            if watch.found is not None:
                break
    model.zero_grad(set_to_none=True)
    if watch.found is None:
        return "nothing when the step was made again: an error of the machine, or of its memory", None, None
    return watch.found[0], k, watch.found[1]


class Watch:
    """Hooks on the outputs of all modules, on their gradients, and on the gradients of weights; the first bad one."""

    def __init__(self, model: nn.Module):
        self.model, self.found, self.handles = model, None, []

    def __enter__(self):
        for name, module in self.model.named_modules():
            self.handles.append(module.register_forward_hook(self._output_hook(name or "the model")))
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                self.handles.append(weight.register_post_accumulate_grad_hook(self._weight_hook(name)))
        return self

    def __exit__(self, *problem):
        for handle in self.handles:
            handle.remove()

    def see(self, tensor: Tensor | None, what: str):
        if self.found is None and tensor is not None and not _finite(tensor):
            rows = (
                (~torch.isfinite(tensor)).flatten(1).any(1).nonzero().flatten().tolist() if tensor.ndim == 3 else None
            )
            self.found = what, rows

    def _output_hook(self, name: str):
        def hook(module, inputs, output):
            if isinstance(output, Tensor) and output.is_floating_point():
                self.see(output, f"{name} output")
                if output.requires_grad:
                    output.register_hook(lambda gradient: self.see(gradient, f"the gradient of {name} output"))

        return hook

    def _weight_hook(self, name: str):
        return lambda weight: self.see(weight.grad, f"the gradient of {name}")


def describe_rows(batches, number: int, rows: list[int] | None) -> str:
    """Where rows of batch `number` stand in the training text."""
    if not hasattr(batches, "describe"):
        return f"batch {number}"
    windows = batches.rows(number)
    chosen = range(len(windows)) if rows is None else rows
    spans = [f"row {row} ({batches.describe(int(windows[row]))})" for row in list(chosen)[:4]]
    more = f" and {len(chosen) - 4} more rows" if len(chosen) > 4 else ""
    return f"batch {number}, {', '.join(spans)}{more}"


def _finite(tensor: Tensor) -> bool:
    here = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # this process's part of it
    return bool(torch.isfinite(here).all())
