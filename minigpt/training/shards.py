"""Every rank holds a part of each weight: PyTorch's FSDP2 behind the questions of ranks.py.

`fully_shard` puts the weights of a block together just before they are used and lets them go after; their gradients
are added and cut on the way back. To files and back they are whole: one format, whatever the number of processes.
Buffers are not cut: a base in four bits, which is made of them, every rank holds whole.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from minigpt.training.ranks import Replicated


class Sharded(Replicated):
    """Every rank holds an R-th of each weight, its gradient and its optimizer state (`--parallel fsdp`)."""

    def prepare(self, model: nn.Module):
        super().prepare(model)
        mesh = init_device_mesh(self.device.type, (self.count,))
        for module in (*model.blocks, model):
            fully_shard(module, mesh=mesh)
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by all ranks' tokens already
        register_fsdp_forward_method(model, "hidden")

    def once(self, write: Callable[[int], str]) -> Callable[[int], str]:
        return write  # nobody can compute a layer without the others

    def expect(self, model: nn.Module, last: bool):
        model.set_requires_gradient_sync(last)

    def add_gradients(self, model: nn.Module):
        pass  # done on the way back through the layers

    def settle(self, model: nn.Module):
        # After a pass without a backward, as an evaluation is, the outermost weights still stand together.
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def gather(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = ((key, _full(value, self.main)) for key, value in state.items())
        return {key: value for key, value in whole if value is not None}

    def spread(self, optimizer):
        for weight, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(weight, DTensor) and value.ndim and not isinstance(value, DTensor):
                    state[key] = _cut(value, weight)

    @contextmanager
    def _whole(self, model: nn.Module, needed: bool, keep: bool = False):
        """Whole weights in the place of the parts, in main memory, where `needed`; changes of them are kept or not."""
        self.settle(model)
        places = [(m, name, weight) for m in model.modules() for name, weight in m._parameters.items()]
        places = [(m, name, weight) for m, name, weight in places if weight is not None]
        whole = {weight: _full(weight.detach(), needed) for weight in dict.fromkeys(w for _, _, w in places)}
        whole = {w: nn.Parameter(full, w.requires_grad) for w, full in whole.items() if full is not None}
        try:
            for module, name, weight in places:
                module._parameters[name] = whole.get(weight, weight)
            yield
        finally:
            for module, name, weight in places:
                module._parameters[name] = weight
        if keep:
            with torch.no_grad():
                for weight, full in whole.items():
                    weight.to_local().copy_(_cut(full.detach().to(weight.device), weight).to_local())


def _full(value: Tensor, needed: bool) -> Tensor | None:
    """A tensor whose parts are on all ranks, put together in main memory where it is needed; all ranks must ask."""
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.cpu() if needed else None


def _cut(value: Tensor, like):
    """This rank's part of a whole tensor that every rank has, cut as `like` is."""
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
