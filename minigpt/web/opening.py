"""From what sample.py was given to what is served."""

from pathlib import Path
from types import ModuleType

import torch

from minigpt import room
from minigpt.errors import Error
from minigpt.generation.engine import Engine
from minigpt.memory import Job, predict
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.tuning.composed import CONFIG, TASK, Adapters
from minigpt.web.studio import Studio
from minigpt.web.worker import Worker


def of_model(
    directory: Path, model: GPT, tokenizer: Tokenizer, adapters: Adapters, lora: ModuleType | None,
    max_rows: int = 16, queue: int = 64,
) -> Studio:  # fmt: skip
    """A studio of a model and what was attached to it, each adapter a model by the name of its directory."""
    given = {Path(each): name for each, name in adapters.names.items() if each != "base"}
    names = dict(zip(ids_of(directory, list(given)), given.values(), strict=True))
    engine = Engine(model, max_rows, names=names, others=(lora,) if lora else ())
    runs = directory if (directory / "metrics.jsonl").is_file() else None
    worker = Worker(engine, room=max_rows + queue)
    return Studio(directory, model, tokenizer, names, lora, worker, name_of(directory), runs)


def crowded(model: GPT, max_rows: int) -> str | None:
    """A warning if so many texts of the model's whole context would not find the memory for their keys and values."""
    weight = model.token_embedding.weight
    dtype, context = "fp32" if weight.dtype == torch.float32 else "bf16", model.config.context
    size, left = predict(model.config, Job(batch=1, dtype=dtype)).cache, room.free(weight.device)
    if left is None or max_rows * size <= left:
        return None
    return (
        f"{max_rows} texts of {context} tokens keep {max_rows * size / room.GIB:.1f} GiB of keys and values, "
        f"{left / room.GIB:.1f} GiB are left: --max-rows {max(1, left // size)} fits"
    )


def of_runs(directory: Path) -> Studio:
    """A studio without a model: the runs below a directory, to watch."""
    return Studio(directory, None, None, {}, None, Worker(), name_of(directory), directory)


def holds_runs(directory: Path) -> bool:
    """Whether this is no model but a run without one yet, or a directory with runs in it."""
    if any((directory / name).exists() for name in ("config.json", CONFIG, TASK)) or not directory.is_dir():
        return False
    return any(next(directory.glob("*/" * depth + "metrics.jsonl"), None) for depth in range(6))


def ids_of(base: Path, directories: list[Path]) -> list[str]:
    """What clients call these adapters: the names of the directories, with the one above where two are alike.

    >>> ids_of(Path("runs/notes"), [Path("runs/letters"), Path("a/best"), Path("b/best")])
    ['letters', 'a/best', 'b/best']
    """
    names = [name_of(base), *map(name_of, directories)]
    alike = [names.count(name_of(each)) > 1 for each in directories]
    ids = ["/".join(each.resolve().parts[-1 - two :]) for each, two in zip(directories, alike, strict=True)]
    for name in ids:
        if [name_of(base), *ids].count(name) > 1:
            raise Error(f"two of the models would be called {name!r}: rename a directory")
    return ids


def name_of(directory: Path) -> str:
    """
    >>> name_of(Path("runs/notes/"))
    'notes'
    """
    return directory.resolve().name or "model"
