"""How good is a model at each place of a text, and on texts longer than it reads?

Shapes: N tokens of a text, T its context, S stride.

    by position   rows of T tokens from long texts; perplexity of tokens with n tokens before them, n in a bucket.
                  Flat or falling is right; a model that cannot read on rises at its end
    by stride     whole texts, read in windows that begin every S tokens; each token is scored once, with at least
                  T - S before it (but for the first window). S = T cuts texts to pieces, S = 1 is the model's best

One average hides both: a model that is good up to half its context and lost beyond has the mean of the two.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from minigpt.errors import Error
from minigpt.generation.scoring import score
from minigpt.model import GPT


@dataclass(frozen=True)
class Bucket:
    """Tokens with `start` to `end` - 1 tokens before them."""

    start: int
    end: int
    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats / self.tokens, 700.0)) if self.tokens else math.nan


def edges_of(length: int) -> list[int]:
    """Borders of buckets: halves of the rest, from the end.

    >>> edges_of(512)
    [1, 32, 64, 128, 256, 512]
    """
    edges = [length]
    while edges[0] // 2 >= 32 and len(edges) < 6:
        edges.insert(0, edges[0] // 2)
    return [1, *edges] if edges[0] > 1 else [1, 2]


def rows_of(texts: Iterable[Sequence[int]], length: int, most: int | None = None) -> list[list[int]]:
    """Rows of `length` tokens and the one that follows, one after the other from each text; what is left is dropped.

    >>> rows_of([range(10), range(3)], 4)
    [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    """
    texts = list(texts)
    rows = [list(text[start : start + length + 1]) for text in texts for start in range(0, len(text) - length, length)]
    if not rows:
        longest = max(map(len, texts), default=0)
        raise Error(
            f"no text has {length + 1} tokens, the longest {longest}: give longer ones, or ask for a context of "
            f"{max(1, longest - 1)} or less"
        )
    step = len(rows) / min(len(rows), most or len(rows))
    return [rows[int(n * step)] for n in range(round(len(rows) / step))]


def by_position(model: GPT, rows: Iterable[list[int]], edges: Sequence[int]) -> list[Bucket]:
    """Perplexity in the buckets between `edges`, over rows that are all longer than the last of them.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> [bucket.tokens for bucket in by_position(model, [list(range(17))], [1, 4, 16])]
    [3, 12]
    """
    nats, tokens = [0.0] * (len(edges) - 1), [0] * (len(edges) - 1)
    for row in rows:
        (found,) = score(model, [row[: edges[-1]]])  # logprobs[n - 1] is of the token with n before it
        for place, (start, end) in enumerate(pairwise(edges)):
            part = found.logprobs[start - 1 : end - 1]
            nats[place] -= math.fsum(part)
            tokens[place] += len(part)
    return [Bucket(start, end, *sums) for (start, end), *sums in zip(pairwise(edges), nats, tokens, strict=True)]


def by_stride(model: GPT, texts: Iterable[Sequence[int]], stride: int) -> Bucket:
    """All tokens of the texts but their first, each scored once."""
    nats, tokens = 0.0, 0
    for text in texts:
        (found,) = score(model, [text], stride=stride)
        nats -= found.total
        tokens += len(found.logprobs)
    return Bucket(1, 0, nats, tokens)
