"""Hugging Face directories in and out: config.json and model.safetensors, whole or in shards.

No pickle is read, and nothing is fetched unless asked. families.py translates config.json, layouts.py names the
tensors, tensor_files.py reads and writes them; here the two sides are checked against each other.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from minigpt import room
from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest
from minigpt.families import FAMILIES, Family, family_of
from minigpt.files import write_atomic
from minigpt.layouts import Entry
from minigpt.tensor_files import INDEX, TensorFiles, file_names, is_derived, remove_others, write_tensors

SHARD_BYTES = 5_000_000_000


def load(make: Callable, directory, *, dtype: torch.dtype | None = torch.float32, device="cpu", **changes):
    """The model of a run or Hugging Face directory, in `dtype` (None: as stored), in evaluation mode.

    `make` builds it from its config: the class of the model, `GPT`.

    `changes` replace fields of the config that do not touch the weights, such as `resid_dropout=0.0`.
    Every tensor must be there, used, and of the right shape; whatever is not raises `Error` naming it.
    """
    directory = Path(directory)
    family, config = read_config(directory)
    if changes:
        config = GPTConfig.from_dict(config.to_dict() | changes)
    source = TensorFiles(directory)
    model = _skeleton(make, config, source)
    _check(model, family, source)  # before any memory is taken: a damaged config may ask for a great deal
    model = model.to(dtype or source.dtype())
    size = sum(weight.nbytes for weight in model.parameters())
    room.check(size, f"the model of {directory}", "end other programs, or read a smaller one", device)
    model.to_empty(device=device)
    if config.tied:
        model.head.weight = model.token_embedding.weight
    _fill(model, family, source)
    return model.eval()


def load_weights(model: nn.Module, directory):
    """Copy the weights of a directory into a model of that shape: all of them or, on an error, none."""
    directory = Path(directory)
    family, _ = read_config(directory)
    source = TensorFiles(directory)
    _check(model, family, source)
    _fill(model, family, source)


def find(name: str, download: bool = False) -> Path:
    """The directory `name`; or, only when asked to `download`, the model of that name fetched from the hub."""
    if Path(name).is_dir():
        return Path(name)
    if not download:
        raise Error(f"{name}: no such directory; to fetch the model of that name from the hub, add --download")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Error("--download needs the package: pip install minigpt[download]") from None
    files = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.json", "merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as problem:  # whatever the network brings: one sentence
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise Error(f"{name}: could not be fetched from the hub ({reason})") from None


def save(model: nn.Module, directory, *, shard_bytes: int = SHARD_BYTES, **extra):
    """Write `model` so that transformers opens it where it has the architecture (`family_of`), and we always.

    `extra` goes into config.json beside the shape (`eos_token_id=...`). Each file is replaced as a whole, and where
    there are shards, all at once: until the index is, the model of before is read.
    """
    directory = Path(directory)
    shape = model.config
    if shape.tied and getattr(model.head, "weight", None) is not getattr(model.token_embedding, "weight", None):
        shape = replace(shape, tied=False)  # an adapter merged into the head alone has made it a matrix of its own
    name = family_of(shape)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    weights = dict(model.named_parameters())
    entries = list(FAMILIES[name].entries(shape))
    if changed := weights.keys() ^ _parameters(entries):
        raise Error(
            f"{directory}: not saved: {min(changed)} is not as GPT makes it: merge or detach the adapters first"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Error(f"{directory}: cannot make this directory: {problem.strerror}: choose another name") from None
    shards = _shards(entries, weights, shard_bytes)
    written = {}
    for file, shard in zip(file_names(directory, len(shards)), shards, strict=True):
        write_tensors(directory / file, {entry.name: _join(entry, weights) for entry in shard})
        written |= {entry.name: file for entry in shard}
    if len(shards) > 1:
        total = sum(weights[ours].nbytes for shard in shards for entry in shard for ours in entry.ours)
        index = {"metadata": {"total_size": total}, "weight_map": written}
        write_atomic(directory / INDEX, json.dumps(index, indent=2) + "\n")
    config = FAMILIES[name].config_to(shape) | {"dtype": dtype} | extra
    write_atomic(directory / "config.json", json.dumps(config, indent=2) + "\n")
    remove_others(directory, set(written.values()))


def layout(config: GPTConfig) -> list[Entry]:
    """Every tensor of a saved model of that shape; a tied head under the name it would have if it came apart."""
    entries = list(FAMILIES[family_of(config)].entries(config))
    if config.tied:
        own = family_of(config) == "minigpt"
        entries.append(Entry("head.weight" if own else "lm_head.weight", ("head.weight",)))
    return entries


def read_config(directory) -> tuple[Family, GPTConfig]:
    """config.json of a directory, as the family that understands it and our config."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise Error(f"{path}: not found: give a run or Hugging Face directory, which holds a config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as problem:
        raise Error(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise Error(f"{path}: expected a JSON object, found {type(values).__name__}")
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise Error(f"{path}: model_type {kind!r} cannot be represented: {nearest(str(kind), FAMILIES)}")
    if values.get("quantization_config"):
        raise Error(f"{path}: the weights are quantised; give the directory of the full-precision model")
    try:
        return FAMILIES[kind], FAMILIES[kind].config_from(values)
    except (TypeError, ValueError, AttributeError) as problem:
        raise Error(f"{path}: a value has the wrong type ({problem})") from None


def _skeleton(make: Callable, config: GPTConfig, source: TensorFiles):
    """The model without numbers; `Error` for a config that these files cannot belong to, or nothing can hold."""
    count = len(source.file_of)
    if config.n_layers > max(200, count):  # of fewer layers `_check` names the tensor that is missing
        raise Error(f"{source.directory}: config.json says {config.n_layers} layers, the files hold {count} tensors")
    try:
        with torch.device("meta"):
            return make(config)
    except RuntimeError:  # more elements than 64 bits can count
        raise Error(f"{source.directory}: config.json makes matrices larger than any memory: it is damaged") from None


def _check(model: nn.Module, family: Family, source: TensorFiles):
    """Each parameter has its tensor, each tensor its parameters, and both the same shape; else `Error` names it."""
    weights = dict(model.named_parameters())
    entries = list(family.entries(model.config))
    if other := weights.keys() ^ _parameters(entries):
        raise Error(f"{source.directory}: {min(other)} is in the files or in the model, not in both: load it unchanged")
    spelling = _spelling(family, source.file_of)
    unused = {name for name in source.file_of if not is_derived(name)}
    for entry in entries:
        name = spelling(entry.name)
        if name not in source.file_of:
            raise Error(f"{source.directory}: tensor {name!r} is missing: {nearest(name, source.file_of)}")
        _check_header(entry, name, source, [weights[ours].shape for ours in entry.ours])
        unused.discard(name)
    head = "lm_head.weight"
    if head in unused and model.config.tied:
        # Some tools store the tied matrix twice. The same twice is fine; two different ones are two models.
        embedding = source.read(spelling(entries[0].name))
        if not torch.equal(source.read(head).to(embedding.dtype), embedding):
            raise Error(f"{source.directory}: {head} differs from the embedding it is tied to in config.json")
        unused.discard(head)
    if unused:
        raise Error(f"{source.directory}: tensor {min(unused)!r} has no place in this model ({len(unused)} such)")


def _check_header(entry: Entry, name: str, source: TensorFiles, shapes: list[torch.Size]):
    shape, kind = source.header[name]
    expected = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    expected = expected[::-1] if entry.transposed else expected
    if shape != expected:
        raise Error(f"{source.directory}: tensor {name!r} is {shape}, config.json makes it {expected}")
    if kind not in ("F64", "F32", "F16", "BF16"):
        raise Error(f"{source.directory}: tensor {name!r} holds {kind}, expected floating point of at least 16 bits")


def _fill(model: nn.Module, family: Family, source: TensorFiles):
    """Copy every tensor of the files into the model, once `_check` has passed."""
    weights = dict(model.named_parameters())
    spelling = _spelling(family, source.file_of)
    for entry in family.entries(model.config):
        tensor = source.read(spelling(entry.name))
        parts = [weights[name] for name in entry.ours]
        pieces = (tensor.T if entry.transposed else tensor).split([len(part) for part in parts])
        with torch.no_grad():
            for part, piece in zip(parts, pieces, strict=True):
                part.copy_(piece)


def _parameters(entries: list[Entry]) -> set[str]:
    return {name for entry in entries for name in entry.ours}


def _spelling(family: Family, names):
    """GPT-2 as OpenAI published it lacks the prefix "transformer." that transformers writes."""
    bare = family.prefix and not any(name.startswith(family.prefix) for name in names)

    def spell(name: str) -> str:
        return name.removeprefix(family.prefix) if bare else name

    return spell


def _join(entry: Entry, weights: dict[str, Tensor]) -> Tensor:
    tensor = torch.cat([weights[name].detach().cpu() for name in entry.ours])
    return (tensor.T if entry.transposed else tensor).contiguous()


def _shards(entries: list[Entry], weights, shard_bytes: int) -> list[list[Entry]]:
    shards, size = [[]], 0
    for entry in entries:
        nbytes = sum(weights[name].nbytes for name in entry.ours)
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += nbytes
    return shards
