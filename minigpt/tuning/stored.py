"""What a method learned, on disk: NAME_config.json, which names the method, and NAME_model.safetensors.

For methods PEFT has no format for. Read strictly: what is unknown, missing or of another shape is an error.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

from torch import Tensor

from minigpt.errors import Error, nearest
from minigpt.files import write_atomic
from minigpt.tensor_files import write_tensors
from minigpt.tuning import strict

BASE = "base_model_name_or_path"  # PEFT's word


def write(
    directory: str | Path, method: str, config, tensors: dict[str, Tensor], name: str = "adapter", base: str = ""
):
    """Each file whole or not at all; `config` is a dataclass of plain values, `base` the name of the model below."""
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Error(f"{directory}: not saved: {key} holds NaN or infinity")
    directory = Path(directory)
    plain = {key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)}
    write_tensors(directory / f"{name}_model.safetensors", plain)
    values = {"method": method, BASE: base or None} | asdict(config)
    text = json.dumps(values, indent=2) + "\n"
    write_atomic(directory / f"{name}_config.json", text)


def read_config(directory: str | Path, method: str, kind: type, name: str = "adapter"):
    """The config, a `kind`."""
    file = Path(directory) / f"{name}_config.json"
    values = strict.read_json(file, f"give a directory that {method}.save has written")
    if (found := values.pop("method", None)) != method:
        raise Error(f'{file}: expected "method": {method!r}, found {found!r}: it was written by something else')
    values.pop(BASE, None)
    known = {field.name for field in fields(kind)}
    for key in values:
        if key not in known:
            raise Error(f"{file}: unknown key {key!r}: {nearest(key, known)}")
    if missing := known - values.keys():
        raise Error(f"{file}: lacks the key {min(missing)!r}: save it again")
    try:
        return kind(**values)
    except TypeError:
        raise Error(f"{file}: a value is of the wrong type: save it again") from None


def read_tensors(directory: str | Path, shapes: dict[str, tuple], name: str = "adapter") -> dict[str, Tensor]:
    """Exactly the tensors of `shapes`."""
    file = Path(directory) / f"{name}_model.safetensors"
    found = strict.read_tensors(file)
    if odd := found.keys() ^ shapes.keys():
        what = "holds a tensor this model has no place for" if min(odd) in found else "lacks the tensor"
        raise Error(f"{file}: {what}: {min(odd)}: it belongs to a model of another shape")
    for key, tensor in found.items():
        if tuple(tensor.shape) != tuple(shapes[key]):
            have = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            raise Error(f"{file}: {key} is {have}, expected {tuple(shapes[key])}: it belongs to another model")
    return found
