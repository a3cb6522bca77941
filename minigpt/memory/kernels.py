"""What attention keeps for its backward pass: it depends on the kernel, and the kernel on the device.

Shapes: B batch, H heads, G key/value heads, T queries, L keys, D head size.

    flash      q, k, v, out and log sum exp of each row of scores (B, H, T), in 32 bits    never the T x L weights
    products   q, k, v and out: short causal rows of 16-bit numbers on the CPU
    efficient  the same on CUDA where flash cannot: 32-bit numbers, or a mask
    math       dropout on the CPU, or grouped heads where `efficient` would be asked: the formula, weights and all
    plain      `attention.plain`
"""

from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.memory.job import Job
from minigpt.products import MOST_KEYS


@dataclass(eq=False)
class Sheet:
    """A tensor on paper. Two of them are never equal, however alike: each is a storage of its own."""

    numel: int
    size: int  # bytes of a number
    learns: bool = False  # a gradient flows back through it

    @property
    def nbytes(self) -> int:
        return self.numel * self.size


@dataclass(frozen=True)
class Heads:
    """The sizes of one attention."""

    batch: int
    n_heads: int
    n_kv_heads: int
    queries: int
    keys: int
    d_head: int

    @property
    def rows(self) -> int:
        return self.batch * self.n_heads * self.queries


def kernel(job: Job, heads: Heads, size: int, masked: bool, dropout: float) -> str:
    """The one that `attention.fast` takes, or PyTorch's scaled_dot_product_attention for it."""
    if job.attention == "plain":
        return "plain"
    if job.device == "cpu":
        short = heads.n_heads == heads.n_kv_heads and heads.queries == heads.keys <= MOST_KEYS
        return "math" if dropout else "products" if size == 2 and short and not masked else "flash"
    if size == 2 and not masked:
        return "flash"
    return "efficient" if heads.n_heads == heads.n_kv_heads else "math"


def keeps(job: Job, heads: Heads, q: Sheet, k: Sheet, v: Sheet, out: Sheet, mask: Sheet | None, dropout: float):
    """The sheets one attention keeps; none if no gradient flows through it."""
    if not out.learns:
        return []
    name = kernel(job, heads, q.size, mask is not None, dropout)
    if name in ("plain", "math"):
        return list(_weights(job, heads, q, k, v, mask, dropout, name))
    padded = -(-heads.queries // 32) * 32 if name == "efficient" else heads.queries
    found = [q, k, v, out] + ([] if name == "products" else [Sheet(heads.batch * heads.n_heads * padded, 4)])
    if mask is not None:
        # The kernels add a mask of numbers, 0 and -inf, which they keep.
        found.append(Sheet(mask.numel, q.size))
    return found


def _weights(job: Job, heads: Heads, q: Sheet, k: Sheet, v: Sheet, mask, dropout: float, name: str) -> Iterator[Sheet]:
    """weights = softmax(q k^T),  out = dropout(weights) v:  each side of a product for the gradient of the other.

    `math` makes 32-bit numbers of 16-bit ones. Grouped keys and values are repeated for each head.
    """
    size = 4 if name == "math" else q.size
    n_weights, shared = heads.rows * heads.keys, heads.batch * heads.n_heads * heads.keys * heads.d_head
    if k.learns:
        yield Sheet(q.numel, size)
    if q.learns:
        yield Sheet(shared, size)
    weights = Sheet(n_weights, size)
    if q.learns or k.learns:
        yield weights
        yield Sheet(shared, size)  # v
        if name == "plain":
            yield mask or Sheet(heads.queries * heads.keys, 1)
        if dropout:
            yield Sheet(n_weights, 1 if job.device == "cuda" else size)
    if v.learns:
        yield Sheet(n_weights, size) if dropout else weights
