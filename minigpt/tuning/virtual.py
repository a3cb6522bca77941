"""Virtual tokens put to texts and batches, and where they stand.

Shapes: B rows, T time, P virtual tokens.

    shift       virtual 0 .. P-1, text P .. P+n-1          as in peft; they take room and positions of the context
    shift=False virtual 0 .. P-1, text 0 .. n-1            the text stands where the base learned to read it

Learned positions are added to the prompt and to the text, and a base that always saw a text begin at position 0 reads
one that begins at P badly, the more so the smaller it is. Rotary positions are distances, which a shift leaves alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.corpus.batches import Batch
from minigpt.errors import Error
from minigpt.loss import IGNORE
from minigpt.model import GPT
from minigpt.tuning.extended import ids


class Unshifted(nn.Module):
    """Learned positions for rows that begin with P virtual tokens: p if p < P, else p - P. `weight` is the base's.

    `rows` says P for each row, if they differ; generation/reader.py knows the word.
    """

    def __init__(self, base: nn.Embedding, length: int, rows: tuple[int, ...] | None = None):
        super().__init__()
        self.weight, self.length, self.rows = base.weight, length, rows

    def forward(self, positions: Tensor) -> Tensor:
        first = self.length if self.rows is None else torch.tensor(self.rows, device=positions.device)[:, None]
        return F.embedding(torch.where(positions < first, positions, positions - first), self.weight)


@contextmanager
def unshifted(model: GPT, name: str = "default") -> Iterator[None]:
    """Inside, texts after this prompt keep their own positions: in training, evaluation and decoding alike.

    Every row must begin with the prompt, or with another of its length; `with_prompt` and `prepend` see to it. The
    context still holds P + n tokens. For rows that differ see `rows`; for scattered prompts give `own_positions` to the
    model, in training.
    """
    base = unshift(model, name)
    try:
        yield
    finally:
        model.position_embedding = base


def unshift(model: GPT, name: str = "default") -> nn.Module:
    """The same from now on; returns the positions of before, to be put back."""
    length, base = len(ids(model, name)), _learned_positions(model)
    model.position_embedding = Unshifted(base, length)
    return base


@contextmanager
def rows(model: GPT, names: Sequence[str | None]) -> Iterator[None]:
    """Inside, row b of every batch begins with the prompt names[b], or none: `with_prompt` puts it there, as ids.

    All there is to do is for prompts that were stored as unshifted: their texts keep their own positions.
    """
    known = [ids(model, name) if name is not None else [] for name in names]
    apart = getattr(model.token_embedding, "unshifted", ())
    lengths = tuple(len(each) if name in apart else 0 for each, name in zip(known, names, strict=True))
    if not any(lengths):
        yield
        return
    base = _learned_positions(model)
    model.position_embedding = Unshifted(base, lengths[0], lengths if len(set(lengths)) > 1 else None)
    try:
        yield
    finally:
        model.position_embedding = base


def own_positions(model: GPT, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
    """For `model(tokens, positions=...)`: virtual tokens and text are counted apart, (B, T) -> (B, T) int64.

    `keep` (B, T) bool is False at padding, which takes no position.
    """
    _learned_positions(model)
    virtual = tokens >= model.config.vocab_size
    text = ~virtual if keep is None else ~virtual & keep
    return torch.where(virtual, virtual.cumsum(-1), text.cumsum(-1)).sub(1).clamp(min=0)


def _learned_positions(model: GPT) -> nn.Embedding:
    if model.config.positions != "learned":
        raise Error("shift=False is for learned positions; rotary ones are distances, which a prompt does not change")
    if isinstance(model.position_embedding, Unshifted):
        raise Error("the positions are unshifted already: leave `unshifted` first")
    return model.position_embedding


def with_prompt(model: GPT, tokens: Sequence[int], name: str | None = "default") -> list[int]:
    """The prompt's ids and the text's, for `generate` and its like; name None: the text alone.

    >>> from minigpt import GPTConfig
    >>> from minigpt.tuning import prompt
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> report = prompt.attach(model, prompt.PromptConfig(length=3))
    >>> with_prompt(model, [7, 8])
    [100, 101, 102, 7, 8]
    """
    virtual = [] if name is None else ids(model, name)
    place = getattr(model, "position_embedding", None)
    if isinstance(place, Unshifted) and place.rows is None and len(virtual) != place.length:
        raise Error(
            f"positions are unshifted by {place.length}, but {name!r} has {len(virtual)} virtual tokens: "
            "rows read together must then begin with as many"
        )
    check_room(model, len(virtual), len(tokens))
    return virtual + list(tokens)


def check_room(model: GPT, virtual: int, text: int):
    """`Error` if the two do not fit the context together."""
    if virtual + text > (context := model.config.context) and not model.config.endless:
        raise Error(
            f"{virtual} virtual tokens and a text of {text} are {virtual + text}, the context holds {context}: "
            f"shorten the text to {max(0, context - virtual)} tokens"
        )


def prepend(model: GPT, batch: Batch, name: str | None | Sequence[str | None] = "default", shift: bool = True) -> Batch:
    """A training batch whose rows begin with a prompt: all with the same, or each with its own (or None).

    (B, T) -> (B, P + T) for the longest P. Virtual tokens have no target. Shorter rows are padded on the right, where
    no token with a target looks. With shift=False the batch gets `own_positions`.
    """
    if batch.documents is not None:
        raise Error("a row of packed documents has one beginning for all: put the prompt into each before packing")
    rows = [name] * len(batch.tokens) if name is None or isinstance(name, str) else list(name)
    if len(rows) != len(batch.tokens):
        raise Error(f"{len(rows)} prompts are named for a batch of {len(batch.tokens)} rows: name one for each")
    tokens = [with_prompt(model, row, name) for row, name in zip(batch.tokens.tolist(), rows, strict=True)]
    time, width = batch.tokens.shape[1], max(map(len, tokens))
    targets = torch.full((len(rows), width), IGNORE, device=batch.targets.device)
    for row, (read, target) in enumerate(zip(tokens, batch.targets, strict=True)):
        targets[row, len(read) - time : len(read)] = target
    read = torch.tensor([row + [0] * (width - len(row)) for row in tokens], device=batch.tokens.device)
    return Batch(read, targets, None if shift else own_positions(model, read), None, batch.n_targets)
