"""More than one process: who does what, and how their numbers become one. How they start is in launch.py.

    torchrun --nproc-per-node 4 train.py --accumulate 8                    every process holds the model
    torchrun --nproc-per-node 4 train.py --accumulate 8 --parallel fsdp    every process holds a quarter of each weight

R processes (ranks), r this one's number, M micro-batches a step. Micro-batches are numbered over the whole run, as in
one process, and dealt like cards: of those of a step, rank r takes r, r + R, r + 2R, ... Which rows a micro-batch has
and which dropout depends on its number alone. So the same options are the same step on any number of processes, up to
the rounding of a sum in another order:

    gradient of the step = sum over ranks ( sum over their micro-batches d losses ) / supervised tokens of all ranks

Three classes answer the same questions: `Alone` for a single process, `Replicated` (ddp), `Sharded` (fsdp, in
shards.py). The loop asks them; the model knows of none.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minigpt.corpus.batches import Batch
from minigpt.errors import Error

BUCKET_BYTES = 64 << 20  # gradients added at a time: what is copied for it


class Alone:
    """One process: nothing to share, nobody to wait for.

    >>> from minigpt.corpus.batches import Batches
    >>> batches = Batches(torch.arange(8).numpy(), context=3, batch_size=1, seed=0, shuffle=False)
    >>> [(place, batch.tokens.tolist()) for place, batch in Alone().deal(batches, [0, 2])]
    [(0, [[0, 1, 2]]), (1, [[6, 0, 0]])]
    """

    number, count = 0, 1

    @property
    def main(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.number == 0

    def deal(self, batches, numbers: Iterable[int]) -> Iterator[tuple[int, Batch]]:
        """This rank's share of the batches `numbers`, each with its place among them: all disjoint, together all.

        Every rank gets equally many, or sharded ones would wait for each other's layers: where a round lacks a
        batch it is a blank, which has rows but no target, and so no loss and a gradient of zero.
        """
        numbers = list(numbers)
        for first in range(0, len(numbers), self.count):
            place = first + self.number
            lacking = place >= len(numbers)
            yield place, batches[numbers[first]].blank() if lacking else batches[numbers[place]]

    def check(self, batch_size: int, accumulate: int):
        """Every rank must have something to do."""

    def first(self, make: Callable):
        """make(), by the main process before the others: they find what it left on the disk."""
        return make()

    def once(self, write: Callable[[int], str]) -> Callable[[int], str]:
        """A function that writes a text, on as many ranks as must take part in it."""
        return write

    def agree(self, number: int) -> int:
        """The main process's number, on all."""
        return number

    def sum(self, *numbers: float) -> list[float]:
        """Each of these numbers added over the ranks, in double precision; whole ones stay whole."""
        return list(numbers)

    def total(self, value: Tensor) -> Tensor:
        """A tensor added over the ranks."""
        return value

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers: a signal that one of them got stops them all after the same step."""
        return number

    def prepare(self, model: nn.Module):
        """Make the model ready for its ranks, before there is an optimizer."""

    def expect(self, model: nn.Module, last: bool):
        """Said before each micro-batch: only the last one of a step ends in an exchange."""

    def add_gradients(self, model: nn.Module):
        """The gradients of all ranks, added: once a step."""

    @contextmanager
    def writing(self, model: nn.Module) -> Iterator[bool]:
        """Inside, the model has its whole weights where the answer is True: there files are written, once."""
        yield True

    def save(self, weights, model: nn.Module, directory: Path):
        """`weights.save(directory)`, once."""
        with self.writing(model) as whole:
            if whole:
                weights.save(directory)

    def load(self, weights, model: nn.Module, directory: Path):
        """`weights.load(directory)`, which writes into the model's whole weights."""
        weights.load(directory)

    def settle(self, model: nn.Module):
        """Weights as the optimizer knows them, whatever ran last."""

    def gather(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Optimizer state by name, whole on the main process."""
        return state

    def spread(self, optimizer):
        """Whole states of the optimizer, as read from a file, to the form of their weights."""

    def log(self, run: Path, start: int, steps: int, tensorboard: bool):
        """The log of the run; of the main process only."""
        from minigpt.training.log import Log, Unheard

        return Log(run, start, steps, tensorboard) if self.main else Unheard(run, start)


ALONE = Alone()


class Replicated(Alone):
    """Every rank holds the whole model and learns from its share (data parallel, `--parallel ddp`)."""

    def __init__(self, device: torch.device):
        self.number, self.count, self.device = dist.get_rank(), dist.get_world_size(), device

    def check(self, batch_size: int, accumulate: int):
        if accumulate < self.count:
            rows, rest = divmod(batch_size * accumulate, self.count)
            same = f" (with --batch-size {rows} the step stays as large)" if rows and not rest else ""
            raise Error(
                f"--accumulate is {accumulate}, and its micro-batches are dealt to {self.count} processes: "
                f"give --accumulate {self.count} or more{same}"
            )

    def first(self, make: Callable):
        if not self.main:
            if self.sum(0)[0]:
                raise SystemExit(2)  # the main process says why
            return make()
        try:
            made = make()
        except BaseException:
            self.sum(1)
            raise
        self.sum(0)
        return made

    def once(self, write: Callable[[int], str]) -> Callable[[int], str]:
        return write if self.main else _nothing

    def agree(self, number: int) -> int:
        return self.sum(number if self.main else 0)[0]

    def sum(self, *numbers: float) -> list[float]:
        added = self.total(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return [type(number)(value) for number, value in zip(numbers, added, strict=True)]

    def total(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def most(self, number: int) -> int:
        value = torch.tensor(number)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def prepare(self, model: nn.Module):
        """All begin with the main process's weights: two kinds of processor may draw others from one seed."""
        with torch.no_grad():
            for weight in (*model.parameters(), *model.buffers()):  # a frozen base in four bits is made of buffers
                dist.broadcast(weight, 0)

    def add_gradients(self, model: nn.Module):
        """One `all_reduce` for every 64 MiB of gradients: the sum is the same on all ranks, bit for bit."""
        for bucket in buckets([weight.grad for weight in model.parameters() if weight.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    @contextmanager
    def writing(self, model: nn.Module) -> Iterator[bool]:
        with self._whole(model, self.main):
            yield self.main
        self.sum(0)  # nobody goes on to read what is still being written

    def load(self, weights, model: nn.Module, directory: Path):
        with self._whole(model, True, keep=True):
            weights.load(directory)

    def _whole(self, model: nn.Module, needed: bool, keep: bool = False):
        return nullcontext()


def buckets(tensors: list[Tensor], most: int = BUCKET_BYTES) -> Iterator[list[Tensor]]:
    """The tensors in order, as lists of one dtype, of up to `most` bytes or one tensor.

    >>> [len(bucket) for bucket in buckets([torch.zeros(3), torch.zeros(2), torch.zeros(9), torch.zeros(1)], 20)]
    [2, 1, 1]
    """
    bucket, size = [], 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > most or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _nothing(step: int) -> str:
    return ""
