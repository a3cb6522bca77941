"""BASE + ADAPTER -> OUT, from disk to disk, a block of rows at a time: no model, and no tensor whole.

Every adapted weight is the correctly rounded W + s B A, every other tensor the same bits, in the same files under the
same names. OUT appears when it is complete, or not at all. A head that was tied to the embedding and is no longer the
same matrix is written out, and config.json says so.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from lora import files
from lora.checkpoint import CODES, INDEX, SINGLE, Checkpoint, Rows, spans, write_tensors
from lora.errors import Error
from lora.exact import Merged, Rounding, round_once
from lora.recipe import Recipe, recipes, unties
from lora.rounded import RoundedCheckpoint
from lora.storage import new_directory

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf"}  # not to be copied


class _Merge:
    """The blocks of every tensor of the result, and the reports that fall off on the way."""

    def __init__(self, base: Checkpoint, made: dict[str, Recipe], progress: Callable[[int, int], None] | None):
        self.base, self.made, self.progress = base, made, progress
        self.reports: list[Merged] = []
        self.done, self.total = 0, sum(self.layout(name)[2] for name in made)

    def layout(self, name: str) -> tuple[str, tuple[int, ...], int]:
        """Dtype code, shape and bytes of a tensor of the result: those of the base."""
        recipe = self.made[name]
        if recipe.source is None:
            value = recipe.value
            return CODES[value.dtype], tuple(value.shape), value.nbytes
        entry = self.base.entries[recipe.source]
        return entry.code, entry.shape, entry.nbytes

    def blocks(self, name: str) -> Iterator[Tensor]:
        for block in self._blocks(name, self.made[name]):
            self.done += block.nbytes
            if self.progress:
                self.progress(self.done, self.total)
            yield block

    def _blocks(self, name: str, recipe: Recipe) -> Iterator[Tensor]:
        if recipe.value is not None:
            yield self._cast(name, recipe)
        elif recipe.update is not None:
            yield from self._merged(name, recipe)
        else:
            entry = self.base.entries[recipe.source]
            yield from (self.base.bytes(recipe.source, *part) for part in spans(entry.nbytes))

    def _cast(self, name: str, recipe: Recipe) -> Tensor:
        dtype = recipe.value.dtype if recipe.source is None else self.base.entries[recipe.source].dtype
        value = recipe.value if recipe.value.dtype == dtype else round_once(recipe.value.double(), dtype)
        if not value.isfinite().all():
            raise Error(f"{name}: not merged: the adapter's values are too large for {dtype}")
        return value

    def _merged(self, name: str, recipe: Recipe) -> Iterator[Tensor]:
        rounding = Rounding(name, Rows(self.base, recipe.source), recipe.update)
        for _, block in rounding.blocks():
            yield block
        self.reports.append(rounding.report)


def merge_checkpoint(
    base: str | Path, adapter: str | Path, out: str | Path, progress: Callable[[int, int], None] | None = None
) -> list[Merged]:
    """Write the directory `out`: `base` with `adapter` merged; returns what became of each adapted tensor.

    `out` has the base's files, dtypes and order of tensors; other files of the base's directory are copied.
    Where the adapter learned beside weights in four bits, `base` is rounded as these were, adapted or not.
    Raises `Error`, and leaves nothing behind, where they do not fit, or a sum is not finite in the base's dtype.
    """
    stored = files.read(adapter)
    with RoundedCheckpoint(base, stored.rounded) as ours, new_directory(Path(out)) as directory:
        made = recipes(ours, stored)
        work = _Merge(ours, made, progress)
        places = {name: _file(ours, name, recipe) for name, recipe in made.items()}
        for file in ours.files:
            names = [name for name, place in places.items() if place == file]
            shapes = {name: work.layout(name) for name in names}
            write_tensors(directory / (file.name if ours.indexed else SINGLE), shapes, ours.metadata[file], work.blocks)
        _copy_others(ours, directory)
        _write_config(ours, directory, unties(ours, made))
        if ours.indexed:
            _write_index(ours, directory, places, work.total)
    return work.reports


def _file(base: Checkpoint, name: str, recipe: Recipe) -> Path:
    """Where a tensor goes: to its own file; one that is new, beside what it was made from, or to the last."""
    beside = name if name in base.entries else recipe.source
    return base.entries[beside].file if beside else base.files[-1]


def _copy_others(base: Checkpoint, directory: Path):
    """Config, tokenizer, licence: every plain file beside the weights that is no weight itself."""
    if not base.path.is_dir():
        return
    for file in sorted(base.path.iterdir()):
        known = file.suffix in WEIGHTS or file.name.endswith(".index.json") or file.name in {"config.json"}
        if file.is_file() and not known and not file.name.startswith("."):
            shutil.copyfile(file, directory / file.name)


def _write_config(base: Checkpoint, directory: Path, untied: bool):
    """config.json, the same bytes unless the head is now its own."""
    source = (base.path if base.path.is_dir() else base.path.parent) / "config.json"
    if not base.config:
        return
    if not untied:
        shutil.copyfile(source, directory / "config.json")
        return
    config = dict(base.config, tie_word_embeddings=False)
    if "tie_word_embeddings" in (config.get("text_config") or {}):
        config["text_config"] = dict(config["text_config"], tie_word_embeddings=False)
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_index(base: Checkpoint, directory: Path, places: dict[str, Path], nbytes: int):
    """The shards' index, with tensors that are new."""
    index = json.loads((base.path / INDEX).read_text(encoding="utf-8"))
    index["weight_map"] = {name: place.name for name, place in sorted(places.items())}
    metadata = index.get("metadata")
    index["metadata"] = dict(metadata if isinstance(metadata, dict) else {}, total_size=nbytes)
    (directory / INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
