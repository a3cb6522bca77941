"""Span corruption (Raffel et al. 2020, section 3.1.4), and the same task for a model that reads left to right only.

    text         Thank you for inviting me to your party last week
    corrupted    Thank you <X> me to your party <Y> week             spans are gone, a sentinel stands for each
    target       <X> for inviting <Y> last <Z>                       what was there; one more sentinel ends it

An encoder-decoder reads the corrupted text and writes the target. A decoder has one string for both:

    infilling    corrupted <sep> target

Every token of it can be predicted, but the loss is asked for after <sep> only where T5's is to be matched. Tokens may
be ids, or words as here: nothing is done with them but to move them.
"""

import random
from collections.abc import Sequence

from minigpt.errors import Error

Span = tuple[int, int]  # first place, and the one after the last


def corrupt(tokens: Sequence, spans: Sequence[Span], sentinels: Sequence) -> tuple[list, list]:
    """The corrupted text and its target. Spans in order, apart from each other; one sentinel more than spans.

    >>> words = "Thank you for inviting me to your party last week".split()
    >>> [" ".join(part) for part in corrupt(words, [(2, 4), (8, 9)], ["<X>", "<Y>", "<Z>"])]
    ['Thank you <X> me to your party <Y> week', '<X> for inviting <Y> last <Z>']
    """
    if len(sentinels) <= len(spans):
        raise Error(f"{len(spans)} spans take {len(spans) + 1} sentinels, found {len(sentinels)}: give one for each")
    if used := set(tokens) & set(sentinels):
        raise Error(f"the text holds the sentinel {min(used)!r}: give sentinels that no text has")
    corrupted, target, end = [], [], 0
    for place, ((first, after), sentinel) in enumerate(zip(spans, sentinels, strict=False)):
        if not (end <= first < after <= len(tokens)) or (place and first == end):
            raise Error(f"span {place} is {(first, after)!r}: give spans of {len(tokens)} tokens in order, with a gap")
        corrupted += [*tokens[end:first], sentinel]
        target += [sentinel, *tokens[first:after]]
        end = after
    return corrupted + list(tokens[end:]), [*target, sentinels[len(spans)]]


def restore(corrupted: Sequence, target: Sequence, sentinels: Sequence) -> list:
    """The text again: what `corrupt` took away is put where it was.

    >>> restore("a <X> d".split(), "<X> b c <Y>".split(), ["<X>", "<Y>"])
    ['a', 'b', 'c', 'd']
    """
    missing, sentinel = {}, None
    for token in target:
        if token in sentinels:
            sentinel = token
            missing[sentinel] = []
        elif sentinel is None:
            raise Error(f"the target begins with {token!r}, expected a sentinel")
        else:
            missing[sentinel].append(token)
    found = []
    for token in corrupted:
        if token in sentinels and token not in missing:
            raise Error(f"the corrupted text has the sentinel {token!r}, the target does not")
        found += missing[token] if token in sentinels else [token]
    return found


def infilling(corrupted: Sequence, target: Sequence, separator) -> list:
    """Both as the string a decoder learns from.

    >>> " ".join(infilling("a <X> d".split(), "<X> b c <Y>".split(), "<sep>"))
    'a <X> d <sep> <X> b c <Y>'
    """
    return [*corrupted, separator, *target]


def draw(length: int, rng: random.Random, rate: float = 0.15, mean: float = 3.0) -> list[Span]:
    """Spans to take from a text of `length` tokens: a share `rate` of them, `mean` long on average; T5's 15 % and 3.

    The number of tokens taken and of spans is fixed by the length, where they are is random; a span never comes first.

    >>> spans = draw(20, random.Random(0), rate=0.3)
    >>> len(spans), sum(after - first for first, after in spans)
    (2, 6)
    """
    if length < 2 or not 0 < rate < 1 or mean < 1:
        raise Error(f"draw: length {length} must be at least 2, rate {rate} between 0 and 1, mean {mean} at least 1")
    taken = min(max(round(length * rate), 1), length - 1)
    count = min(max(round(taken / mean), 1), taken, length - taken)
    gaps, sizes = _parts(length - taken, count, rng), _parts(taken, count, rng)
    spans, end = [], 0
    for gap, size in zip(gaps, sizes, strict=True):
        spans.append((end + gap, end + gap + size))
        end += gap + size
    return spans


def _parts(total: int, count: int, rng: random.Random) -> list[int]:
    """`total` as a sum of `count` whole numbers of at least 1, each sum as likely as another."""
    cuts = [0, *sorted(rng.sample(range(1, total), count - 1)), total]
    return [b - a for a, b in zip(cuts, cuts[1:], strict=False)]
