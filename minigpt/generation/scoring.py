"""How likely does a model find a text? Log-probabilities, perplexity, and the best of several samples.

Shapes: B windows read at once, T tokens of a window, N scored tokens of all of them, C channels, V vocabulary.

    log p(text | prompt) = sum_t log p(x_t | x_<t)        perplexity = exp(-1/n sum_t log p(x_t | x_<t))

These are the model's own probabilities: temperature 1, no filter.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from operator import index

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation.checks import check_read, context_of
from minigpt.generation.generate import generate
from minigpt.generation.processors import BROKEN
from minigpt.generation.reader import evaluating, only_rows, row_aware
from minigpt.model import GPT

BATCH = 4096  # tokens read at a time, padding included
LOGITS = 1 << 24  # held at a time: 64 MiB in float32


@dataclass(frozen=True, slots=True)
class Score:
    """Natural logarithms of the probabilities of the scored tokens, in their order.

    >>> score = Score([math.log(0.5), math.log(0.125)])
    >>> round(math.exp(score.total), 6), round(score.perplexity, 6)
    (0.0625, 4.0)
    """

    logprobs: list[float]

    @property
    def total(self) -> float:
        """log p of all scored tokens together."""
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        """A token's: long and short texts compare."""
        return self.total / len(self.logprobs)

    @property
    def perplexity(self) -> float:
        """exp(-mean): as unsure as between so many equally likely tokens."""
        return math.exp(-self.mean) if self.mean > -700 else math.inf


def score(
    model: GPT, texts: Sequence[Sequence[int]], prompts: Sequence[int] | None = None, stride: int | None = None
) -> list[Score]:
    """The score of each text of token ids. Its first `prompts[i]` tokens (1 if not given) are read, not scored.

    The last token is scored but never read, so context + 1 tokens fit. A longer text raises `Error`, or with `stride`
    is read in windows that begin every `stride` tokens. Each window scores what the ones before did not; after the
    first, every token has at least context - stride tokens before it. A small stride is slow and near to what the
    model can do; stride = context cuts the text to pieces, and its perplexity is too high.

    Dropout is off meanwhile. Texts of unequal length are read together, which moves a number by about 1e-6.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> short, long = score(model, [[1, 2, 3], list(range(40))], prompts=[2, 1], stride=8)
    >>> len(short.logprobs), len(long.logprobs)
    (1, 39)
    """
    texts = [_text(model, text, place) for place, text in enumerate(texts)]
    prompts = _checked_prompts(texts, prompts)
    for place, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        if (highest := max(text[prompt:])) >= model.config.vocab_size:
            raise Error(f"text {place}: {highest} is a virtual token, which has no probability: count it to its prompt")
    for module in row_aware(model):  # one adapter for each text
        if len(module.rows) != len(texts):
            raise Error(f"the model was told of {len(module.rows)} rows, to score are {len(texts)} texts: name each")
    windows = _windows(texts, prompts, context_of(model), stride)
    logprobs = [[0.0] * len(text) for text in texts]
    for batch in _batches(windows):
        with evaluating(model), only_rows(model, [window.place for window in batch]):
            numbers = iter(_logprobs(model, texts, batch))
        for window in batch:
            for at in range(window.first, window.end + 1):
                logprobs[window.place][at] = next(numbers)
    return [Score(numbers[prompt:]) for numbers, prompt in zip(logprobs, prompts, strict=True)]


def best_of_n(
    model: GPT,
    prompt: Sequence[int],
    n: int,
    max_new_tokens: int = 64,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    by: str = "mean",
    **options,
) -> list[tuple[list[int], Score]]:
    """n samples of one prompt with their scores, best first: by "mean" log-probability of a token, or by "total".

    "total" favours short texts. `options` are those of `generate`; whatever they are, the score is the model's own.
    The same text may be drawn twice, and then is in the list twice.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> (best, high), (_, low) = best_of_n(model, [1, 2], n=2, max_new_tokens=5)
    >>> len(best), high.mean >= low.mean
    (5, True)
    """
    if by not in ("mean", "total"):
        raise Error(f'by is {by!r}: give "mean" or "total"')
    if not isinstance(n, int) or n < 1:
        raise Error(f"n is {n!r}: give a whole number of at least 1")
    prompt = list(prompt)
    written = generate(model, [prompt] * n, max_new_tokens, seed=seed, eos=eos, **options)
    texts, stride = [prompt + new for new in written], max(1, context_of(model) // 2)  # for overflow="slide"
    scores = score(model, texts, [len(prompt)] * n, stride)
    return sorted(zip(written, scores, strict=True), key=lambda pair: getattr(pair[1], by), reverse=True)


@dataclass(frozen=True, slots=True)
class _Window:
    place: int  # in the user's list
    start: int  # the tokens start .. end - 1 are read,
    end: int
    first: int  # and the tokens first .. end scored: token t by what the model says after token t - 1

    @property
    def length(self) -> int:
        return self.end - self.start


def _windows(texts: list[list[int]], prompts: list[int], context: int, stride: int | None) -> list[_Window]:
    if stride is not None and (not isinstance(stride, int) or not 1 <= stride <= context):
        raise Error(f"stride is {stride!r}: give a whole number from 1 to the model's context, {context}")
    windows = []
    for place, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        last = len(text) - 1
        if last > context and stride is None:
            raise Error(
                f"text {place} has {len(text)} tokens, the model can score {context + 1} (its context and one more): "
                f"shorten it, or give stride={max(1, context // 2)} to read it in overlapping windows"
            )
        start, scored = 0, prompt
        while scored <= last:
            end = min(start + context, last)
            if end >= scored:
                windows.append(_Window(place, start, end, scored))
                scored = end + 1
            start += stride or context
    return windows


def _batches(windows: list[_Window]) -> Iterator[list[_Window]]:
    """Windows of like length together: little padding, and about BATCH tokens."""
    waiting = sorted(windows, key=lambda window: window.length, reverse=True)
    while waiting:
        size = max(1, BATCH // waiting[0].length)
        yield waiting[:size]
        waiting = waiting[size:]


def _logprobs(model: GPT, texts: list[list[int]], batch: list[_Window]) -> list[float]:
    """log p of the scored tokens of the windows, one after the other. Logits: a chunk of places at a time."""
    device = next(model.parameters()).device
    longest = max(window.length for window in batch)
    tokens = torch.zeros(len(batch), longest, dtype=torch.int64)
    keep, scored = torch.zeros(2, len(batch), longest, dtype=torch.bool)
    targets = []
    for row, window in enumerate(batch):
        tokens[row, : window.length] = torch.tensor(texts[window.place][window.start : window.end])
        keep[row, : window.length] = True
        scored[row, window.first - 1 - window.start : window.length] = True
        targets += texts[window.place][window.first : window.end + 1]
    hidden = model.hidden(tokens.to(device), keep=None if keep.all() else keep.to(device))
    hidden, targets = hidden[scored.to(device)], torch.tensor(targets, device=device)  # (N, C), (N,)
    rows = max(1, LOGITS // model.config.vocab_size)
    chunks = [_chosen(model.head(h), target) for h, target in zip(hidden.split(rows), targets.split(rows), strict=True)]
    return torch.cat(chunks).tolist()


def _chosen(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(logits) at the targets, (N, V), (N,) -> (N,), in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    logprobs = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    if logprobs.isnan().any():
        raise Error(BROKEN)
    return logprobs


def _checked_prompts(texts: list[list[int]], prompts: Sequence[int] | None) -> list[int]:
    try:
        prompts = [1] * len(texts) if prompts is None else [index(prompt) for prompt in prompts]
    except TypeError:
        raise Error(f"prompts is {prompts!r:.60}: give a list of lengths, one for each text") from None
    if len(prompts) != len(texts):
        raise Error(f"prompts has {len(prompts)} lengths for {len(texts)} texts: give one for each")
    for place, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        if not 1 <= prompt < len(text):
            raise Error(
                f"text {place} has {len(text)} tokens, of which {prompt} are given: give at least 1 "
                "(the first token has nothing before it) and leave at least 1 to score"
            )
    return prompts


def _text(model: GPT, text: Sequence[int], place: int) -> list[int]:
    try:
        tokens = [index(token) for token in text]
    except TypeError:
        raise Error(f"text {place} is {text!r:.60}: give a list of token ids for each text") from None
    for token in (min(tokens, default=0), max(tokens, default=0)):
        check_read(model, token, f"text {place}")
    return tokens
