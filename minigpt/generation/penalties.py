"""What the text so far does to the next token: pure functions of logits and histories, (N, V) -> (N, V).

Shapes: N rows, V vocabulary. z are the logits, or the log-probabilities of a beam. A row's history is its own tokens
and never padding, so a row is treated as if it were alone. A banned token gets -inf. Where nothing is to be done, the
logits come back as they are. Ids from V on, of soft prompts, are never written, so nothing is done to them.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor


class History(Protocol):
    """A row of text: its tokens, the first `prompt` of which were given and the others written."""

    tokens: list[int]
    prompt: int


def repetition(logits: Tensor, histories: Sequence[History], penalty: float) -> Tensor:
    """z / r where z >= 0 and z * r where z < 0, once for each token seen in the prompt or after (Keskar et al. 2019).

    r > 1 discourages: against every unseen token the odds of a seen one fall, or stay where z is 0. Among themselves
    seen tokens keep their order and may gain. The paper (section 4.1) always divides, which raises a negative z; this
    is transformers' form. It depends on where 0 is: logits and log-probabilities of the same model are changed
    differently.

    >>> from types import SimpleNamespace
    >>> repetition(torch.tensor([[4.0, -4.0, 4.0]]), [SimpleNamespace(tokens=[0, 1, 1], prompt=2)], 2.0).tolist()
    [[2.0, -8.0, 4.0]]
    """
    place = _index([_words(history.tokens, logits) for history in histories], logits.device)
    z = logits[place]
    return logits.index_put(place, torch.where(z < 0, z * penalty, z / penalty))


def frequency_and_presence(logits: Tensor, histories: Sequence[History], frequency: float, presence: float) -> Tensor:
    """z_v - c_v * frequency - [c_v > 0] * presence, where c_v counts v in what was written (OpenAI API reference).

    The prompt does not count. It is the same for logits and log-probabilities.

    >>> from types import SimpleNamespace
    >>> text = SimpleNamespace(tokens=[2, 0, 1, 1], prompt=1)
    >>> frequency_and_presence(torch.zeros(1, 3), [text], frequency=0.5, presence=2.0).tolist()
    [[-2.5, -3.0, 0.0]]
    """
    counts = [Counter(history.tokens[history.prompt :]) for history in histories]
    if not any(counts):
        return logits
    place = _index(counts, logits.device)
    c = logits.new_tensor(list(chain.from_iterable(count.values() for count in counts)))
    return logits.index_put(place, logits[place] - c * frequency - presence)


def no_repeat_ngram(logits: Tensor, histories: Sequence[History], n: int) -> Tensor:
    """Ban v iff the last n - 1 tokens followed by v already stand in prompt or text (Paulus et al. 2018, section 2.5).

    n = 1 bans every token seen.

    >>> from types import SimpleNamespace
    >>> no_repeat_ngram(torch.zeros(1, 3), [SimpleNamespace(tokens=[0, 2, 1, 0], prompt=1)], 2).tolist()
    [[0.0, 0.0, -inf]]
    """
    return _ban(logits, [_words(_completions(history.tokens, n), logits) for history in histories])


def _words(tokens: list[int], logits: Tensor) -> list[int]:
    """Those that have a logit."""
    return [token for token in tokens if token < logits.shape[-1]]


def _completions(tokens: list[int], n: int) -> list[int]:
    """The tokens that stood after an earlier occurrence of the last n - 1."""
    if len(tokens) < n:
        return []
    tokens = torch.tensor(tokens)
    windows = tokens.unfold(0, n, 1)
    return windows[(windows[:, :-1] == tokens[len(tokens) - n + 1 :]).all(-1), -1].tolist()


def banned(logits: Tensor, histories: Sequence[History], sequences: Collection[Sequence[int]]) -> Tensor:
    """Ban the last token of each sequence where the tokens before it are the end of the text.

    A sequence of one token is banned always. A sequence may begin in the prompt.

    >>> from types import SimpleNamespace
    >>> banned(torch.zeros(1, 4), [SimpleNamespace(tokens=[0, 2], prompt=1)], [(0,), (2, 1), (2, 2, 3)]).tolist()
    [[-inf, -inf, 0.0, 0.0]]
    """
    alone = [sequence[0] for sequence in sequences if len(sequence) == 1]
    longer = [sequence for sequence in sequences if len(sequence) > 1]
    return _ban(logits, [alone + [s[-1] for s in longer if _ends_with(row.tokens, s[:-1])] for row in histories])


def _ends_with(tokens: list[int], suffix: Sequence[int]) -> bool:
    return tokens[-1:] == [suffix[-1]] and tokens[-len(suffix) :] == list(suffix)  # the last alone decides most


def min_new_tokens(logits: Tensor, histories: Sequence[History], n: int, ends: Collection[int]) -> Tensor:
    """Ban every end token while fewer than n tokens are written: a text has at least n before its end token.

    >>> from types import SimpleNamespace
    >>> min_new_tokens(torch.zeros(1, 3), [SimpleNamespace(tokens=[0, 2], prompt=1)], 2, {1}).tolist()
    [[0.0, -inf, 0.0]]
    """
    return _ban(logits, [list(ends) if _written(history) < n else [] for history in histories])


def forced_first(logits: Tensor, histories: Sequence[History], token: int) -> Tensor:
    """Of a row with nothing written, 0 for this token and -inf for all others.

    >>> from types import SimpleNamespace
    >>> forced_first(torch.ones(1, 3), [SimpleNamespace(tokens=[0, 2], prompt=2)], 1).tolist()
    [[-inf, 0.0, -inf]]
    """
    return _force(logits, [_written(history) == 0 for history in histories], [token])


def force_end(logits: Tensor, histories: Sequence[History], max_new_tokens: int, ends: Collection[int]) -> Tensor:
    """Of a row with one token left to write, 0 for the end tokens and -inf for all others.

    0 is the logarithm of 1: the score of a beam stays as it is.

    >>> from types import SimpleNamespace
    >>> force_end(torch.ones(1, 3), [SimpleNamespace(tokens=[0, 2], prompt=1)], 2, {1}).tolist()
    [[-inf, 0.0, -inf]]
    """
    return _force(logits, [_written(history) >= max_new_tokens - 1 for history in histories], list(ends))


def _written(history: History) -> int:
    return len(history.tokens) - history.prompt


def _force(logits: Tensor, rows: list[bool], tokens: list[int]) -> Tensor:
    if not any(rows):
        return logits
    forced = torch.full_like(logits[0], -math.inf)
    forced[tokens] = 0.0
    return torch.where(torch.tensor(rows, device=logits.device)[:, None], forced, logits)


def _ban(logits: Tensor, tokens: Sequence[Collection[int]]) -> Tensor:
    """-inf at these tokens of each row."""
    if not any(tokens):
        return logits
    return logits.index_put(_index(tokens, logits.device), logits.new_tensor(-math.inf))


def _index(tokens: Sequence[Collection[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(row, token) of every token of every row, as one index of a (N, V) tensor."""
    rows = torch.arange(len(tokens)).repeat_interleave(torch.tensor([len(row) for row in tokens]))
    return rows.to(device), torch.tensor(list(chain.from_iterable(tokens)), dtype=torch.int64).to(device)
