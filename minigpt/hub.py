"""Hugging Face directories in and out: config.json and model.safetensors, whole or in shards.

    minigpt            file (gpt2)
    q_proj (out, in)  \
    k_proj (out, in)   }  c_attn (in, 3 out)      fused matrices are split on the way in, joined on the way out
    v_proj (out, in)  /

No pickle is read, nothing is fetched. `families.py` holds the names.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest
from minigpt.families import FAMILIES, Entry, Family, family_of
from minigpt.model import GPT

SHARD_BYTES = 5_000_000_000


def load(directory, *, dtype: torch.dtype | None = torch.float32, device="cpu", **changes) -> GPT:
    """The model of a run or Hugging Face directory, in `dtype` (None: as stored), in evaluation mode.

    `changes` replace fields of the config that do not touch the weights, such as `resid_dropout=0.0`.
    Every tensor must be there, used, and of the right shape; whatever is not raises `Error` naming it.
    """
    directory = Path(directory)
    _, config = read_config(directory)
    if changes:
        config = GPTConfig.from_dict(config.to_dict() | changes)
    with torch.device("meta"):
        model = GPT(config)
    model = model.to(dtype or _Tensors(directory).dtype()).to_empty(device=device)
    if config.tied:
        model.head.weight = model.token_embedding.weight
    load_weights(model, directory)
    return model.eval()


def load_weights(model: GPT, directory):
    """Copy the weights of a directory into a model of that shape, tensor by tensor."""
    directory = Path(directory)
    family, _ = read_config(directory)
    _fill(model, family, _Tensors(directory))


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


def save(model: GPT, directory, *, shard_bytes: int = SHARD_BYTES, **extra):
    """Write `model` so that transformers opens it where it has the architecture (`family_of`), and we always.

    `extra` goes into config.json beside the shape (`eos_token_id=...`). Each file is replaced as a whole.
    """
    from minigpt.files import write_atomic

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    name = family_of(model.config)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    weights = dict(model.named_parameters()) | {"head.weight": model.head.weight}
    shards = _shards(list(FAMILIES[name].entries(model.config)), weights, shard_bytes)
    written = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(directory / file, {entry.name: _join(entry, weights) for entry in shard})
        written |= {entry.name: file for entry in shard}
    if len(shards) > 1:
        total = sum(weights[ours].nbytes for shard in shards for entry in shard for ours in entry.ours)
        index = {"metadata": {"total_size": total}, "weight_map": written}
        write_atomic(directory / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    config = FAMILIES[name].config_to(model.config) | {"dtype": dtype} | extra
    write_atomic(directory / "config.json", json.dumps(config, indent=2) + "\n")
    _remove_others(directory, set(written.values()))


def write_tensors(path: Path, tensors: dict[str, Tensor]):
    """One safetensors file, under its name only once it is whole."""
    from safetensors.torch import save_file

    from minigpt.files import atomic_file

    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def read_config(directory) -> tuple[Family, GPTConfig]:
    """config.json of a directory, as the family that understands it and our config."""
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise Error(f"{path}: not found: give a run or Hugging Face directory, which holds a config.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise Error(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise Error(f"{path}: expected a JSON object, found {type(values).__name__}")
    kind = values.get("model_type")
    if kind not in FAMILIES:
        raise Error(f"{path}: model_type {kind!r} cannot be represented: {nearest(str(kind), FAMILIES)}")
    if values.get("quantization_config"):
        raise Error(f"{path}: the weights are quantised; give the directory of the full-precision model")
    try:
        return FAMILIES[kind], FAMILIES[kind].config_from(values)
    except (TypeError, ValueError, AttributeError) as problem:
        raise Error(f"{path}: a value has the wrong type ({problem})") from None


class _Tensors:
    """The tensors of a directory, read one at a time from however many files."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.file_of = {name: file for file in self._files() for name in self._open(file).keys()}  # noqa: SIM118

    def _files(self) -> list[Path]:
        single, index = self.directory / "model.safetensors", self.directory / "model.safetensors.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError):
                raise Error(f"{index}: not an index of safetensors files: download it again") from None
            # An index is a file from elsewhere: a name in it must not lead out of the directory.
            if any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise Error(f"{index}: names a file outside the directory; refused")
            return [self.directory / name for name in names]
        if any(self.directory.glob("*.bin")):
            raise Error(f"{self.directory}: holds pickled weights (.bin), which can run code; convert to safetensors")
        raise Error(f"{self.directory}: no model.safetensors and no model.safetensors.index.json")

    def _open(self, file: Path):
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(file, framework="pt")
        except FileNotFoundError:
            raise Error(f"{file}: not found, but the index names it: download it again") from None
        except (SafetensorError, OSError) as problem:
            raise Error(f"{file}: not a readable safetensors file ({problem})") from None

    def read(self, name: str) -> Tensor:
        return self._open(self.file_of[name]).get_tensor(name)

    def dtype(self) -> torch.dtype:
        return self.read(min(self.file_of)).dtype


def _fill(model: GPT, family: Family, source: _Tensors):
    """Copy every tensor of the files into the model; each side must be used up."""
    weights = dict(model.named_parameters()) | {"head.weight": model.head.weight}
    spelling = _spelling(family, source.file_of)
    unused = {name for name in source.file_of if not _derived(name)}
    for entry in family.entries(model.config):
        name = spelling(entry.name)
        if name not in source.file_of:
            raise Error(f"{source.directory}: tensor {name!r} is missing: {nearest(name, source.file_of)}")
        _split(entry, source.read(name), weights, source.directory)
        unused.discard(name)
    head = "lm_head.weight"
    if head in unused and model.config.tied:
        # Some tools store the tied matrix twice. The same twice is fine; two different ones are two models.
        theirs = source.read(head).to(model.head.weight)
        if not torch.equal(theirs, model.head.weight):
            raise Error(f"{source.directory}: {head} differs from the embedding it is tied to in config.json")
        unused.discard(head)
    if unused:
        raise Error(f"{source.directory}: tensor {min(unused)!r} has no place in this model ({len(unused)} such)")


def _spelling(family: Family, names):
    """GPT-2 as OpenAI published it lacks the prefix "transformer." that transformers writes."""
    bare = family.prefix and not any(name.startswith(family.prefix) for name in names)

    def spell(name: str) -> str:
        return name.removeprefix(family.prefix) if bare else name

    return spell


def _derived(name: str) -> bool:
    """Buffers that old files carry and anyone can compute: causal masks, rotary frequencies."""
    return name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))


def _split(entry: Entry, tensor: Tensor, weights: dict[str, Tensor], where: Path):
    stored = tensor.T if entry.transposed else tensor
    parts = [weights[name] for name in entry.ours]
    expected = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    if tuple(stored.shape) != expected:
        expected = expected[::-1] if entry.transposed else expected
        raise Error(f"{where}: tensor {entry.name!r} is {tuple(tensor.shape)}, config.json makes it {expected}")
    if not tensor.is_floating_point():
        raise Error(f"{where}: tensor {entry.name!r} holds {tensor.dtype}, expected floating point")
    with torch.no_grad():
        for part, piece in zip(parts, stored.split([len(part) for part in parts]), strict=True):
            part.copy_(piece)


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


def _remove_others(directory: Path, written: set[str]):
    """Files of an earlier save that would now be read instead of, or beside, the new ones."""
    index = directory / "model.safetensors.index.json"
    if len(written) == 1:
        index.unlink(missing_ok=True)
    for file in model_files(directory):
        if file.suffix == ".safetensors" and file.name not in written:
            file.unlink()


def model_files(directory: Path) -> list[Path]:
    """The files `save` writes, config.json last: who copies them in this order never has a config without weights."""
    found = [*directory.glob("model*.safetensors"), *directory.glob("model.safetensors.index.json")]
    return sorted(found) + [directory / "config.json"]
