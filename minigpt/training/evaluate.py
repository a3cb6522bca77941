"""How good is the model on text it has not trained on?  In nats, as perplexity, and in bits per byte.

loss           mean of -ln p(token)                              depends on the tokenizer
perplexity     exp(loss)                                         "as unsure as between so many tokens"
bits per byte  sum of -log2 p(token) / bytes of their text       comparable between tokenizers
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.loss import IGNORE, cross_entropy
from minigpt.training.ranks import ALONE


@dataclass(frozen=True)
class Evaluation:
    """One evaluation; special tokens count in `loss`, but stand for no bytes and so not in `bits_per_byte`."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int


@torch.no_grad()
def evaluate(model: nn.Module, batches, token_lengths: Tensor, most: int | None = None, ranks=ALONE) -> Evaluation:
    """Evaluate on the batches of one epoch, or on `most` of them spread evenly: always the same ones.

    `token_lengths` (V,) is the number of bytes each token stands for. Uses no randomness and leaves the model in
    the mode it was in.
    """
    training = model.training
    model.eval()
    n = len(batches) if most is None else min(most, len(batches))
    nats = special_nats = 0.0
    tokens = length = 0
    device = next(model.parameters()).device
    token_lengths = token_lengths.to(device)
    for _, batch in ranks.deal(batches, (k * len(batches) // n for k in range(n))):
        batch = batch.to(device)
        hidden = model.hidden(batch.tokens, positions=batch.positions, documents=batch.documents)
        real = batch.targets != IGNORE
        bytes_of = token_lengths[batch.targets.where(real, 0)] * real
        special = real & (bytes_of == 0)
        nats += cross_entropy(hidden, model.head, batch.targets.masked_fill(special, IGNORE), "sum").item()
        special_nats += cross_entropy(hidden[special][None], model.head, batch.targets[special][None], "sum").item()
        tokens += batch.n_targets
        length += int(bytes_of.sum())
    model.train(training)
    nats, special_nats, tokens, length = ranks.sum(nats, special_nats, tokens, length)
    loss = (nats + special_nats) / max(1, tokens)
    return Evaluation(loss, math.exp(min(loss, 700.0)), nats / math.log(2) / max(1, length), tokens)
