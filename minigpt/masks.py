"""May query i see key j?  Small predicates, and the boolean mask they make together.

Shapes: B batch, T queries, L keys (L = past + T; with a cache the keys of the past come first).
True means "sees". Masks are booleans and the softmax gets -inf: a large finite number such as -1e4
is a score the network can learn to undercut, and then it reads the future.
"""

import torch
from torch import Tensor


def causal(i: Tensor, j: Tensor) -> Tensor:
    """A token sees itself and what came before: j <= i."""
    return j <= i


def banded(i: Tensor, j: Tensor, window: int) -> Tensor:
    """A token sees at most `window` keys, itself included: i - j < window (Child et al. 2019, "local")."""
    return i - j < window


def same_document(a: Tensor, b: Tensor) -> Tensor:
    """Packed documents do not see each other: equal document numbers."""
    return a == b


def build(
    n_queries: int,
    past: int = 0,
    *,
    window: int | None = None,
    keep: Tensor | None = None,
    documents: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor | None:
    """The mask (B or 1, 1, T, L) of a causal layer, or None where "all of the past and myself" says it all.

    `keep` (B, L) bool is False at padding; `documents` (B, L) numbers the packed documents; `window` counts
    real tokens, so padding between them does not shorten it. A padding token sees itself, whatever the rest
    says: an empty row would make the softmax 0/0, and nobody reads what it computes.

    From a cache with branches, `keep` (B, T, L) says already what each query sees; the window is what remains.

    >>> build(4, window=2)[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    n_keys = past + n_queries
    if keep is None and documents is None and (window is None or window >= n_keys):
        return None
    if keep is not None and keep.ndim == 3:
        order = keep.cumsum(-1)  # along its own branch
        return (keep if window is None else keep & banded(order[:, :, -1:], order, window))[:, None]
    slots = torch.arange(n_keys, device=device)
    i, j = slots[past:, None], slots[None, :]
    mask = causal(i, j)[None]
    if window is not None:
        order = slots[None] if keep is None else keep.cumsum(-1)
        mask = mask & banded(order[:, past:, None], order[:, None, :], window)
    if documents is not None:
        mask = mask & same_document(documents[:, past:, None], documents[:, None, :])
    if keep is not None:
        mask = mask & keep[:, None, :] | (i == j)
    return mask[:, None]
