"""A frozen linear layer in four bits: y = x W^T + b with W = unpack(codes), for the forward and again for the backward.

Shapes: N rows, I in, O out.

F.linear(x, unpack(codes)) alone would keep W for backward, eight times the bytes saved: the gradient of x is g W.
"""

import copy
import json
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.errors import Error
from lora.nf4 import BLOCK, GROUP, Packed, codebook, dynamic_map, pack, unpack

PARTS = ("codes", "absmax", "scale", "offset")  # of a Packed; buffers of the layer
STATE = "weight.quant_state.bitsandbytes__nf4"


class NF4Linear(nn.Module):
    """The linear layer `module`, Conv1D included, with its weight in NF4; `module` stays as it was.

    `weight` is unpacked anew each time it is asked for, in the form the module had it. In `state_dict` the layer
    lies as bitsandbytes lays it: `weight` holds codes, `weight.absmax` and so on tell the rest.

    >>> layer = NF4Linear(nn.Linear(64, 8))
    >>> layer.codes.dtype, tuple(layer.codes.shape), layer.weight.dtype, tuple(layer.weight.shape)
    (torch.uint8, (256,), torch.float32, (8, 64))
    """

    def __init__(self, module: nn.Module, double: bool = True):
        super().__init__()
        self.transposed = not isinstance(module, nn.Linear)  # Conv1D: W is stored (I, O), and packed as (O, I)
        weight, bias = module.weight.detach(), module.bias
        weight = weight.T if self.transposed else weight
        self.out_features, self.in_features = weight.shape
        self.dtype, self.double = weight.dtype, double
        self.multiply = getattr(module, "multiply", F.linear)  # a layer may bring its own product
        packed = pack(weight, double)
        for name in PARTS:
            self.register_buffer(name, getattr(packed, name), persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.origin = (_with(module, weight=None, bias=None),)  # in a tuple, so that it is no module of this one

    @property
    def packed(self) -> Packed:
        return Packed((self.out_features, self.in_features), *(self._buffers[name] for name in PARTS))

    @property
    def weight(self) -> Tensor:
        """W as the module stored it, in the layer's dtype."""
        weight = unpack(self.packed, self.dtype)
        return weight.T if self.transposed else weight

    @property
    def like(self) -> Tensor:
        """No number, of the dtype and on the device of the weight."""
        return torch.empty(0, dtype=self.dtype, device=self.codes.device)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        packed = self.packed
        return _Product.apply(x, bias, self.multiply, self.dtype, packed.shape, *packed.tensors)

    def restore(self, dtype: torch.dtype | None = None) -> nn.Module:
        """A module like the one of before, with the weight that the codes stand for; frozen."""
        dtype = dtype or self.dtype
        weight = unpack(self.packed, self.dtype).to(dtype)
        weight = nn.Parameter(weight.T.contiguous() if self.transposed else weight, requires_grad=False)
        bias = None if self.bias is None else nn.Parameter(self.bias.detach().to(dtype), requires_grad=False)
        return _with(self.origin[0], weight=weight, bias=bias).train(self.training)

    def extra_repr(self) -> str:
        kind = "double" if self.double else "single"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, {kind}"

    def _apply(self, fn, recurse=True):
        # .half() is for the weight that comes out; the numbers that make it stay float32.
        before = dict(self._buffers)
        self.dtype = fn(self.like).dtype
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            if tensor is not None and self._buffers[name].dtype != tensor.dtype:
                self._buffers[name] = tensor.to(self._buffers[name].device)
        return self

    # --- on disk, in bitsandbytes' names -------------------------------------------------------------------------

    def _stored(self) -> dict[str, Tensor]:
        """The tensors of the format, less its description: views of the buffers, and the two codes."""
        device = self.codes.device
        tensors = {"weight": self.codes[:, None], "weight.absmax": self.absmax}
        tensors["weight.quant_map"] = codebook().to(device)
        if self.double:
            tensors |= {"weight.nested_absmax": self.scale, "weight.nested_quant_map": dynamic_map().to(device)}
        return tensors

    def _described(self) -> dict:
        dtype = str(self.dtype).removeprefix("torch.")
        shape = [self.out_features, self.in_features]
        said = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": dtype, "shape": shape}
        if self.double:
            said |= {"nested_blocksize": GROUP, "nested_dtype": "float32", "nested_offset": self.offset.item()}
        return said

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination |= {prefix + name: tensor for name, tensor in self._stored().items()}
        text = json.dumps(self._described()).encode()
        destination[prefix + STATE] = torch.tensor(list(text), dtype=torch.uint8)

    def _load_from_state_dict(self, state, prefix, metadata, strict, missing, unexpected, errors):
        stored = self._stored()
        given = {name: state[prefix + name] for name in (*stored, STATE) if prefix + name in state}
        rest = {name: tensor for name, tensor in state.items() if name.removeprefix(prefix) not in given}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)
        if lacking := [prefix + name for name in (*stored, STATE) if name not in given]:
            missing += lacking if strict else []
            return
        if problem := self._problem(given, stored):
            errors.append(f"{prefix}weight: {problem}")
            return
        for name, tensor in stored.items():
            if not name.endswith("quant_map"):
                tensor.copy_(given[name])  # a view of the buffer
        if self.double:
            self.offset.fill_(_read(given[STATE])["nested_offset"])

    def _problem(self, given: dict[str, Tensor], stored: dict[str, Tensor]) -> str | None:
        """Why these tensors are not this layer's; None if they are."""
        for name, tensor in stored.items():
            found = given[name]
            if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                return f"{name} is {tuple(found.shape)} {found.dtype}, expected {tuple(tensor.shape)} {tensor.dtype}"
            if name.endswith("quant_map") and not torch.equal(found.to(tensor.device), tensor):
                return f"{name} is not the NF4 code: quantise the weight again"
        ours, theirs = self._described(), _read(given[STATE])
        for key, value in ours.items():
            if key not in ("dtype", "nested_offset") and theirs.get(key) != value:
                return f"its description says {key} {theirs.get(key)!r}, expected {value!r}"
        told = not self.double or isinstance(theirs.get("nested_offset"), float)
        return None if told else "its description lacks the number nested_offset"


class _Product(torch.autograd.Function):
    """x W^T + b, dx = g W, db = the sum of g's rows. Kept for backward: the codes."""

    @staticmethod
    def forward(ctx, x, bias, multiply: Callable, dtype: torch.dtype, shape: tuple, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.multiply, ctx.dtype, ctx.shape = multiply, dtype, shape
        return multiply(x, unpack(Packed(shape, *tensors), dtype).to(x.dtype), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        d_x = d_bias = None
        if ctx.needs_input_grad[0]:
            d_x = ctx.multiply(g, unpack(Packed(ctx.shape, *ctx.saved_tensors), ctx.dtype).to(g.dtype).T)
        if ctx.needs_input_grad[1]:
            d_bias = g.reshape(-1, g.shape[-1]).sum(0)
        return d_x, d_bias, *[None] * (3 + len(ctx.saved_tensors))


def check_fits(path: str, module: nn.Module):
    """`Error` for a layer that does more than x W^T + b, which a layer in four bits would lose."""
    own = type(module).forward is not nn.Linear.forward and not hasattr(module, "multiply")
    if isinstance(module, nn.Linear) and own or "forward" in module.__dict__:
        raise Error(f"lora.quantize: {path}: {type(module).__name__} has a forward of its own: leave it out")
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        raise Error(f"lora.quantize: {path} has hooks, which its 4-bit layer would lose: remove them, or leave it out")


def _with(module: nn.Module, **parameters: nn.Parameter | None) -> nn.Module:
    """A copy of the module that has these parameters in place of its own, and shares everything else."""
    made = copy.copy(module)
    made._parameters = parameters
    return made


def _read(state: Tensor) -> dict:
    try:
        read = json.loads(bytes(state.tolist()).decode())
    except (TypeError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
