"""Adapters on disk, in PEFT's format: adapter_config.json beside adapter_model.safetensors. Strict, no pickle.

    base_model.model.<path>.lora_A.weight            (r, I)      base_model.model.<path>.lora_embedding_A    (r, V)
    base_model.model.<path>.lora_B.weight            (O, r)      base_model.model.<path>.lora_embedding_B    (C, r)
    base_model.model.<path>.lora_magnitude_vector    (O,)        base_model.model.<path>.base_layer.bias     (O,)
    base_model.model.<path>.weight, .bias            modules_to_save, and the biases of bias="all"

This file knows paths and tensors, not models: `attach` brings the two together, `verify` and `merge` on the command
line need no model at all.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lora import peft_config, rounded
from lora.config import Config, ends_path, named
from lora.errors import Error, nearest
from lora.exact import Update
from lora.rounded import Rounded
from lora.storage import open_tensors, write_directory

NAME = "adapter_model.safetensors"
PREFIX = "base_model.model."
PARTS = {  # the end of a key -> what it is
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding_A",
    ".lora_embedding_B": "embedding_B",
    ".lora_magnitude_vector": "magnitude",
}
SAMPLE = 1 << 16  # values of each weight that its fingerprint looks at


@dataclass(frozen=True)
class Stored:
    """An adapter as it lies on disk.

    updates      path of the module -> A, B, scale; `transposed` is right for embeddings, and for other layers is the
                 business of who knows the weight: A and B are stored the same for all
    embeddings   the paths of `updates` whose module is an embedding
    replaced     name of a tensor of the base -> what stands in its place: biases, modules to save
    fingerprint  of the base, tensor by tensor: `fingerprint` of the weights that were adapted
    parts        path -> ((size, rank), ...) of a fused layer whose parts have adapters of their own, rank 0 for none:
                 A holds their ranks one after the other, B is a matrix of blocks
    rounded      tensor of the base -> how it was rounded to four bits while the adapter learned (rounded.py)
    """

    config: Config
    updates: dict[str, Update]
    embeddings: frozenset[str] = frozenset()
    replaced: dict[str, Tensor] = field(default_factory=dict)
    fingerprint: dict[str, str] = field(default_factory=dict)
    parts: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    rounded: dict[str, Rounded] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        tensors = [t for u in self.updates.values() for t in (u.A, u.B, u.magnitude) if t is not None]
        return sum(tensor.nbytes for tensor in [*tensors, *self.replaced.values()])


def read(directory: str | Path) -> Stored:
    """An adapter, checked: every tensor is used, finite and of the right shape; every listed target is there."""
    directory = Path(directory)
    config = peft_config.read(directory)
    file = directory / NAME
    if not file.is_file() and any(directory.glob("adapter_model.bin")):
        raise Error(f"{directory}: holds pickled weights (.bin), which can run code; convert them to safetensors")
    with open_tensors(file) as source:
        metadata = source.metadata() or {}
        tensors = {name: source.get_tensor(name) for name in sorted(source.keys())}
    found, replaced = _sort_out(tensors, config, file)
    ours = _ours(metadata, file)
    parts = {path: tuple((size, rank) for size, rank in each) for path, each in ours.get("parts", {}).items()}
    for path in parts.keys() & found.keys():
        _unpack(path, found[path], parts[path], file)
    updates = {path: _update(path, each, config, file) for path, each in found.items()}
    embeddings = frozenset(path for path, each in found.items() if "embedding_A" in each)
    _check_targets(config, updates, replaced, file)
    return Stored(config, updates, embeddings, replaced, ours.get("base", {}), parts, ours.get("nf4", {}))


def _sort_out(tensors: dict[str, Tensor], config: Config, file: Path):
    """Keys -> {path: {part: tensor}} and {name in the base: tensor}."""
    parts, replaced = {}, {}
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX):
            raise Error(f"{file}: tensor {key!r} does not begin with {PREFIX!r}: not written by PEFT or by us")
        if not tensor.is_floating_point():
            raise Error(f"{file}: tensor {key!r} holds {tensor.dtype}, expected floating point")
        if not tensor.isfinite().all():
            raise Error(f"{file}: tensor {key!r} holds NaN or infinity: training diverged, or the file is damaged")
        name = key.removeprefix(PREFIX)
        end = next((end for end in PARTS if name.endswith(end)), None)
        if end:
            parts.setdefault(name.removesuffix(end), {})[PARTS[end]] = tensor
        elif name.endswith(".base_layer.bias") and config.bias != "none":
            replaced[name.replace(".base_layer.", ".")] = tensor
        elif name.endswith(".base_layer.weight"):
            continue  # PEFT's copy of a tied base weight: the base has it
        elif (config.bias == "all" and name.endswith(".bias")) or _is_saved(name, config):
            replaced[name] = tensor
        else:
            raise Error(f"{file}: tensor {key!r} is neither A nor B nor named by modules_to_save or bias: unused")
    return parts, replaced


def _is_saved(name: str, config: Config) -> bool:
    return any(f".{module}." in f".{name}" for module in config.modules_to_save)


def _pack(B: Tensor, parts: tuple[tuple[int, int], ...]) -> Tensor:
    """The blocks of B (O, R) one below the other, (adapted outputs, r), if they are equally wide; else B as it is."""
    ranks = [rank for _, rank in parts if rank]
    if len(set(ranks)) != 1:
        return B
    blocks, start = [], 0
    for rows, (_, rank) in zip(B.split([size for size, _ in parts]), parts, strict=True):
        if rank:
            blocks.append(rows[:, start : start + rank])
            start += rank
    return torch.cat(blocks)


def _unpack(path: str, found: dict[str, Tensor], parts: tuple[tuple[int, int], ...], file: Path):
    """The inverse, in place, for a B that is packed; zeros where no block is."""
    total, B = sum(rank for _, rank in parts), found.get("B")
    if B is None or B.ndim != 2 or B.shape == (sum(size for size, _ in parts), total):
        return
    ranks = {rank for _, rank in parts if rank}
    if len(ranks) != 1 or B.shape != (sum(size for size, rank in parts if rank), *ranks):
        raise Error(f"{file}: {path}.lora_B is {tuple(B.shape)}, which the parts {parts} of its header do not explain")
    whole, row, column = B.new_zeros(sum(size for size, _ in parts), total), 0, 0
    below = 0
    for size, rank in parts:
        if rank:
            whole[row : row + size, column : column + rank] = B[below : below + size]
            below, column = below + size, column + rank
        row += size
    found["B"] = whole


def _update(path: str, found: dict[str, Tensor], config: Config, file: Path) -> Update:
    embedding = "embedding_A" in found
    kind = "embedding_" if embedding else ""
    if found.keys() - {"magnitude"} != {f"{kind}A", f"{kind}B"}:
        raise Error(f"{file}: {path} has only {', '.join(sorted(found))}: A and B belong together")
    A, B, magnitude = found[f"{kind}A"], found[f"{kind}B"], found.get("magnitude")
    r = config.rank(path)
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != r or B.shape[1] != r:
        shapes = f"A {tuple(A.shape)} and B {tuple(B.shape)}"
        raise Error(f"{file}: {path} has {shapes}; rank {r} of {peft_config.NAME} makes them ({r}, in) and (out, {r})")
    if (magnitude is not None) != config.dora:
        there = "there" if magnitude is not None else "not there"
        raise Error(f"{file}: {path}: use_dora is {config.dora}, but lora_magnitude_vector is {there}")
    if magnitude is not None and magnitude.shape != (len(B),):
        raise Error(f"{file}: {path}.lora_magnitude_vector is {tuple(magnitude.shape)}, expected ({len(B)},)")
    return Update(A, B, config.scale(path), embedding, magnitude)


def _check_targets(config: Config, updates, replaced, file: Path):
    if not updates and not replaced:
        raise Error(f"{file}: holds no adapter at all")
    if isinstance(config.targets, tuple):
        for target in config.targets:
            if not any(named((target,), path) for path in updates):
                raise Error(f"{file}: target_modules names {target!r}, but no tensor belongs to it: incomplete")
    for pattern in (*config.rank_pattern, *config.alpha_pattern):
        if not any(ends_path(pattern, path) for path in updates):
            raise Error(
                f"{file}: a pattern names {pattern!r}, but no tensor belongs to it: {nearest(pattern, updates)}"
            )
    for path in updates:
        mirrored = config.tied == "tie" and any(u.A.shape == updates[path].B.T.shape for u in updates.values())
        if not config.wants(path) and not mirrored:  # PEFT names only the embedding of a tied pair
            raise Error(f"{file}: has tensors for {path}, which target_modules does not name: wrong config or tensors")
    for module in config.modules_to_save:
        if not any(f".{module}." in f".{name}" for name in replaced):
            raise Error(f"{file}: modules_to_save names {module!r}, but no tensor belongs to it: incomplete")


def write(stored: Stored, directory: str | Path, base: str = "", compact: bool = False):
    """Write an adapter directory, whole or not at all; the same bytes for the same adapter.

    `compact` leaves out the zeros between the blocks of fused layers: for us to read, no longer for PEFT.
    """
    tensors = {PREFIX + name: tensor for name, tensor in stored.replaced.items()}
    for path, update in stored.updates.items():
        embedding = path in stored.embeddings
        tensors[f"{PREFIX}{path}.lora_{'embedding_A' if embedding else 'A.weight'}"] = update.A
        packed = compact and path in stored.parts
        tensors[f"{PREFIX}{path}.lora_{'embedding_B' if embedding else 'B.weight'}"] = (
            _pack(update.B, stored.parts[path]) if packed else update.B
        )
        if update.magnitude is not None:
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = update.magnitude
    if stored.config.bias != "none":
        adapted = {f"{path}.bias" for path in stored.updates}
        for name in adapted & stored.replaced.keys():
            tensors[f"{PREFIX}{name.removesuffix('.bias')}.base_layer.bias"] = tensors.pop(PREFIX + name)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Error(f"{directory}: not saved: {name.removeprefix(PREFIX)} holds NaN or infinity")
    # safetensors keeps the order it is given, and that must not depend on who filled the dictionary.
    tensors = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    # One key beside none: safetensors writes several in the order of a hash that changes from run to run.
    ours = {"base": stored.fingerprint, "parts": stored.parts} | rounded.to_json(stored.rounded)
    metadata = {"lora": json.dumps(ours, sort_keys=True)} if any(ours.values()) else {"format": "pt"}
    texts = {peft_config.NAME: peft_config.write(stored.config, base)}
    write_directory(Path(directory), texts, {NAME: (tensors, metadata)})


def fingerprint(weight: Tensor) -> str:
    """Of up to 65,536 values of a weight, spread evenly, as float32 (float64 as it is): tells bases apart at once.

    The same for a base opened in a wider dtype. Not a proof: `verify` is.

    >>> w = torch.arange(6.0).view(2, 3)
    >>> fingerprint(w) == fingerprint(w.half()), fingerprint(w) == fingerprint(w.T)
    (True, False)
    """
    count = weight.numel()
    step = max(1, -(-count // SAMPLE))
    step += step % weight.shape[-1] == 0 and step > 1  # not always the same column
    index = torch.arange(0, count, step, device=weight.device)
    row, column = index // weight.shape[-1], index % weight.shape[-1]
    sample = weight.detach().reshape(-1)[index] if weight.ndim != 2 else weight.detach()[row, column]
    sample = sample.cpu() if sample.dtype == torch.float64 else sample.cpu().float()
    digest = hashlib.sha256(f"{tuple(weight.shape)} ".encode())
    digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:32]


def _ours(metadata: dict[str, str], file: Path) -> dict:
    """What we put into the header beside what PEFT knows: {"base": fingerprint, "parts": ..., "nf4": ...}."""
    try:
        found = json.loads(metadata.get("lora", "{}"))
        for name, digest in found.get("base", {}).items():
            str.encode(name), str.encode(digest)
        for path, parts in found.get("parts", {}).items():
            str.encode(path), [(int(size), int(rank)) for size, rank in parts]
        return found | rounded.from_json(found)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Error(f"{file}: the key 'lora' of its header is damaged: save the adapter again") from None
