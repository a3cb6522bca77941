"""A model that reads further than it was trained to: the same weights, positions stretched.

    rotary    another theta or a record in the config (see rope.py); no weight changes, and it can be undone
    learned   the table of T rows stretched to T':  row j is read off at j (T - 1) / (T' - 1), between two rows

Both ends of the table stay, so the longest text ends where it did. Then some training at the new length: a few dozen
steps mend what stretching does to short texts. Shorter is cropping: the first rows, the same logits.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt import rope
from minigpt.config import GPTConfig
from minigpt.context.options import ROPES
from minigpt.errors import Error, nearest
from minigpt.model import GPT


def extend(model: GPT, context: int, how: str = "yarn") -> GPT:
    """A model that reads `context` tokens, with the weights of `model` (not copied, but for a learned table).

    `how` is for rotary positions: yarn, ntk, dynamic, linear, llama3, or none to leave the angles as they are. What
    has been stretched is stretched further in the same way. A context below the model's crops.

    >>> from minigpt import presets
    >>> model = GPT(presets.llama_like(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> extend(model, 64).config.rope_scaling.factor
    4.0
    """
    config, weights = extended(model.config, context, how), dict(model.state_dict(keep_vars=True))
    if config.positions == "learned":
        name = "position_embedding.weight"
        table = weights[name]
        weights[name] = torch.nn.Parameter(stretch_table(table.detach(), context), requires_grad=table.requires_grad)
    with torch.device("meta"):
        longer = GPT(config)
    _adopt(longer, weights)
    return longer.train(model.training)


def extended(config: GPTConfig, context: int, how: str = "yarn") -> GPTConfig:
    """The config of such a model."""
    if how not in ROPES:
        raise Error(f"rope is {how!r}: {nearest(how, ROPES)}")
    if type(context) is not int or context < 1:
        raise Error(f"extend: context is {context!r}: give a whole number of tokens, at least 1")
    if config.positions == "learned" or context <= config.context or how == "none":
        return replace(config, context=context)
    before, times = config.rope_scaling, context / config.context
    if before is not None and before.kind != how:
        raise Error(
            f"this model's positions are stretched by {before.kind} already: go on with rope={before.kind!r}, or "
            "extend the model it was made from"
        )
    if how == "ntk":
        return replace(config, context=context, rope_theta=rope.ntk_theta(config.rope_theta, times, config.d_head))
    if how == "linear":
        factor = times if before is None else before.factor * times
        return replace(config, context=context, rope_scaling=rope.Linear(factor=factor))
    if before is None:
        before = rope.KINDS[how](factor=1.0, original=config.context)
    scaling = replace(before, factor=context / before.original)
    return replace(config, context=context, rope_scaling=scaling)


def endless(model: GPT, sinks: int = 4, window: int | None = None) -> GPT:
    """A model that reads and writes without end, with the weights of `model` (Xiao et al. 2023, StreamingLLM).

    Every layer sees the first `sinks` tokens and the last `window`, together by default as many as the context, and
    each as far away as that. What has left the window is forgotten: this is not a longer memory, but one that does not
    break. Without the first tokens, on which models lay attention they have no other use for, it does.

    >>> from minigpt import presets
    >>> model = GPT(presets.llama_like(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> endless(model)(torch.ones(1, 50, dtype=torch.int64)).shape
    torch.Size([1, 50, 100])
    """
    if model.config.positions != "rotary":
        raise Error("endless: a table of learned positions ends: this needs a model with rotary positions")
    window = model.config.context - sinks if window is None else window
    layers = tuple(range(model.config.n_layers))
    config = replace(model.config, window=window, banded_layers=layers, pattern="local", sinks=sinks)
    with torch.device("meta"):
        other = GPT(config)
    _adopt(other, dict(model.state_dict(keep_vars=True)))
    return other.train(model.training)


def stretch_table(table: Tensor, length: int) -> Tensor:
    """(T, C) -> (T', C), linear between rows, both ends kept; its first rows if T' is shorter.

    >>> stretch_table(torch.tensor([[0.0], [2.0]]), 5).flatten().tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    if length <= len(table):
        return table[:length].clone()
    stretched = F.interpolate(table.T[None].float(), length, mode="linear", align_corners=True)[0].T
    return stretched.to(table.dtype).contiguous()


def parse_length(text: str, context: int) -> int:
    """ "2x" or a number of tokens.

    >>> parse_length("2x", 256), parse_length("1.5x", 256), parse_length("1000", 256)
    (512, 384, 1000)
    """
    times = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if not times and not re.fullmatch(r"\d+", text):
        raise Error(f"the new context is {text!r}: give 2x, or a number of tokens, such as {2 * context}")
    return round(float(times[1]) * context) if times else int(text)


def _adopt(model: GPT, weights: Mapping[str, Tensor]):
    """Make these its parameters, whatever they are stored as; a head that is tied stays tied."""
    own = model.state_dict()
    if strange := own.keys() ^ weights.keys():
        raise Error(f"extend: {min(strange)} is not as GPT makes it: merge or detach the adapters first")
    for name, weight in weights.items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, weight)
