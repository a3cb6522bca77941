"""What a merged checkpoint is made of: for every tensor, which tensor of the base and which update.

Merging follows these recipes, verifying compares with them. Three things are decided here and nowhere else:
which tensor of the checkpoint a path of the adapter means, which way round that weight is stored, and what becomes of
a head that shares the embedding's matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lora.checkpoint import HEAD, Checkpoint
from lora.errors import Error, nearest
from lora.exact import UNIT, Update
from lora.files import Stored

# Models whose square weights of these names are stored (in, out), as transformers' Conv1D.
CONV1D_MODELS = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"}
CONV1D_NAMES = {"c_attn", "c_proj", "c_fc", "q_attn"}


@dataclass(frozen=True)
class Recipe:
    """One tensor of the result: base[source], plus `update` if there is one; or `value`, learned whole."""

    source: str | None
    update: Update | None = None
    value: Tensor | None = None


def recipes(base: Checkpoint, stored: Stored) -> dict[str, Recipe]:
    """Name in the result -> how it is made, for every tensor of BASE and whatever the adapter adds to them.

    Raises `Error` for a path without a tensor in BASE, and for shapes or dtypes that do not fit.
    """
    made = {name: Recipe(name) for name in base.entries}
    updates = {}
    for path, update in stored.updates.items():
        name = _target(base, path)
        if name in updates:
            raise Error(f"{base.path}: two layers of the adapter mean {name!r}; the second is {path!r}")
        source = name if name in base.entries else base.embedding
        updates[name] = replace(update, transposed=_transposed(base, path, source, update))
    values = {base.find(name) or name: value for name, value in stored.replaced.items()}
    embedding, head = base.embedding, base.find(HEAD) or HEAD
    if {head, embedding} & (updates.keys() | values.keys()) and base.tied:
        if stored.config.tied == "tie":
            _share(base, head, embedding, updates, values)
        else:
            made.setdefault(head, Recipe(embedding))  # from here on a matrix of its own
    for name, update in updates.items():
        made[name] = replace(made[name], update=update)
    for name, value in values.items():
        if name in base.entries and base.entries[name].shape != value.shape:
            shapes = f"{tuple(value.shape)} in the adapter, {base.entries[name].shape} in {base.path}"
            raise Error(f"{name}: {shapes}: the adapter belongs to another base")
        made[name] = Recipe(name if name in base.entries else None, value=value)
    return made


def unties(base: Checkpoint, made: dict[str, Recipe]) -> bool:
    """Whether the result needs a head of its own where the base shares the embedding's."""
    head, embedding = base.find(HEAD) or HEAD, base.embedding
    if head not in made or embedding is None:
        return False
    pair = made[head], made[embedding]
    if all(recipe.update is None and recipe.value is None for recipe in pair) or not base.tied:
        return False
    return head not in base.entries or pair[0].update is not pair[1].update or pair[0].value is not pair[1].value


def weight_of(base: Checkpoint, stored: Stored) -> Callable[[str], Tensor]:
    """Path of an adapted layer -> its weight in BASE as (O, I), oriented as B A; `Error` where it does not fit."""

    def weight(path: str) -> Tensor:
        name, update = _target(base, path), stored.updates[path]
        source = name if name in base.entries else base.embedding
        found = base.tensor(source)
        return found.T if _transposed(base, path, source, update) else found

    return weight


def _target(base: Checkpoint, path: str) -> str:
    name = base.find(f"{path}.weight")
    if name is None and f"{path}.weight" == HEAD and base.tied:
        return HEAD
    if name is None:
        known = [known.removesuffix(".weight") for known, entry in base.entries.items() if len(entry.shape) == 2]
        raise Error(f"{base.path}: has no tensor for the adapter's layer {path!r}: {nearest(path, known)}")
    return name


def _transposed(base: Checkpoint, path: str, name: str, update: Update) -> bool:
    """Whether the weight is stored (in, out); A (r, in) and B (out, r) tell, unless it is square."""
    entry = base.entries[name]
    if entry.dtype not in UNIT:
        raise Error(f"{base.path}: {name} holds {entry.code}: give a base in float64, float32, bfloat16 or float16")
    out, into = update.B.shape[0], update.A.shape[1]
    fits = [way for way, shape in ((False, (out, into)), (True, (into, out))) if entry.shape == shape]
    if not fits or (update.transposed and True not in fits):
        found = f"{name} is {entry.shape}, the adapter's update of {path} is ({out}, {into})"
        raise Error(f"{base.path}: {found}: the adapter belongs to a base of another size")
    if len(fits) == 1 or update.transposed:
        return update.transposed or fits[0]
    leaf = path.rpartition(".")[2]
    if "model_type" in base.config:
        return base.config["model_type"] in CONV1D_MODELS and leaf in CONV1D_NAMES
    return _siblings_transposed(base, leaf)


def _siblings_transposed(base: Checkpoint, leaf: str) -> bool:
    """Without a config.json: a bias is as long as the output, so a layer of the same name that is not square tells."""
    for name, entry in base.entries.items():
        bias = base.entries.get(f"{name.removesuffix('weight')}bias")
        if f".{name}".endswith(f".{leaf}.weight") and bias and len(entry.shape) == 2 and len(bias.shape) == 1:
            rows, columns = entry.shape
            if rows != columns and bias.shape[0] in (rows, columns):
                return bias.shape[0] == columns
    return False


def _share(base: Checkpoint, head: str, embedding: str, updates: dict, values: dict):
    """One matrix, one update: what PEFT writes twice, as the head's and as the embedding's, counts once."""
    both = [updates[name] for name in (head, embedding) if name in updates]
    if len(both) == 2:
        a, b = (torch.equal(x, y.T) for x, y in zip((both[0].A, both[0].B), (both[1].B, both[1].A), strict=True))
        if both[0].transposed == both[1].transposed or not (a and b):
            raise Error(f"{base.path}: head and embedding are tied, but the adapter changes them differently")
    for table, found in ((updates, both), (values, [values[name] for name in (head, embedding) if name in values])):
        if not found:
            continue
        table.pop(head, None)
        table[embedding] = found[-1]
        if head in base.entries:  # the base stores the one matrix twice
            table[head] = found[-1]
