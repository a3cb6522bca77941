"""What is done to the logits before a token is drawn: pure functions, (..., V) -> (..., V).

Shapes: V vocabulary; any dimensions before it. z are the logits, p = softmax(z). A token that is taken out gets -inf.
Each filter sees the probabilities that the one before it left: temperature, then top-k, then top-p, as transformers.
"""

import math

from torch import Tensor


def temperature(logits: Tensor, value: float) -> Tensor:
    """z / T: below 1 the likely tokens gain, above 1 they lose (Ackley, Hinton & Sejnowski 1985). T > 0.

    >>> import torch
    >>> temperature(torch.tensor([1.0, 3.0]), 0.5).tolist()
    [2.0, 6.0]
    """
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep v iff z_v >= the k-th largest z (Fan, Lewis & Dauphin 2018, section 5.4).

    Tokens that tie with the k-th are all kept, so a draw does not depend on how a sort breaks ties.

    >>> import torch
    >>> top_k(torch.tensor([1.0, 4.0, 2.0, 2.0]), 2).tolist()
    [-inf, 4.0, 2.0, 2.0]
    """
    kth = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep v iff the tokens likelier than v hold less than p: the nucleus (Holtzman et al. 2020, section 3.1).

    The most likely token always stays. 0 < p <= 1, and 1 keeps all. Of equally likely tokens at the border the
    lower ids stay.

    >>> import torch
    >>> top_p(torch.tensor([0.5, 0.25, 0.125, 0.125]).log(), 0.75).exp().tolist()
    [0.5, 0.25, 0.0, 0.0]
    """
    if p >= 1:
        return logits  # the sum below is rounded, and might reach 1 before the last token
    ranked, order = logits.sort(descending=True, stable=True)
    mass = ranked.double().softmax(-1)
    before = mass.cumsum(-1) - mass
    drop = (before >= p).scatter(-1, order, before >= p)
    return logits.masked_fill(drop, -math.inf)
