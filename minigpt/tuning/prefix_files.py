"""A prefix on disk, in PEFT's format: adapter_config.json beside adapter_model.safetensors. Strict, no pickle.

    prompt_embeddings    (P, 2 L G e)    P virtual tokens, L layers, G key/value heads, e head size; see prefix.py

An MLP is not stored, by PEFT neither: prefix_projection in a file of PEFT's says how it was trained, ours say false, as
is true of what is there. PEFT trains no prefix that it has read; we do. `minigpt_shift` and `minigpt_dropout` stand
there where they are not PEFT's way; PEFT warns of them and shifts.
"""

import json
from pathlib import Path

from torch import Tensor

from minigpt.errors import Error, nearest
from minigpt.files import write_atomic
from minigpt.tensor_files import write_tensors
from minigpt.tuning.strict import read_json, read_tensors

CONFIG, TENSORS, KEY = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
DEFAULTS = {  # of PEFT's PrefixTuningConfig; what says something about F is checked by `read`
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "encoder_hidden_size": None,
    "inference_mode": True,
    "init_weights": None,
    "modules_to_save": None,
    "num_attention_heads": None,
    "num_layers": None,
    "num_transformer_submodules": 1,
    "num_virtual_tokens": None,
    "peft_type": "PREFIX_TUNING",
    "peft_version": None,
    "prefix_projection": False,
    "revision": None,
    "task_type": "CAUSAL_LM",
    "token_dim": None,
}
OURS = {"minigpt_shift": True, "minigpt_dropout": 0.0}


def write(table: Tensor, directory: str | Path, shift: bool, dropout: float, base: str = ""):
    """F (P, 2L, G, e) and how it stands before a text; each file whole or not at all, the tensors first."""
    directory, (length, layers, heads, size) = Path(directory), table.shape
    if not table.isfinite().all():
        raise Error(f"{directory}: not saved: the prefix holds NaN or infinity: training diverged")
    sizes = {"num_virtual_tokens": length, "num_layers": layers // 2}
    sizes |= {"num_attention_heads": heads, "token_dim": heads * size, "base_model_name_or_path": base or None}
    ours = {"minigpt_shift": shift, "minigpt_dropout": dropout}
    config = DEFAULTS | sizes | {key: value for key, value in ours.items() if value != OURS[key]}
    write_tensors(directory / TENSORS, {KEY: table.detach().reshape(length, -1).cpu().contiguous()})
    write_atomic(directory / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read(directory: str | Path, layers: int, heads: int, size: int) -> tuple[Tensor, dict]:
    """F (P, 2L, G, e) for a model of these sizes, and {"shift", "dropout"}; `Error` for anything else than that."""
    file, config = Path(directory) / CONFIG, _read_config(Path(directory) / CONFIG)
    expected = {"num_layers": layers, "num_attention_heads": heads, "token_dim": heads * size}
    expected |= {"peft_type": "PREFIX_TUNING", "num_transformer_submodules": 1, "modules_to_save": None}
    for key, value in expected.items():
        if config[key] != value:
            raise Error(
                f"{file}: {key} is {config[key]!r}, this model needs {value!r}: a prefix fits only its own base"
            )
    length = config["num_virtual_tokens"]
    if type(length) is not int or length < 1:
        raise Error(f"{file}: num_virtual_tokens is {length!r}, expected a whole number of at least 1")
    table = _read_table(Path(directory) / TENSORS, (length, 2 * layers * heads * size))
    settings = {"shift": config["minigpt_shift"], "dropout": config["minigpt_dropout"]}
    return table.view(length, 2 * layers, heads, size), settings


def _read_config(file: Path) -> dict:
    config, known = read_json(file, "give the directory that a prefix was saved to"), DEFAULTS | OURS
    for key in config.keys() - known.keys():
        raise Error(f"{file}: unknown setting {key!r}: {nearest(key, known)}")
    return known | config


def _read_table(file: Path, shape: tuple[int, int]) -> Tensor:
    tensors = read_tensors(file)
    if tensors.keys() != {KEY}:
        raise Error(f"{file}: holds {', '.join(sorted(tensors)) or 'nothing'}, expected {KEY!r} alone")
    table = tensors[KEY]
    if table.shape != shape:
        raise Error(f"{file}: {KEY} is {tuple(table.shape)}, expected {shape}")
    return table
