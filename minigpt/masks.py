"""May query i see key j?  Small predicates, and the boolean mask they make together.

Shapes: B batch, T queries, L keys (L = past + T; with a cache the keys of the past come first).
True means "sees". Masks are booleans and the softmax gets -inf: a large finite number such as -1e4
is a score the network can learn to undercut, and then it reads the future.
A band that is much narrower than the text is long is not written out: `Band` says it, and local.py computes it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SHORT = 512  # keys below which a mask that is written out is as quick
Turn = tuple[Tensor, Tensor]  # cos and sin, see positions.py


def causal(i: Tensor, j: Tensor) -> Tensor:
    """A token sees itself and what came before: j <= i."""
    return j <= i


def banded(i: Tensor, j: Tensor, window: int) -> Tensor:
    """A token sees at most `window` keys, itself included: i - j < window (Child et al. 2019, "local")."""
    return i - j < window


def strided(i: Tensor, j: Tensor, stride: int) -> Tensor:
    """The last `stride` keys, and of those before every stride-th, counted from itself (Child et al. 2019, 4.2)."""
    return banded(i, j, stride) | ((i - j) % stride == 0)


def fixed(i: Tensor, j: Tensor, stride: int) -> Tensor:
    """Its own block of `stride` keys, and the last one of every block before, which sums it up (ibid., c = 1)."""
    return (i // stride == j // stride) | (j % stride == stride - 1)


PATTERNS = {"local": banded, "strided": strided, "fixed": fixed}


def same_document(a: Tensor, b: Tensor) -> Tensor:
    """Packed documents do not see each other: equal document numbers."""
    return a == b


def pays(n_queries: int, n_keys: int, window: int) -> bool:
    """Whether a band is better computed a chunk at a time."""
    return n_keys >= max(SHORT, 2 * window) and 2 * n_queries >= SHORT


@dataclass(frozen=True, eq=False)
class Band:
    """The banded mask of the last T of L keys, not written out: causal, `window` wide, within `documents` (B, L); the
    first `sinks` keys are seen by all that come later.

    >>> Band(window=2, n_queries=3).dense()[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """

    window: int
    n_queries: int
    past: int = 0
    documents: Tensor | None = None
    device: torch.device | None = None
    sinks: int = 0

    @property
    def pays(self) -> bool:
        """Whether it is better computed a chunk of queries at a time than written out."""
        return pays(self.n_queries, self.past + self.n_queries, self.window)

    def block(self, first: int, end: int, n_keys: int) -> Tensor:
        """What the queries first .. end - 1 see of the `n_keys` keys up to the last of them: (B or 1, 1, t, n_keys)."""
        last = self.past + end
        i = torch.arange(self.past + first, last, device=self.device)[:, None]
        j = torch.arange(last - n_keys, last, device=self.device)
        mask = (causal(i, j) & (banded(i, j, self.window) | (j < self.sinks)))[None]
        if self.documents is not None:
            there = self.documents[:, self.past + first : last, None], self.documents[:, None, last - n_keys : last]
            mask = mask & same_document(*there)
        return mask[:, None]

    def dense(self) -> Tensor:
        """Written out, (B or 1, 1, T, L)."""
        return self.block(0, self.n_queries, self.past + self.n_queries)

    @cached_property
    def blocks(self):
        """The same as flex attention wants it; made once for all layers."""
        from torch.nn.attention.flex_attention import create_block_mask

        def sees(b, h, i, j):
            i = i + self.past
            seen = causal(i, j) & (banded(i, j, self.window) | (j < self.sinks))
            return seen if self.documents is None else seen & same_document(self.documents[b, i], self.documents[b, j])

        batch = None if self.documents is None else len(self.documents)
        return create_block_mask(sees, batch, None, self.n_queries, self.past + self.n_queries, str(self.device))


@dataclass(frozen=True, eq=False)
class Sinks:
    """A banded mask whose first tokens stay in sight, and where from: as near as the window is long.

    A query at position i is `back` at min(i, window + sinks - 1) when it looks at the `first` tokens: farther than
    that no text of the training was. For the other keys only the distance counts.
    """

    mask: Tensor | Band
    back: Turn  # from i to there, tables of (B or 1, 1, T, D)
    first: Tensor  # (B or 1, L) bool


def first_tokens(n_keys: int, sinks: int, keep: Tensor | None, device: torch.device | None = None) -> Tensor:
    """Which keys are among the first `sinks` real ones of their row or branch, (B or 1, L) bool."""
    if keep is None:
        return torch.arange(n_keys, device=device)[None] < sinks
    first = keep & (keep.cumsum(-1) <= sinks)
    return first.any(1) if keep.ndim == 3 else first  # branches share a beginning


def last(mask: Tensor | Band | Sinks | None, n_keys: int, front: int = 0) -> Tensor | Band | Sinks | None:
    """The mask of the last `n_keys` keys, `front` of which are the first: a banded layer's cache holds no others."""
    if isinstance(mask, Sinks):
        return Sinks(last(mask.mask, n_keys, front), mask.back, last(mask.first, n_keys, front))
    if isinstance(mask, Band):
        past = n_keys - mask.n_queries
        return Band(mask.window, mask.n_queries, past, mask.documents, mask.device, mask.sinks)
    if mask is None or mask.shape[-1] == n_keys:
        return mask
    recent = mask[..., front - n_keys :]
    return torch.cat((mask[..., :front], recent), -1) if front else recent


def build(
    n_queries: int,
    past: int = 0,
    *,
    window: int | None = None,
    pattern: str = "local",
    sinks: int = 0,
    keep: Tensor | None = None,
    documents: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor | Band | None:
    """The mask (B or 1, 1, T, L) of a causal layer, or None where "all of the past and myself" says it all.

    `keep` (B, L) bool is False at padding; `documents` (B, L) numbers the packed documents; `window` counts
    real tokens, so padding between them does not shorten it. A padding token sees itself, whatever the rest
    says: an empty row would make the softmax 0/0, and nobody reads what it computes.

    `pattern` is what the window means, and the first `sinks` real tokens are seen whatever it is.

    From a cache with branches, `keep` (B, T, L) says already what each query sees; the window is what remains.

    >>> build(4, window=2)[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    n_keys = past + n_queries
    if keep is None and documents is None and (window is None or window >= n_keys):
        return None
    if window is not None and keep is None and pattern == "local" and n_keys >= max(SHORT, 2 * window):
        return Band(window, n_queries, past, documents, device, sinks)

    def near(i: Tensor, j: Tensor) -> Tensor:
        return PATTERNS[pattern](i, j, window) | (j < sinks)

    if keep is not None and keep.ndim == 3:
        order = keep.cumsum(-1) - 1  # along its own branch
        return (keep if window is None else keep & near(order[:, :, -1:], order))[:, None]
    slots = torch.arange(n_keys, device=device)
    i, j = slots[past:, None], slots[None, :]
    mask = causal(i, j)[None]
    if window is not None:
        order = slots[None] if keep is None else keep.cumsum(-1) - 1
        mask = mask & near(order[:, past:, None], order[:, None, :])
    if documents is not None:
        mask = mask & same_document(documents[:, past:, None], documents[:, None, :])
    if keep is not None:
        mask = mask & keep[:, None, :] | (i == j)
    return mask[:, None]
