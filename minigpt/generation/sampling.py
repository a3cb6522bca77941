"""How the next token is chosen, and where its randomness comes from.

Shapes: B batch, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minigpt.errors import Error
from minigpt.generation import processors

SEEDS = 2**32  # PyTorch's CPU generator uses no more bits of a seed
STRIDE = 0x9E3779B1  # 2^32 / golden ratio: odd, so all rows of a seed differ, and far from small seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """temperature, top-k and top-p, checked; temperature 0 is greedy.

    >>> Sampler(temperature=0).choose(torch.tensor([[1.0, 3.0, 3.0]]), [row_generator(0, 0)]).tolist()
    [1]
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not isinstance(self.temperature, (int, float)) or not 0 <= self.temperature < float("inf"):
            raise Error(f"temperature is {self.temperature!r}: give 0 (greedy) or a positive number, such as 0.8")
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise Error(f"top_k is {self.top_k!r}: give a whole number of at least 1, or None to keep every token")
        if self.top_p is not None and (not isinstance(self.top_p, (int, float)) or not 0 < self.top_p <= 1):
            raise Error(f"top_p is {self.top_p!r}: give a number above 0 and at most 1, or None to keep every token")

    def probabilities(self, logits: Tensor) -> Tensor:
        """softmax of what the filters leave, (B, V) -> (B, V) float32. Only for temperature > 0."""
        logits = processors.temperature(logits.float(), self.temperature)
        if self.top_k is not None:
            logits = processors.top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = processors.top_p(logits, self.top_p)
        return logits.softmax(-1)

    def choose(self, logits: Tensor, generators: list[Generator]) -> Tensor:
        """The next token of each row, (B, V) -> (B,) int64. Greedy takes the lowest id of equal logits."""
        if not logits.amax(-1).isfinite().all():
            raise Error("the model's logits are NaN or infinite: its weights are damaged, or its training diverged")
        if self.temperature == 0:
            return logits.argmax(-1)
        return draw(self.probabilities(logits), generators)


def draw(probabilities: Tensor, generators: list[Generator]) -> Tensor:
    """One token v of each row with probability p_v, (B, V) -> (B,): an exponential race.

        v = argmax p_v / e_v,   e_v ~ Exp(1)

    since min_v e_v / p_v falls on v with probability p_v / sum p. The same noise as torch.multinomial, so one row
    equals transformers' sampling from the same generator. Each row takes V numbers from its own generator, always
    on the CPU: what a row draws depends neither on its neighbours nor on the device.
    """
    noise = [torch.empty(probabilities.shape[-1]).exponential_(generator=generator) for generator in generators]
    return (probabilities / torch.stack(noise).to(probabilities.device)).argmax(-1)


def row_generator(seed: int, row: int) -> Generator:
    """The random stream of the prompt at place `row` of the user's list; row 0 is `manual_seed(seed)`."""
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise Error(f"seed is {seed!r}: give a whole number from 0 to {SEEDS - 1}")
    return Generator().manual_seed((seed + row * STRIDE) % SEEDS)
