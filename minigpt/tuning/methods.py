"""The methods of minigpt/tuning as the seam of method.py: `make` is the registry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import Error
from minigpt.inputs import N_WORDS, TaskBatch
from minigpt.model import GPT
from minigpt.tuning import adapter, freeze, prefix, prompt, ptuning
from minigpt.tuning.method import Method
from minigpt.tuning.options import LENGTHS, BottleneckConfig, PartConfig, VirtualConfig
from minigpt.tuning.report import Report
from minigpt.tuning.virtual import unshift

Options = tuple[PartConfig, BottleneckConfig, VirtualConfig]


class Full(Method):
    """Every weight learns."""

    name = "full"

    def attach(self, model: GPT) -> Report:
        return freeze.freeze(model, "all")


class Top(Method):
    """The highest blocks and the final norm."""

    name = "top"

    def __init__(self, blocks: int):
        self.blocks = blocks

    def attach(self, model: GPT) -> Report:
        if self.blocks > model.config.n_layers:
            raise Error(f"--top is {self.blocks}: the model has {model.config.n_layers} blocks: give at most as many")
        return freeze.freeze(model, f"top:{self.blocks}")


class Gradual(Method):
    """One block more every so many steps."""

    name = "gradual"

    def __init__(self, every: int, direction: str):
        self.schedule = freeze.Gradual(every=every, direction=direction)

    def attach(self, model: GPT) -> Report:
        return freeze.gradual(model, None, self.schedule)

    def before_step(self, model: GPT, step: int):
        freeze.gradual(model, step, self.schedule)


class Head(Method):
    """Nothing of the model: the head of a task alone learns."""

    name = "head"

    def attach(self, model: GPT) -> Report:
        return freeze.freeze(model, "none")


class Beside(Method):
    """What stands beside a frozen model: the `room` is one of the modules that have attach, detach, save and load."""

    def __init__(self, name: str, room, config):
        self.name, self.room, self.config = name, room, config

    def attach(self, model: GPT) -> Report:
        return self.room.attach(model, self.config)

    def save(self, model: GPT, directory: Path, base: str):
        self.room.save(model, directory, base=base)

    def load(self, model: GPT, directory: Path):
        self.room.detach(model)
        self.room.load(model, directory)


class Prompt(Beside):
    """Virtual tokens before the text, as they are or out of an encoder."""

    def __init__(self, name: str, room, config, shift: bool):
        super().__init__(name, room, config)
        self.shift = shift

    def attach(self, model: GPT) -> Report:
        report = super().attach(model)
        if not self.shift:
            unshift(model)
        return report

    def virtual(self, model: GPT) -> list[int]:
        return prompt.ids(model)

    def batches(self, model: GPT, batches):
        return Prepended(batches, model, self.virtual(model))

    def save(self, model: GPT, directory: Path, base: str):
        self.room.save(model, directory, base=base, shift=self.shift)


class Prefix(Beside):
    """Keys and values before the text, in every layer."""

    def taken(self, model: GPT) -> int:
        return model.hidden.taken


@dataclass(frozen=True)
class Prepended:
    """Batches whose rows begin with virtual tokens."""

    batches: object
    model: GPT
    virtual: list[int]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, i: int):
        batch = self.batches[i]
        if isinstance(batch, TaskBatch):  # where the ids from V on are the task's own words first
            return batch.prepended([token + N_WORDS for token in self.virtual])
        return prompt.prepend(self.model, batch)


def make(name: str, options: Options, encode: Callable[[str], Sequence[int]], seed: int) -> Method:
    """The method of that name; `encode` makes the ids of --start-text."""
    parts, bottleneck, virtual = options
    if name in ("prompt", "ptuning", "prefix", "ptuning2"):
        return _virtual(name, virtual, () if virtual.start_text is None else tuple(encode(virtual.start_text)), seed)
    if name == "adapter":
        config = adapter.AdapterConfig(bottleneck=bottleneck.bottleneck, after=bottleneck.after, exact=bottleneck.exact)
        return Beside(name, adapter, config)
    if name == "top":
        return Top(parts.top)
    return Gradual(parts.every, parts.direction) if name == "gradual" else {"full": Full, "head": Head}[name]()


def _virtual(name: str, options: VirtualConfig, text: tuple[int, ...], seed: int) -> Method:
    length = options.length or len(text) or LENGTHS[name]
    if name == "prompt":
        start = {"start": "text", "text": text} if text else {"start": options.start}
        return Prompt(name, prompt, prompt.PromptConfig(length=length, seed=seed, **start), options.shift)
    if name == "ptuning":
        config = ptuning.PTuningConfig(length=length, encoder=options.encoder, hidden=options.hidden, seed=seed)
        return Prompt(name, ptuning, config, options.shift)
    if name == "prefix":
        config = prefix.PrefixConfig(length=length, hidden=options.hidden or 512, shift=options.shift)
        return Prefix(name, prefix, config)
    tokens = text or None
    return Prefix(name, prefix, prefix.PrefixConfig.p_tuning_v2(length=length, shift=options.shift, tokens=tokens))
