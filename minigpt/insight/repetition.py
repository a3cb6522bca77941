"""How much a text repeats itself: what long samples of small models, and of GPT-2 and GPT-3, are weak at."""

from collections.abc import Sequence

from minigpt.errors import Error


def repeated(tokens: Sequence[int], n: int = 4) -> float:
    """The share of a text's n-grams that stood in it before: 1 - distinct / all. 0 for a text shorter than that.

    The text of a person has some: compare with a text of the same length and kind.

    >>> repeated([1, 2, 3, 1, 2, 3], n=2), repeated([1, 2, 3, 4], n=2)
    (0.4, 0.0)
    """
    if n < 1:
        raise Error(f"n is {n}: give at least 1, such as 4")
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
