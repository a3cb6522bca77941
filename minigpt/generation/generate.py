"""A model and prompts in, new tokens out: greedy or sampled, many prompts of unequal length, many texts of a prompt.

Shapes: N rows still being written, V vocabulary.

    while rows are unfinished:   logits after the last token of each row -> choose a token a row -> read it

Prompts of unequal length stand flush right; padding to their left is masked and takes no position, so a row is
written as if it were alone. Rows that begin with the same prompt share its cache. A finished row leaves the batch.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from minigpt.errors import Error
from minigpt.generation.checks import check_prompt, context_of, end_tokens, make_sampler
from minigpt.generation.compiled import kind_of_reader
from minigpt.generation.reader import Memory, Reader, row_aware
from minigpt.generation.sampling import Sampler, row_generator
from minigpt.model import GPT


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    use_cache: bool = True,
    compile: bool = False,
    overflow: str = "stop",
    row: int = 0,
    **sampling,
) -> list[list[int]]:
    """The new tokens of each prompt; the last one is an `eos` where the row ended with one.

    A row ends at an `eos` (one id or several), after `max_new_tokens`, or when the context is full: a token is
    written as long as all before it fit the context, so len(prompt) + len(new) <= context + 1. With
    overflow="slide" it goes on: whenever the context is full, the oldest half of it is forgotten (see `visible`).

    temperature=0 is greedy. Otherwise prompt i draws from its own stream, made from (seed, row + i): it depends on its
    tokens, seed and number alone, not on its neighbours, the cache or the global random state. Same PyTorch, same kind
    of CPU: same tokens, up to the rounding of logits, which differ by about 1e-6 with the shape of a batch.
    `sampling` are further fields of `Sampler`: min_p, repetition_penalty, banned, ...

    The model may be in training mode: dropout is off meanwhile, and back on afterwards. `use_cache=False` reads
    everything again at each step, slowly; same tokens. `compile=True` gives each step to torch.compile, for 64, 128,
    256, ... entries once (see compiled.py): the same tokens too, after half a minute or so of compiling. n texts of
    one prompt are `[prompt] * n`: it is read once.
    Raises `Error` for an empty prompt, one longer than the context, ids outside the vocabulary and values out of range.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> [len(new) for new in generate(model, [[1, 2, 3], [4]], max_new_tokens=5)]
    [5, 5]
    """
    ends = end_tokens(model, eos)
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens}
    sampler = make_sampler(ends=ends, **chosen, **sampling)
    slide = _slides(overflow)
    rows = [_row(model, prompt, place, row, max_new_tokens, seed, slide) for place, prompt in enumerate(prompts)]
    written = [[] for _ in rows]
    for new in _decode(model, rows, sampler, ends, kind_of_reader(use_cache, compile)):
        for place, token in new:
            written[place].append(token)
    return written


def stream(
    model: GPT,
    prompt: Sequence[int],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    row: int = 0,
    overflow: str = "stop",
    memory: Memory | None = None,
    **sampling,
) -> Iterator[int]:
    """The new tokens of one prompt as they are made: those of `generate` with this prompt at place `row`.

    Between two tokens the model is as the caller left it, training mode included. Arguments are checked at the call.
    With a `memory` from the call before, only what is new of the prompt is read.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> list(stream(model, [1, 2], 3, seed=7)) == generate(model, [[1, 2]], 3, seed=7)[0]
    True
    """
    ends = end_tokens(model, eos)
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens}
    sampler = make_sampler(ends=ends, **chosen, **sampling)
    rows = [_row(model, prompt, 0, row, max_new_tokens, seed, _slides(overflow))]
    return (token for ((_, token),) in _decode(model, rows, sampler, ends, memory=memory))


def visible(tokens: list[int], context: int) -> list[int]:
    """What of a text longer than the context is read: all but the oldest half contexts that had to be forgotten.

    A matter of the text's length alone, so it is the same with a cache and without.

    >>> [visible(list(range(n)), 4) for n in (4, 5, 6, 7)]
    [[0, 1, 2, 3], [2, 3, 4], [2, 3, 4, 5], [4, 5, 6]]
    """
    half = max(1, context // 2)
    return tokens[half * -(-max(0, len(tokens) - context) // half) :]


@dataclass(slots=True)
class Row:
    """A text being written."""

    place: int  # in the user's list
    tokens: list[int]  # the prompt and what was written
    prompt: int  # how many of them are the prompt
    limit: int  # how many tokens it may become
    generator: Generator | None = None


def _decode(
    model: GPT, rows: list[Row], sampler: Sampler, ends: frozenset[int], reader: type = Reader, memory=None
) -> Iterator[list[tuple[int, int]]]:
    """A step at a time: (place, new token) of every unfinished row."""
    batch = None
    while rows:
        if batch is None or batch.slid(rows):
            batch = _Batch(model, rows, reader, memory)
        logits = batch.logits(rows)
        new = sampler.choose(logits, [row.generator for row in rows], rows).tolist()
        for row, token in zip(rows, new, strict=True):
            row.tokens.append(token)
        yield [(row.place, row.tokens[-1]) for row in rows]
        rows = [row for row in rows if row.tokens[-1] not in ends and len(row.tokens) < row.limit]


class _Batch:
    """Rows as branches of a reader: those that begin with the same text share its prompt."""

    def __init__(self, model: GPT, rows: list[Row], reader: type, memory: Memory | None):
        self.context = context_of(model)
        apart = bool(row_aware(model))  # then rows of the same text may have another adapter each
        alike: dict[tuple, list[Row]] = {}
        for row in rows:
            text = visible(row.tokens, self.context)
            alike.setdefault((tuple(text), row.place if apart else None), []).append(row)
        self.texts, self.groups = [list(text) for text, _ in alike], list(alike.values())
        self.hidden = {row.place: self._hidden(row) for row in rows}
        places = [group[0].place for group in self.groups]
        self.reader = memory or reader(model, places, self._room())
        self.branch = {}  # place of a row -> its branch in the reader, once they have branched

    def slid(self, rows: list[Row]) -> bool:
        """Whether a row sees less of its text than when this began: then all is to be read anew."""
        return any(self._hidden(row) != self.hidden[row.place] for row in rows)

    def logits(self, rows: list[Row]) -> Tensor:
        """After the last token of each row, which are those of the last call or fewer: (N, V)."""
        if not self.branch:
            self.branch = dict.fromkeys(self.hidden, 0)
            logits = self.reader.start(self.texts)
            order = {row.place: i for i, group in enumerate(self.groups) for row in group}
            return logits[[order[row.place] for row in rows]]
        live = {row.place for row in rows}
        groups = [[row for row in group if row.place in live] for group in self.groups]
        if not all(groups):
            self.reader.select([i for i, group in enumerate(groups) if group])
        self.groups = [group for group in groups if group]
        return self._step(rows)

    def _step(self, rows: list[Row]) -> Tensor:
        width = max(map(len, self.groups))
        idle = [[0] * (width - len(group)) for group in self.groups]  # branches that nobody reads
        tokens = [[row.tokens[-1] for row in group] + more for group, more in zip(self.groups, idle, strict=True)]
        parents = [
            [self.branch[row.place] for row in group] + more for group, more in zip(self.groups, idle, strict=True)
        ]
        logits = self.reader.step(tokens, parents)
        at = {row.place: (i, k) for i, group in enumerate(self.groups) for k, row in enumerate(group)}
        self.branch = {place: k for place, (_, k) in at.items()}
        which, branches = zip(*(at[row.place] for row in rows), strict=True)
        return logits[list(which), list(branches)]

    def _hidden(self, row: Row) -> int:
        return len(row.tokens) - len(visible(row.tokens, self.context))

    def _room(self) -> int:
        """Entries that the branches will write: at each step as many as the widest prompt has rows left."""
        left = [
            [min(row.limit - len(row.tokens) - 1, self.context - len(text)) for row in group]
            for text, group in zip(self.texts, self.groups, strict=True)
        ]
        steps = max(map(max, left))
        return sum(max(sum(more > step for more in group) for group in left) for step in range(steps))


def _slides(overflow: str) -> bool:
    if overflow not in ("stop", "slide"):
        raise Error(f"overflow is {overflow!r}: give 'stop' to end where the context is full, or 'slide' to forget")
    return overflow == "slide"


def _row(model: GPT, prompt, place: int, first: int, max_new_tokens: int, seed: int, slide: bool) -> Row:
    tokens = check_prompt(model, prompt, place, max_new_tokens)
    limit = len(tokens) + max_new_tokens
    if not slide:
        limit = min(limit, context_of(model) + 1)
    return Row(place, tokens, len(tokens), limit, row_generator(seed, first + place))
