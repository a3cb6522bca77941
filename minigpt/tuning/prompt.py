"""Prompt tuning (Lester et al. 2021): P vectors before the text learn, the model does not.

Shapes: P virtual tokens, C channels (d_model), V vocabulary.

    h_0 = [E; W_e x] + positions        E (P, C), the only thing that learns: P C numbers

GPT-2 small with P = 20: 15,360, 0.0123 % of the model. The vectors are rows after the embedding's (extended.py), so a
prompt is ids before a text:

    prompt.attach(model, prompt.PromptConfig(length=20));   fit on prompt.prepend(model, batch)
    generate(model, [prompt.with_prompt(model, text) for text in texts])
    prompt.save(model, "prompts/radiology");   prompt.load(model, "prompts/radiology", name="radiology")

There is no `use`: the ids of a row say which prompt it has, and rows without any are the base's (see __init__.py).

Traps. A prompt of learned positions moves the text (virtual.py, `unshifted`). Weight decay must not pull at the
vectors: the parameter is called `table`. overflow="slide" forgets the prompt with the rest. Keep dropout as you would
tune anything else: peft leaves it on. A learning rate of 0.3 is usual (Lester), 1e-3 too low by far.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import prompt_files
from minigpt.tuning.extended import check_name, detach, evaluated, hold, ids, learn, names, report, rows_of
from minigpt.tuning.report import Report
from minigpt.tuning.virtual import own_positions, prepend, rows, unshifted, with_prompt

__all__ = [
    "PromptConfig", "Table", "attach", "detach", "ids", "learn", "load", "names", "own_positions", "prepend", "rows",
    "save", "unshifted", "with_prompt",
]  # fmt: skip

STARTS = ("vocabulary", "uniform", "text", "labels")


@dataclass(frozen=True)
class PromptConfig:
    """How long a prompt is and what it starts from (Lester et al., section 3.2).

    vocabulary   rows of `length` different tokens, drawn from the first `among` ids: in a byte-pair vocabulary the
                 earliest merges, about the commonest tokens
    uniform      U[-scale, scale). The paper's 0.5 is for T5; GPT-2's embedding has a deviation of 0.02 fresh, 0.14
                 trained. (Their code draws from U[0, 0.5), peft from N(0, 1).)
    text         the rows of `text`, ids as the tokenizer makes them, repeated or cut to `length`
    labels       row i is the mean over the tokens of `labels[i]`; the rest as "vocabulary"
    """

    length: int = 20
    start: str = "vocabulary"
    text: tuple[int, ...] = ()
    labels: tuple[tuple[int, ...], ...] = ()
    scale: float = 0.5
    among: int = 5000
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "text", tuple(self.text))
        object.__setattr__(self, "labels", tuple(map(tuple, self.labels)))
        if self.start not in STARTS:
            raise Error(f"PromptConfig.start is {self.start!r}: {nearest(str(self.start), STARTS)}")
        for name in ("length", "among"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise Error(f"PromptConfig.{name} is {value!r}: give a whole number of at least 1")
        if not isinstance(self.scale, int | float) or not 0 < self.scale < float("inf"):
            raise Error(f"PromptConfig.scale is {self.scale!r}: give a number above 0")
        for name in ("text", "labels"):
            given = getattr(self, name)
            if bool(given) != (self.start == name):
                raise Error(f"PromptConfig: start is {self.start!r} and {name} has {len(given)} items: give both")
        if not all(self.labels) or len(self.labels) > self.length:
            raise Error(f"PromptConfig.labels: {len(self.labels)} labels for {self.length} rows, each of at least 1 id")


Config = PromptConfig  # as every method calls it


class Table(nn.Module):
    """Rows that are themselves what learns, (P, C). `config` says what they came from."""

    def __init__(self, table: Tensor, config):
        super().__init__()
        self.table, self.config = nn.Parameter(table), config

    def forward(self) -> Tensor:
        return self.table


def attach(model: GPT, config: PromptConfig | None = None, name: str = "default") -> Report:
    """A new prompt under `name`; it learns, base and other prompts do not (see `learn`), other methods as before.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> print(attach(model, PromptConfig(length=5)))
    trains 160 of 16,640 (0.9615 %), stores 640 bytes
    """
    config = config or PromptConfig()
    check_name(model, name)
    check_length(model, config.length)
    hold(model, name, Table(start(model.token_embedding.weight, config), config))
    learn(model, name)
    return report(model, name)


def check_length(model: GPT, length: int):
    if length >= model.config.context:
        raise Error(f"{length} virtual tokens leave no room in the context of {model.config.context}: give fewer")


def start(weight: Tensor, config: PromptConfig) -> Tensor:
    """The table (P, C) a prompt starts from, float32 at least; drawn from the seed alone."""
    weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    generator, shape = torch.Generator().manual_seed(config.seed), (config.length, weight.shape[1])
    if config.start == "uniform":
        return (torch.rand(shape, generator=generator) * 2 - 1).mul(config.scale).to(weight)
    for token in (*config.text, *(token for label in config.labels for token in label)):
        if type(token) is not int or not 0 <= token < len(weight):
            raise Error(f"PromptConfig: token {token!r} is not in the model's vocabulary of {len(weight)} tokens")
    if config.start == "text":
        repeated = config.text * -(-config.length // len(config.text))
        return weight[list(repeated[: config.length])]
    wanted, known = config.length - len(config.labels), min(config.among, len(weight))
    if wanted > known:
        raise Error(f"PromptConfig: {wanted} different tokens are to be drawn from {known}: lower length, raise among")
    drawn = weight[torch.randperm(known, generator=generator)[:wanted].to(weight.device)]
    return torch.cat([*(weight[list(label)].mean(0, keepdim=True) for label in config.labels), drawn])


def save(model: GPT, directory: str | Path, name: str = "default", base: str = "", shift: bool | None = None) -> None:
    """Write a prompt in PEFT's format; `base` is the name of the model it belongs to.

    `shift` False notes that it was tuned `unshifted`, which PEFT does not know of; None: what a loaded one says.
    """
    values = {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}  # how it began: nothing is drawn at loading
    values |= prompt_files.shifted(model, name, shift)
    prompt_files.write(model, directory, evaluated(rows_of(model, name)), values, base)


def load(model: GPT, directory: str | Path, name: str = "default", trainable: bool = False) -> Report:
    """Hold a stored prompt, ours or PEFT's; on `Error` nothing has changed. P-tuning's is the same table: it loads too.

    The base is frozen, and the prompt unless `trainable`.
    """
    check_name(model, name)
    values, table = prompt_files.read(model, directory, ("PROMPT_TUNING", "P_TUNING"))
    hold(model, name, Table(table, None).requires_grad_(trainable), values.get("minigpt_shift", True))
    if trainable:
        learn(model, name)
    return report(model, name)
