"""A frozen layer with adapters beside it: h = W0 x + scale B A x, or a sum of such, or one for each row.

Shapes: N rows (all dimensions of x but the last), I in, O out, r rank, R ranks of several adapters together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora import dora
from lora.adapter import joined, owners
from lora.errors import Error
from lora.exact import Update
from lora.kept import Kept
from lora.nf4_layer import NF4Linear
from lora.product import fast, plain
from lora.saved import Holder


class _LearnsNothing(torch.autograd.Function):
    """Training while merged would end in torch's "does not require grad", or go on without the adapter: say so."""

    @staticmethod
    def forward(ctx, h: Tensor, adapter: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx, g: Tensor):
        raise Error("lora: merged adapters do not learn: call lora.unmerge(model) before training")


class Layer(Holder):
    """A frozen base and its adapters. At work is one of: what is `merged`; `rows`; the sum of the `active`.

    merged    names; the base's weight holds them already, forward is the base alone
    original  the base's weight and bias of before, while merged: in a tuple, so that they are no parameters here
    rows      one name, or None, for each row of the batch
    serving   what is `kept` of them between calls is right
    """

    transposed = False  # the weight is stored (I, O)

    def __init__(self, base: nn.Module):
        super().__init__(base)
        self.merged: tuple[str, ...] = ()
        self.original: tuple[nn.Parameter | None, ...] = ()
        self.rows: tuple[str | None, ...] | None = None
        self.serving, self.kept = False, None

    @property
    def sizes(self) -> tuple[int, int]:
        """(I, O)."""
        rows, columns = self.base.weight.shape
        return (rows, columns) if self.transposed else (columns, rows)

    def update(self, name: str) -> Update:
        """The adapter as the arithmetic of merging wants it."""
        adapter = self.adapters[name]
        return Update(*adapter.factors(), adapter.scale, self.transposed, adapter.magnitude)

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is not None and self.kept.serves(self):
            shape, x = self._flat(x)
            return _in_shape(self._add_joined(self._base(x), x, shape, *self.kept.factors), shape)
        if self.merged:
            return self._merged_forward(x)
        if not self.enabled or not (self.active or self.rows):
            return self.base(x)
        shape, x = self._flat(x)
        if self.rows is None and (not self.frozen() or self._special()):
            return _in_shape(self._one_by_one(x), shape)
        return _in_shape(self._joined(x, shape), shape)

    def _one_by_one(self, x: Tensor) -> Tensor:
        """Each active adapter with its own dropout, and what else it has."""
        used = [self.adapters[name] for name in self.active]
        bias = next((adapter.bias for adapter in used if adapter.bias is not None), None)
        h = self._base(x, bias)
        for adapter in used:
            h = self._add(h, self._drop(x, adapter.config.dropout), *adapter.factors(), adapter.scale)
            h = self._stretch(h, adapter, bias)
        return h

    def _joined(self, x: Tensor, shape: torch.Size) -> Tensor:
        """All adapters at once: their sum, or with rows a mask that leaves each row its own."""
        names = self.active
        if self.rows is not None:
            names = tuple(dict.fromkeys(name for name in self.rows if name in self.adapters))
        h, used = self._base(x), [self.adapters[name] for name in names]
        if not used:
            return h
        A, B = joined(used)
        ranks = [len(adapter.factors()[0]) for adapter in used]
        mask = None if self.rows is None else owners(self.rows, names, ranks, A)
        if self.serving and self.frozen():
            self.kept = Kept(self, A, B, mask)
            A, B, mask = self.kept.factors  # at once, so that the next call has the same bits
        return self._add_joined(h, x, shape, A, B, mask)

    def _add_joined(self, h: Tensor, x: Tensor, shape: torch.Size, A: Tensor, B: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return self._add(h, x, A, B, 1.0)
        if shape[0] != len(mask):
            raise Error(f"lora.rows: {len(mask)} rows are named, the batch has {shape[0]}: name one for each row")
        each = len(h) // len(mask)
        mask = mask.repeat_interleave(each, dim=0) if each > 1 else mask
        return self._add(h, self._drop_rows(x, each), A, B, mask)

    def frozen(self) -> bool:
        """Whether this call is not one of training."""
        return not (self.training or torch.is_grad_enabled())

    def _special(self) -> bool:
        """Whether an active adapter has more than A and B."""
        used = [self.adapters[name] for name in self.active]
        return any(adapter.magnitude is not None or adapter.bias is not None for adapter in used)

    def _merged_forward(self, x: Tensor) -> Tensor:
        h = self.base(x)
        if self.training and torch.is_grad_enabled():
            learns = next((p for p in self.adapters.parameters() if p.requires_grad), None)
            return h if learns is None else _LearnsNothing.apply(h, learns)
        return h

    def _flat(self, x: Tensor) -> tuple[torch.Size, Tensor]:
        """x as (N, I), and what N was: the product of two matrices is no view, so that h may be added into."""
        return x.shape[:-1], x.reshape(-1, x.shape[-1])

    def _base(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The frozen layer, (N, O)."""
        return self.base(x) if bias is None else torch.func.functional_call(self.base, {"bias": bias}, (x,))

    def _stretch(self, h: Tensor, adapter, bias: Tensor | None) -> Tensor:
        """DoRA: h without bias, times magnitude / |W + scale B A|."""
        if adapter.magnitude is None:
            return h
        weight = self.base.weight.T if self.transposed else self.base.weight
        stretch = adapter.magnitude / dora.lengths(weight, self.squares(), *adapter.factors(), adapter.scale)
        bias = self.base.bias if bias is None else bias
        # In this order h stays as it is, bit for bit, while the stretch is 1.
        return (h + (stretch - 1) * (h if bias is None else h - bias).to(stretch.dtype)).to(h.dtype)

    def squares(self) -> Tensor:
        """|w|^2 of each row of W (O, I), in float32 at least."""
        wide = self.base.weight.detach().to(torch.promote_types(self.base.weight.dtype, torch.float32))
        return wide.square().sum(0 if self.transposed else 1)

    def _drop(self, x: Tensor, p: float) -> Tensor:
        return F.dropout(x, p) if self.training and p else x

    def _drop_rows(self, x: Tensor, each: int) -> Tensor:
        """Dropout of x (N, I), every row of the batch with the probability of its adapter."""
        p = [self.adapters[name].config.dropout if name in self.adapters else 0.0 for name in self.rows]
        if len(set(p)) == 1 or not self.training:
            return self._drop(x, p[0])
        p = torch.tensor(p, device=x.device, dtype=x.dtype).repeat_interleave(each)[:, None]
        return x * (torch.rand_like(x) >= p) / (1 - p)

    def _add(self, h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale) -> Tensor:
        # A hook on the base may keep h: then it is not ours to add into.
        return (plain if self.base._forward_hooks else fast)(h, x, A, B, scale)

    def enable(self, enabled: bool):
        """Off, the layer is its base, merged or not; what is put aside meanwhile is the merged weight."""
        if self.merged and enabled != self.enabled:
            self.exchange()
        self.enabled = enabled

    def exchange(self):
        """The base's weight and bias for those in `original` and the reverse: the objects, not their values."""
        aside = self.original
        self.original = tuple(self.base._parameters.get(name) for name in ("weight", "bias"))
        for name, parameter in zip(("weight", "bias"), aside, strict=True):
            if parameter is not None:
                self.base._parameters[name] = parameter

    def unmerge(self):
        """The weights of before; those that hold the adapters are let go."""
        if self.merged and self.enabled:
            self.exchange()
        self.merged, self.original = (), ()

    def state_dict(self, *args, **kwargs):
        """Of the base without adapters, and of them: the same merged or not."""
        enabled = self.enabled
        self.enable(False)
        try:
            return super().state_dict(*args, **kwargs)
        finally:
            self.enable(enabled)

    def _load_from_state_dict(self, *args, **kwargs):
        # What is loaded is a base and its adapters: a weight merged of other numbers would hide them.
        self.unmerge()
        self.kept = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict:
        # Whoever promised that nothing changes did not speak for copies.
        return self.__dict__ | {"serving": False, "kept": None}

    def _apply(self, fn, recurse=True):
        # .to(), .half() and their like must reach the weights put aside, or unmerging would bring back another dtype.
        super()._apply(fn, recurse)
        for parameter in self.original:
            if parameter is not None:
                parameter.data = fn(parameter.data)
        self.kept = None
        return self


def _in_shape(h: Tensor, shape: torch.Size) -> Tensor:
    return h.view(*shape, h.shape[-1])  # not -1, which no row at all leaves open


class LinearLayer(Layer):
    """nn.Linear and its subclasses."""


class Conv1DLayer(Layer):
    """transformers' Conv1D: a linear layer that stores its weight as (I, O)."""

    transposed = True

    def _base(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if isinstance(self.base, NF4Linear):
            return super()._base(x, bias)
        # As Conv1D does it, less the view of the result, which nothing could be added into.
        return torch.addmm(self.base.bias if bias is None else bias, x, self.base.weight)


class EmbeddingLayer(Layer):
    """nn.Embedding: A^T has a row for every token, B brings it to the width of the model."""

    transposed = True

    def _flat(self, x: Tensor) -> tuple[torch.Size, Tensor]:
        return x.shape, x.reshape(-1)

    def _drop(self, x: Tensor, p: float) -> Tensor:
        return x  # the input is a token, there or not

    def _drop_rows(self, x: Tensor, each: int) -> Tensor:
        return x

    def _add(self, h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale) -> Tensor:
        u = F.embedding(x, A.T, padding_idx=self.base.padding_idx) * scale
        out = u @ B.T * getattr(self.base, "embed_scale", 1)  # some models multiply what they look up
        return (h + out).to(h.dtype)
