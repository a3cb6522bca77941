"""Which tokens may be drawn, and how likely: pure functions of the logits, (..., V) -> (..., V).

Shapes: V vocabulary; any dimensions before it. z are the logits, p = softmax(z). A token that is taken out gets -inf.
Each filter sees the probabilities that the one before it left: temperature, then top-k, top-p, min-p and typical, as
transformers. What depends on the text so far is in penalties.py, and comes before these.
"""

import math

import torch
from torch import Tensor

BROKEN = "the model's logits are NaN or infinite: its weights are damaged, or its training diverged"
HEAD = 4096
ROUNDING = 1e-9  # more than a sum over a vocabulary in float64 is off


def temperature(logits: Tensor, value: float) -> Tensor:
    """z / T: below 1 the likely tokens gain, above 1 they lose (Ackley, Hinton & Sejnowski 1985). T > 0.

    >>> temperature(torch.tensor([1.0, 3.0]), 0.5).tolist()
    [2.0, 6.0]
    """
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep v iff z_v >= the k-th largest z (Fan, Lewis & Dauphin 2018, section 5.4).

    Tokens that tie with the k-th are all kept, so a draw does not depend on how a sort breaks ties.

    >>> top_k(torch.tensor([1.0, 4.0, 2.0, 2.0]), 2).tolist()
    [-inf, 4.0, 2.0, 2.0]
    """
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep v iff the tokens likelier than v hold less than p: the nucleus (Holtzman et al. 2020, section 3.1).

    The most likely token always stays. 0 < p <= 1, and 1 keeps all. Of equally likely tokens at the border the
    lower ids stay.

    >>> top_p(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), 0.75).exp().tolist()
    [0.5, 0.25, 0.0, 0.0]
    """
    if p >= 1:
        return logits  # the sum below is rounded, and might reach 1 before the last token
    mass = logits.double().softmax(-1)
    return logits.masked_fill(~leading_fast(logits, mass, p), -math.inf)


def min_p(logits: Tensor, share: float) -> Tensor:
    """Keep v iff p_v >= share * max p, that is z_v - max z >= log share (Nguyen et al. 2024).

    The surer the model, the fewer stay. 0 < share <= 1; 1 keeps the most likely token, and its equals.

    >>> min_p(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), 0.4).exp().tolist()
    [0.5, 0.25, 0.0, 0.0]
    """
    return logits.masked_fill(logits - logits.amax(-1, keepdim=True) < math.log(share), -math.inf)


def typical(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest to the expected one, until they hold p (Meister et al. 2023).

        H = -sum p_v log p_v        distance_v = |-log p_v - H|

    By rising distance up to and including the token with which the mass reaches p, and all at that distance. The most
    likely token may go. 0 < p <= 1, and 1 keeps all.

    >>> typical(torch.tensor([0.4, 0.15, 0.15, 0.15, 0.15]).log(), 0.3).isfinite().tolist()
    [False, True, True, True, True]
    """
    if p >= 1:
        return logits
    log_mass = logits.double().log_softmax(-1)
    mass = log_mass.exp()
    distance = (-log_mass - torch.special.entr(mass).sum(-1, keepdim=True)).abs()
    farthest = distance.masked_fill(~leading_fast(-distance, mass, p), 0.0).amax(-1, keepdim=True)
    return logits.masked_fill(distance > farthest, -math.inf)


def leading(key: Tensor, mass: Tensor, p: float) -> Tensor:
    """True where the tokens before hold less than p, when ranked by falling key and, among equals, rising id.

    >>> leading(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.25, 0.5, 0.25]), 0.6).tolist()
    [False, True, True]
    """
    order = key.argsort(descending=True, stable=True)
    ranked = mass.gather(-1, order)
    return torch.zeros_like(key, dtype=torch.bool).scatter(-1, order, ranked.cumsum(-1) - ranked < p)


def leading_fast(key: Tensor, mass: Tensor, p: float) -> Tensor:
    """`leading` without sorting the whole vocabulary, if in every row the HEAD highest keys hold p: those of a language
    model mostly do. Equals of the lowest of them may be outside, so they do not count.

    >>> leading_fast(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.25, 0.5, 0.25]), 0.6).tolist()
    [False, True, True]
    """
    if key.shape[-1] <= HEAD:
        return leading(key, mass, p)
    keys, tokens = key.topk(HEAD, sorted=False)
    held = mass.gather(-1, tokens).masked_fill(keys == keys.amin(-1, keepdim=True), 0.0).sum(-1)
    if (held < p + ROUNDING).any():
        return leading(key, mass, p)
    tokens = tokens.sort().values  # among equals, what comes first leads
    head = leading(key.gather(-1, tokens), mass.gather(-1, tokens), p)
    return torch.zeros_like(key, dtype=torch.bool).scatter(-1, tokens, head)
