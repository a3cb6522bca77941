"""What everyone who writes text asks of prompts, end tokens and options."""

import sys
from collections.abc import Collection, Sequence
from operator import index

from minigpt.errors import Error, nearest
from minigpt.generation.sampling import Sampler
from minigpt.model import GPT


def make_sampler(**fields) -> Sampler:
    """A Sampler; `Error` for a field it has not."""
    for name in fields.keys() - Sampler.__dataclass_fields__.keys():
        raise Error(f"there is no option {name!r}: {nearest(name, Sampler.__dataclass_fields__)}")
    return Sampler(**fields)


def context_of(model: GPT) -> int:
    """How many tokens of text the model reads: all its positions, but those that virtual tokens take (see tuning/).

    With sinks there is no end to it.
    """
    if model.config.endless:
        return sys.maxsize
    return max(0, model.config.context - getattr(model.hidden, "taken", 0))


def check_prompt(model: GPT, prompt: Sequence[int], place: int, max_new_tokens: int) -> list[int]:
    """The prompt as a list of ids of the model's; or `Error`."""
    context = context_of(model)
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise Error(f"max_new_tokens is {max_new_tokens!r}: give a whole number of at least 1")
    try:
        tokens = [index(token) for token in prompt]
    except TypeError:
        raise Error(f"prompt {place} is {prompt!r:.60}: give a list of token ids for each prompt") from None
    if not tokens:
        raise Error(f"prompt {place} is empty: begin with at least one token, such as the end-of-text token")
    if len(tokens) > context:
        raise Error(f"prompt {place} has {len(tokens)} tokens, the model's context holds {context}: shorten it")
    for token in tokens:
        check_read(model, token, f"prompt {place}")
    return tokens


def end_tokens(model: GPT, eos: int | Collection[int] | None) -> frozenset[int]:
    """The ids that end a row."""
    if eos is None:
        return frozenset()
    ends = frozenset(map(index, eos)) if isinstance(eos, Collection) else frozenset([index(eos)])
    for token in ends:
        _check_id(model, token, "eos")
    return ends


def check_read(model: GPT, token: int, where: str):
    """`Error` if the model cannot read this id: it is neither a token nor a virtual one of a prompt it holds."""
    knows = getattr(model.token_embedding, "knows", None)  # see tuning/extended.py
    if token < model.config.vocab_size or knows is None or not knows(token):
        _check_id(model, token, where)


def _check_id(model: GPT, token: int, where: str):
    if not 0 <= token < model.config.vocab_size:
        raise Error(f"{where}: token {token} is not in the model's vocabulary of {model.config.vocab_size} tokens")
