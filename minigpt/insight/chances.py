"""What could come next: the model's own distribution after a text, before any temperature or filter."""

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation.checks import context_of
from minigpt.generation.processors import BROKEN
from minigpt.generation.reader import evaluating
from minigpt.model import GPT


def log_chances(model: GPT, ids: list[int]) -> Tensor:
    """log P(v | ids) of every token v, (V,) float32.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> round(log_chances(model, [1, 2]).exp().sum().item(), 4)
    1.0
    """
    context = context_of(model)
    if not 0 < len(ids) <= context:
        raise Error(f"the text has {len(ids)} tokens: give from 1 to {context}, which the model reads")
    with evaluating(model):
        hidden = model.hidden(torch.tensor([ids], device=next(model.parameters()).device))
        logits = model.head(hidden[:, -1])[0].float().cpu()
    if not logits.amax().isfinite():
        raise Error(BROKEN)
    return logits.log_softmax(-1)


def next_tokens(model: GPT, ids: list[int], top: int = 10) -> list[tuple[int, float]]:
    """The likeliest tokens after a text and their probabilities, the likeliest first.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> (first, p), (second, q) = next_tokens(model, [1, 2], top=2)
    >>> 1 > p >= q > 0
    True
    """
    values, tokens = log_chances(model, ids).exp().topk(min(top, model.config.vocab_size))
    return list(zip(tokens.tolist(), values.tolist(), strict=True))
