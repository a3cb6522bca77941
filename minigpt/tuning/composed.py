"""A base and what lies beside it on disk, put together: what a directory holds, and which prompt has which of it.

    runs/notes            config.json            a whole model
    adapters/radiology    adapter_config.json    something learned beside a frozen base, which it names

What reads a directory is told by its "peft_type", or "method" where PEFT has no format. LoRA is not known here: who
wants it gives the module, as `others={"LORA": lora}`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import ModuleType

from minigpt.errors import Error
from minigpt.model import GPT
from minigpt.tuning import adapter, mixed, prefix, prompt
from minigpt.tuning.strict import read_json

CONFIG, TASK = "adapter_config.json", "task_config.json"
METHODS = {"adapter": adapter, "PROMPT_TUNING": prompt, "P_TUNING": prompt, "PREFIX_TUNING": prefix}


def kind_of(directory: Path) -> str:
    """What made the files of a directory: "LORA", "PREFIX_TUNING", ..., or "adapter"."""
    values = read_json(directory / CONFIG, "give the directory of an adapter, a prompt or a prefix")
    return str(values.get("peft_type") or values.get("method"))


def base_of(directory: Path) -> str | None:
    """The model that an adapter says it belongs to."""
    return read_json(directory / CONFIG, "give the directory of an adapter").get("base_model_name_or_path")


def find(run: Path, base: Path | None = None) -> tuple[Path, tuple[str, ...]]:
    """The directory of the model that `run` means, and what is to be attached: itself, if it is an adapter."""
    beside = (run / CONFIG).exists()
    if (run / "config.json").exists() or not (beside or (run / TASK).exists()):
        if base is not None:
            raise Error(f"{run}: is no adapter, so --base says nothing: leave it out, or give the adapter's directory")
        return run, ()
    found, what = base or (base_of(run) if beside else None), f"a {kind_of(run)} adapter" if beside else "a task's head"
    if not found:
        raise Error(f"{run}: holds {what} and does not say of which model: give --base DIR")
    if not Path(found).is_dir():
        raise Error(f"{run}: belongs to the model {str(found)!r}, which is not there: say where it is with --base DIR")
    return Path(found), (str(run),) * beside


class Adapters:
    """What the prompts of a command line have beside the model: one directory for all, one for each; "base" is none."""

    def __init__(self, model: GPT, directories: Sequence[str], others: Mapping[str, ModuleType]):
        self.model, self.directories, self.others = model, tuple(directories), tuple(others.values())
        self.kinds = tuple(others)
        self.errors = (Error, *(module.Error for module in self.others))
        methods, self.names = METHODS | dict(others), {"base": None}
        self.rounded = self._round([Path(each) for each in self.directories if each != "base"])
        for directory in dict.fromkeys(self.directories):
            if directory == "base":
                continue
            if (kind := kind_of(Path(directory))) not in methods:
                raise Error(f"{directory}: holds a {kind!r} adapter, which is not known here: {', '.join(methods)} are")
            self.names[directory] = f"adapter{len(self.names)}"
            methods[kind].load(model, directory, name=self.names[directory])
        self.working = self.name(0) if len(set(self.directories)) < 2 else object()  # none is right yet
        self.mixes = self._can_mix()

    def _round(self, directories: list[Path]) -> list[str]:
        """Weights as an adapter of QLoRA had them, in four bits and back; the directories of such adapters."""
        lora = dict(zip(self.kinds, self.others, strict=True)).get("LORA")
        found = [each for each in dict.fromkeys(directories) if lora and kind_of(each) == "LORA"]
        return [str(each) for each in found if lora.round_base(self.model, each)]

    def _can_mix(self) -> bool:
        """Whether one batch may hold all of them."""
        try:
            with mixed.rows(self.model, [self.names[each] for each in dict.fromkeys(self.directories)], *self.others):
                return True
        except self.errors:
            return False

    def label(self, number: int) -> str | None:
        """The directory that the prompt of that number was given, for records."""
        return self.directories[number if len(self.directories) > 1 else 0] if self.directories else None

    def name(self, number: int) -> str | None:
        return self.names[self.label(number) or "base"]

    def before(self, number: int) -> list[int]:
        """The virtual tokens that its text begins with."""
        name = self.name(number)
        return prompt.ids(self.model, name) if name in prompt.names(self.model) else []

    def chunks(self, owners: list[int], size: int) -> Iterator[list[int]]:
        """The texts of a list of prompts by their numbers, those that may be written together, `size` at most."""
        groups = groupby(range(len(owners)), lambda row: None if self.mixes else self.name(owners[row]))
        for rows in (list(group) for _, group in groups):
            yield from (rows[i : i + size] for i in range(0, len(rows), size))

    @contextmanager
    def rows(self, numbers: list[int]) -> Iterator[None]:
        """Inside, each row of a batch has what its prompt was given."""
        names = [self.name(number) for number in numbers]
        if len(set(names)) > 1:
            with mixed.rows(self.model, names, *self.others):
                yield
            return
        if names[0] != self.working:
            mixed.use(self.model, names[0], *self.others)
            self.working = names[0]
        with prompt.rows(self.model, [name if name in prompt.names(self.model) else None for name in names]):
            yield
