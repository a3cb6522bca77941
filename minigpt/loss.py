"""Cross-entropy of the next token, averaged over tokens, without ever holding all logits.

Shapes: N tokens (B T flattened), C channels, V vocabulary.

    loss = 1/n sum_t ( log sum_v exp(h_t W_v) - h_t W_target(t) ),   t over the n tokens that have a target

For small models the logits N x V and their gradient are the largest tensors of a training step. `fast` makes both
a chunk of rows at a time, while they are still in the processor's cache, and keeps only what the weights need.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minigpt import linear

IGNORE = -100  # the target of a token that is not to be predicted: padding, the prompt of an instruction
CHUNK_BYTES = 4 << 20  # logits held at a time: what a CPU's cache holds
CHUNK_ROWS = 256  # but at least so many rows: fewer starve the products, and the head's gradient is added up too often
GPU_CHUNK_BYTES = 256 << 20  # a GPU wants large products; small ones would wait for their launches


def plain(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """Sum of the losses, by the formula: hidden (B, T, C), targets (B, T) -> a float32 number.

    >>> head, h, t = nn.Linear(8, 50), torch.randn(2, 3, 8), torch.tensor([[1, 2, IGNORE], [3, 4, 5]])
    >>> torch.allclose(plain(h, head, t), cross_entropy(h, head, t, "sum"))
    True
    """
    logits = rearrange(head(hidden), "b t v -> (b t) v")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits, rearrange(targets, "b t -> (b t)"), ignore_index=IGNORE, reduction="sum")


def cross_entropy(hidden: Tensor, head: nn.Module, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Mean (or "sum") of the losses over the tokens that have a target, in nats; 0 if none has.

    Divide the sum by the tokens of the whole optimizer step when it has several micro-batches: the mean of
    their means weighs a token by how few neighbours it has.
    """
    hidden, targets = rearrange(hidden, "b t c -> (b t) c"), rearrange(targets, "b t -> (b t)")
    if type(head) in (nn.Linear, linear.Linear) and head.bias is None:
        total = fast(hidden, head.weight, targets)
    else:
        total = _recomputed(hidden, head, targets)
    if reduction == "sum":
        return total
    return total / (targets != IGNORE).sum().clamp(min=1)


def fast(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the losses of a linear head, (N, C), (V, C), (N,) -> a number; its gradient is made on the way.

    Under autocast the products have few bits, the softmax and the sums over chunks have float32's.
    """
    device, narrow = hidden.device.type, hidden.dtype
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        narrow = torch.get_autocast_dtype(device)
    if not torch.is_grad_enabled():  # an autograd function is not told, and would make the gradients of nothing
        hidden, weight = hidden.detach(), weight.detach()
    return _LinearCrossEntropy.apply(hidden, weight, targets, narrow)


def chunk_rows(n_vocab: int, itemsize: int, device: str = "cpu") -> int:
    """Rows whose logits are made at a time.

    >>> chunk_rows(4096, itemsize=4), chunk_rows(50257, itemsize=4)
    (256, 256)
    """
    room = GPU_CHUNK_BYTES if device == "cuda" else CHUNK_BYTES
    return max(CHUNK_ROWS, room // (n_vocab * itemsize))


class _LinearCrossEntropy(torch.autograd.Function):
    """d loss / d logits = softmax - onehot needs nothing from later: so forward already makes
    dh = (softmax - onehot) W and dW = (softmax - onehot)^T h, chunk by chunk, and backward only scales them."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, narrow: torch.dtype) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        ctx.dtypes = hidden.dtype, weight.dtype
        weight = weight.to(narrow)
        d_hidden = torch.empty_like(hidden, dtype=wide) if wants_hidden else None
        # As (C, V): the product h^T slope then copies the narrow h, not the wide slope.
        d_weight = hidden.new_zeros(weight.shape[::-1], dtype=wide) if wants_weight else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        rows = chunk_rows(len(weight), hidden.element_size(), hidden.device.type)
        for start in range(0, len(hidden), rows):
            h, target = hidden[start : start + rows].to(narrow), targets[start : start + rows, None]
            real = target != IGNORE
            target = target.where(real, 0)
            log_p = torch.log_softmax(linear.fast(h, weight), dim=-1, dtype=wide)
            total -= log_p.gather(1, target).where(real, 0).sum()
            if not (wants_hidden or wants_weight):
                continue
            slope = log_p.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=wide))
            slope = slope.masked_fill_(~real, 0).to(narrow)  # not times real: what is ignored may be inf
            if wants_hidden:
                d_hidden[start : start + rows] = linear.fast(slope, weight.T)
            if wants_weight:
                d_weight += linear.fast(h.T, slope.T)
        ctx.save_for_backward(d_hidden, d_weight if d_weight is None else d_weight.T)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor):
        # In float32: a loss scale does not fit into float16.
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(None if grad is None else (grad * scale).to(dtype) for grad, dtype in grads), None, None


def _recomputed(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """The same sum for any head (an adapted one, one with a bias): logits of a chunk, made again in backward."""
    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    n_vocab = getattr(head, "out_features", 50_000)
    rows = chunk_rows(n_vocab, hidden.element_size(), hidden.device.type)
    for h, target in zip(hidden.split(rows), targets.split(rows), strict=True):
        total = total + checkpoint(plain, h[None], head, target[None], use_reentrant=False)
    return total
