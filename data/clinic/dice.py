"""Chance that comes out the same everywhere.

Python promises that only `Random.random()` keeps its sequence between versions, so every draw here is built on it. The
seed is a string: a note's draws depend on its own name and not on how many draws other notes made before it.
"""

import random


class Dice:
    """A named stream of draws.

    >>> Dice("0/en-0001").integer(1, 6) == Dice("0/en-0001").integer(1, 6)
    True
    """

    def __init__(self, name):
        self._random = random.Random(str(name)).random

    def chance(self, p):
        """True with probability p."""
        return self._random() < p

    def between(self, low, high):
        """A float, uniform in [low, high)."""
        return low + (high - low) * self._random()

    def integer(self, low, high):
        """An integer, uniform in low..high, both ends included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, items):
        """One item."""
        return items[int(self._random() * len(items))]

    def some(self, items, low, high):
        """Between low and high different items, in the order in which they stand."""
        count = min(self.integer(low, high), len(items))
        left = list(range(len(items)))
        chosen = [left.pop(int(self._random() * len(left))) for _ in range(count)]
        return [items[i] for i in sorted(chosen)]

    def shuffled(self, items):
        """A new list with the same items in another order."""
        left = list(items)
        return [left.pop(int(self._random() * len(left))) for _ in range(len(items))]
