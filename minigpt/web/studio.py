"""What is served: a model with its tokenizer and adapters, the directory of runs, and the thread that works them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from minigpt.errors import nearest
from minigpt.generation.checks import context_of
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import mixed
from minigpt.web.limits import Limits
from minigpt.web.meters import Meters
from minigpt.web.refusals import Refusal
from minigpt.web.worker import Worker


@dataclass
class Studio:
    """All that routes know.

    directory   what sample.py was given       name       the base, as clients ask for it
    adapters    id of a client -> the name it is attached by     lora   the module, if anyone gave it
    runs_dir    where runs lie, or None        closing    no new requests: what was begun is ended

    Without a model, as beside a directory of runs, `model` and `tokenizer` are None.
    """

    directory: Path
    model: GPT | None
    tokenizer: Tokenizer | None
    adapters: Mapping[str, str]
    lora: ModuleType | None
    worker: Worker
    name: str
    runs_dir: Path | None = None
    limits: Limits = field(default_factory=Limits)
    meters: Meters = field(default_factory=Meters)
    closing: bool = False
    rooms: dict[str, int] = field(default_factory=dict)  # model -> tokens of text, once asked for

    @property
    def models(self) -> tuple[str, ...]:
        """All ids that a client may ask for, the base first."""
        return (self.name, *self.adapters) if self.model is not None else ()

    def attached(self, model: str) -> str | None:
        """The adapter a client means, by the name it is attached by; None is the base. `Refusal` if there is none."""
        if model not in self.models:
            hint = nearest(model, self.models) if self.models else "only runs are served here"
            raise Refusal(404, f"there is no model {model!r:.80}: {hint}", "model", "model_not_found")
        return self.adapters.get(model)

    async def room(self, model: str) -> int:
        """How many tokens of text fit beside what this model has in front of them: a prefix, a prompt."""
        if model not in self.rooms:
            self.rooms[model] = await self.worker.run(self._room, self.attached(model))
        return self.rooms[model]

    def _room(self, attached: str | None) -> int:
        with self.beside(attached):
            return context_of(self.model) - len(mixed.begin(self.model, [attached], [[]])[0])

    def beside(self, attached: str | None) -> AbstractContextManager:
        """Inside, the model reads one row, which has this adapter. On the worker's thread."""
        return mixed.alike(self.model, attached, 1, *((self.lora,) if self.lora else ()))
