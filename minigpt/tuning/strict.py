"""Files from elsewhere, read strictly: what is not as it should be is an `Error` that names the file. No pickle."""

import json
from pathlib import Path

from torch import Tensor

from minigpt.errors import Error


def read_json(file: Path, hint: str) -> dict:
    """A JSON object; `hint` says what to give if there is no such file."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Error(f"{file}: not found: {hint}") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise Error(f"{file}: not readable as JSON ({problem}): save it again") from None
    if not isinstance(values, dict):
        raise Error(f"{file}: holds a {type(values).__name__}, expected a JSON object of settings")
    return values


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, each finite floating point."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file() and any(file.parent.glob("*.bin")):
        raise Error(f"{file.parent}: holds pickled weights (.bin), which can run code; convert them to safetensors")
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise Error(f"{file}: not found: the directory is incomplete") from None
    except (SafetensorError, OSError) as problem:
        raise Error(f"{file}: not a readable safetensors file ({problem})") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise Error(f"{file}: {name} holds {tensor.dtype}, expected floating point")
        if not tensor.isfinite().all():
            raise Error(f"{file}: {name} holds NaN or infinity: training diverged, or the file is damaged")
    return tensors
