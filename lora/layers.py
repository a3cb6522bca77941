"""h = W0 x + scale B A x: a frozen layer with adapters beside it.

Shapes: N rows (all dimensions of x but the last), I in, O out, r rank, R ranks of several adapters together.

    A (r, I)  Gaussian        x --- W0 (frozen) ---+--- h
    B (O, r)  zero            x --- A --- B -------+         (Hu et al. 2021, section 4.1)

B = 0 makes the layer the old one, bit for bit, until it learns. Two identities carry everything else:

    sum_i s_i B_i A_i x = [s_1 B_1 ... s_n B_n] [A_1; ...; A_n] x      several adapters are one of rank r_1 + ... + r_n
    row b uses adapter n(b):  B (mask_b * (A x_b))                     and one adapter a row is a mask on its ranks

An Embedding is the linear layer of one-hot vectors, A x is then a look-up in A^T; Conv1D (transformers' GPT-2) is a
linear layer that stores W0 as (I, O). A and B are the same for all three.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora import dora
from lora.config import Config
from lora.errors import Error
from lora.exact import Update
from lora.saved import Holder


def plain(h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
    """h + scale B A x by the formula: h (N, O), x (N, I), A (r, I), B (O, r) -> (N, O).

    `scale` is a number, or (N, r): one a rank for every row. Added in the dtype of A, returned in that of h.

    >>> h, x, A, B = torch.randn(3, 5), torch.randn(3, 4), torch.randn(2, 4), torch.randn(5, 2)
    >>> torch.allclose(plain(h, x, A, B, 2.0), fast(h.clone(), x, A, B, 2.0), atol=1e-5)
    True
    """
    return (h + (x.to(A.dtype) @ A.T * scale) @ B.T).to(h.dtype)


def fast(h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
    """`plain`, added into `h` itself: no second (N, O) tensor, and for backward only x and the N x r products.

    `h` must be fresh, of nobody else's use. Where a cast is needed, or a tracer looks on, it is `plain`.
    """
    same = h.dtype == x.dtype == A.dtype and not torch.is_autocast_enabled(h.device.type)
    if not same or torch.compiler.is_compiling() or h._is_view():
        return plain(h, x, A, B, scale)
    if not torch.is_grad_enabled():
        return h.addmm_((x @ A.T).mul_(scale), B.T)
    return _AddLowRank.apply(h, x, A, B, scale)


class _AddLowRank(torch.autograd.Function):
    """With u = scale A x and g = dL/dh:  dB = g^T u,  du = scale (g B),  dA = du^T x,  dx = du A."""

    @staticmethod
    def forward(ctx, h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
        u = (x @ A.T).mul_(scale)
        ctx.scale = scale
        ctx.save_for_backward(x if A.requires_grad else None, u if B.requires_grad else None, A, B)
        ctx.mark_dirty(h)
        return h.addmm_(u, B.T)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        x, u, A, B = ctx.saved_tensors
        du = (g @ B).mul_(ctx.scale)
        d_x = du @ A if ctx.needs_input_grad[1] else None
        d_A = du.T @ x if ctx.needs_input_grad[2] else None
        d_B = g.T @ u if ctx.needs_input_grad[3] else None
        return g, d_x, d_A, d_B, None


class _LearnsNothing(torch.autograd.Function):
    """Training while merged would end in torch's "does not require grad", or go on without the adapter: say so."""

    @staticmethod
    def forward(ctx, h: Tensor, adapter: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx, g: Tensor):
        raise Error("lora: merged adapters do not learn: call lora.unmerge(model) before training")


class Adapter(nn.Module):
    """One A and B, with what belongs to them: scale, dropout, DoRA's magnitude, a bias in place of the base's.

    `parts` are ((size, adapted), ...) of a fused layer: each adapted part has its own r rows of A and its own B, which
    stand in B one below the other; `factors` puts them into a matrix of blocks.
    """

    def __init__(self, config: Config, r: int, scale: float, n_in: int, n_out: int, like: Tensor, parts=None):
        super().__init__()
        self.config, self.scale = config, scale
        self.parts = parts or ((n_out, True),)
        self.magnitude = self.bias = None
        adapted = [size for size, adapted in self.parts if adapted]
        dtype = torch.promote_types(like.dtype, torch.float32)  # 16 bits cannot hold what a small step adds
        self.A = nn.Parameter(torch.empty(r * len(adapted), n_in, dtype=dtype, device=like.device))
        self.B = nn.Parameter(torch.zeros(sum(adapted), r, dtype=dtype, device=like.device))
        if config.init == "gaussian":
            nn.init.normal_(self.A, std=1 / r)
        else:
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    @property
    def rank(self) -> int:
        return self.B.shape[1]

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (R, I) and B (O, R); R = r for a whole layer, r for each adapted part of a fused one."""
        if len(self.parts) == 1:
            return self.A, self.B
        r, blocks = self.rank, []
        pieces = list(self.B.split([size for size, adapted in self.parts if adapted]))
        last = len(pieces) - 1
        for size, adapted in self.parts:
            place = last + 1 - len(pieces)
            rows = F.pad(pieces.pop(0), (r * place, r * (last - place))) if adapted else None
            blocks.append(self.B.new_zeros(size, len(self.A)) if rows is None else rows)
        return self.A, torch.cat(blocks)

    def extra_repr(self) -> str:
        return f"r={self.rank}, scale={self.scale:g}"


class TiedAdapter(nn.Module):
    """The adapter of an output head, seen from the embedding it is tied to: one update, one shared matrix.

    The head adds B A to W (V, C). As an embedding of one-hot tokens, stored (I, O), the same W gets (B' A')^T: so
    A' = B^T and B' = A^T.
    """

    magnitude = bias = None

    def __init__(self, head: Adapter):
        super().__init__()
        self.head = head
        self.config, self.scale, self.rank = head.config, head.scale, head.rank

    def factors(self) -> tuple[Tensor, Tensor]:
        A, B = self.head.factors()
        return B.T, A.T


class Layer(Holder):
    """A frozen base and its adapters. At work is one of: what is `merged`; `rows`; the sum of the `active`.

    merged    names; the base's weight holds them already, forward is the base alone
    original  the base's weight and bias of before, while merged: in a tuple, so that they are no parameters here
    rows      one name, or None, for each row of the batch
    """

    transposed = False  # the weight is stored (I, O)

    def __init__(self, base: nn.Module):
        super().__init__(base)
        self.merged: tuple[str, ...] = ()
        self.original: tuple[nn.Parameter | None, ...] = ()
        self.rows: tuple[str | None, ...] | None = None
        self._kept = self._squares = None

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
        if self.merged:
            return self._merged_forward(x)
        if not self.enabled or not (self.active or self.rows):
            return self.base(x)
        if self.rows is not None:
            return self._add_rows(x)
        used = [self.adapters[name] for name in self.active]
        bias = next((adapter.bias for adapter in used if adapter.bias is not None), None)
        shape, x = self._flat(x)
        h = self._base(x, bias)
        if self.training or len(used) == 1:
            for adapter in used:
                h = self._add(h, self._drop(x, adapter.config.dropout), *adapter.factors(), adapter.scale)
                h = self._stretch(h, adapter, bias)
        else:
            h = self._add(h, x, *self._together(self.active))
        return h.view(*shape, -1)

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

    def _add_rows(self, x: Tensor) -> Tensor:
        """Each row its own adapter: all that are used at once, and a mask on their ranks."""
        if x.shape[0] != len(self.rows):
            raise Error(
                f"lora.rows: {len(self.rows)} rows are named, the batch has {x.shape[0]}: name one for each row"
            )
        names = tuple(dict.fromkeys(name for name in self.rows if name in self.adapters))
        shape, x = self._flat(x)
        h = self._base(x)
        if names:
            A, B, mask = self._together(names)
            each = len(h) // len(self.rows)
            h = self._add(h, self._drop_rows(x, each), A, B, mask.repeat_interleave(each, dim=0))
        return h.view(*shape, -1)

    def _together(self, names: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Several adapters as one: A (R, I), B (O, R), and the scale of each rank, (R,); with rows (batch, R), zero
        where the rank is another row's. Kept from call to call while no gradient is wanted and nothing changes.
        """
        used = [self.adapters[name] for name in names]
        learns = torch.is_grad_enabled() and any(p.requires_grad for adapter in used for p in adapter.parameters())
        state = [(p.data_ptr(), p._version) for adapter in used for p in adapter.parameters()]
        key = (names, self.rows, torch.is_inference_mode_enabled(), state)
        if not learns and self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        pairs = [adapter.factors() for adapter in used]
        A, B = torch.cat([A for A, _ in pairs]), torch.cat([B for _, B in pairs], dim=1)
        ranks = torch.tensor([len(A) for A, _ in pairs], device=A.device)
        scales = torch.tensor([adapter.scale for adapter in used], dtype=A.dtype, device=A.device)
        if self.rows is not None:
            place = [names.index(name) if name in names else len(names) for name in self.rows]
            owners = F.pad(torch.diag(scales), (0, 0, 0, 1))  # the last row owns nothing
            scales = owners[torch.tensor(place, device=A.device)]  # the one gather: its owner for every row
        found = A, B, scales.repeat_interleave(ranks, dim=-1)
        self._kept = None if learns else (key, found)
        return found

    def _stretch(self, h: Tensor, adapter, bias: Tensor | None) -> Tensor:
        """DoRA: h without bias, times magnitude / |W + scale B A|."""
        if adapter.magnitude is None:
            return h
        weight = self.base.weight.T if self.transposed else self.base.weight
        stretch = adapter.magnitude / dora.lengths(weight, self.squares(), *adapter.factors(), adapter.scale)
        bias = self.base.bias if bias is None else bias
        # In this order h stays as it is, bit for bit, while the stretch is 1.
        return h + (stretch - 1) * (h if bias is None else h - bias).to(stretch.dtype)

    def squares(self) -> Tensor:
        """|w|^2 of each row of W (O, I), in float32 at least."""
        if self._squares is None:
            wide = self.base.weight.detach().to(torch.promote_types(self.base.weight.dtype, torch.float32))
            self._squares = wide.square().sum(0 if self.transposed else 1)
        return self._squares

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
        return fast(h, x, A, B, scale)

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

    def _apply(self, fn, recurse=True):
        # .to(), .half() and their like must reach the weights put aside, or unmerging would bring back another dtype.
        super()._apply(fn, recurse)
        for parameter in self.original:
            if parameter is not None:
                parameter.data = fn(parameter.data)
        self._kept = self._squares = None
        return self


class LinearLayer(Layer):
    """nn.Linear and its subclasses."""


class Conv1DLayer(Layer):
    """transformers' Conv1D: a linear layer that stores its weight as (I, O)."""

    transposed = True

    def _base(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
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
