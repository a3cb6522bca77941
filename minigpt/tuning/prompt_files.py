"""Soft prompts on disk, in PEFT's format: adapter_config.json beside adapter_model.safetensors. Strict, no pickle.

    prompt_embeddings   (P, C)        the one tensor, of prompt tuning and of P-tuning alike

An unknown key, another tensor, a shape that is not the model's: an `Error` that says what was expected.
"""

import json
from pathlib import Path

from torch import Tensor

from minigpt.errors import Error, nearest
from minigpt.files import atomic_file
from minigpt.model import GPT
from minigpt.tuning.strict import read_json, read_tensors

CONFIG, TENSORS, KEY = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
SHAPE = ("num_virtual_tokens", "token_dim", "num_layers", "num_transformer_submodules")
ENCODER = ("encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout")
# Of no consequence for a stored table: where it came from, how it began.
NEUTRAL = (
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "num_attention_heads",
    "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs",
    "minigpt_shift",  # false where texts keep their own positions: see `virtual.rows`
)  # fmt: skip


def write(model: GPT, directory: str | Path, table: Tensor, values: dict, base: str = "", more: dict | None = None):
    """Both files, and `more` safetensors files by name; all complete before the first gets its name."""
    from safetensors.torch import save

    directory, table = Path(directory), table.detach().cpu().contiguous()
    if not table.isfinite().all():
        raise Error(f"{directory}: not saved: the prompt holds NaN or infinity: lower the learning rate and tune again")
    values = values | {
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "inference_mode": True,
        "num_virtual_tokens": len(table),
        "token_dim": table.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": model.config.n_heads,
        "num_layers": model.config.n_layers,
    }
    files = {name: save(tensors, metadata={"format": "pt"}) for name, tensors in (more or {}).items()}
    files |= {TENSORS: save({KEY: table}, metadata={"format": "pt"})}
    files |= {CONFIG: (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()}
    _write_all(directory, list(files.items()))


def shifted(model: GPT, name: str, shift: bool | None) -> dict:
    """What a file says of the positions of texts, where they are not PEFT's; None: as the prompt is held."""
    shift = name not in model.token_embedding.unshifted if shift is None else shift
    return {} if shift else {"minigpt_shift": False}


def _write_all(directory: Path, files: list[tuple[str, bytes]]):
    if files:
        (name, content), *others = files
        with atomic_file(directory / name) as temporary:
            temporary.write_bytes(content)
            _write_all(directory, others)


def read(model: GPT, directory: str | Path, kinds: tuple[str, ...]) -> tuple[dict, Tensor]:
    """The config and the table (P, C) of a stored prompt for this model."""
    directory = Path(directory)
    values = _config(directory / CONFIG, kinds)
    tensors = read_tensors(directory / TENSORS)
    if tensors.keys() != {KEY}:
        raise Error(f"{directory / TENSORS}: holds {sorted(tensors)}, expected {KEY!r} alone: not a soft prompt")
    table, shape = tensors[KEY], (values["num_virtual_tokens"], values["token_dim"])
    if tuple(table.shape) != shape:
        raise Error(f"{directory / TENSORS}: {KEY} is {tuple(table.shape)}, {CONFIG} makes it {shape}")
    for key, ours in (("token_dim", model.config.d_model), ("num_layers", model.config.n_layers)):
        if values.get(key) not in (None, ours):
            raise Error(f"{directory / CONFIG}: {key} is {values[key]}, the model's is {ours}: made for another base")
    if len(table) >= model.config.context:
        raise Error(f"{directory}: {len(table)} virtual tokens leave no room in the context of {model.config.context}")
    return values, table


def _config(path: Path, kinds: tuple[str, ...]) -> dict:
    values = read_json(path, "give the directory of a stored prompt")
    if (found := values.get("peft_type")) not in kinds:
        raise Error(f"{path}: peft_type is {found!r}, expected {' or '.join(kinds)}: not a prompt of this kind")
    known = {"peft_type", "task_type", "modules_to_save", *SHAPE, *NEUTRAL}
    known |= {*ENCODER} if values["peft_type"] == "P_TUNING" else set()
    for key in values:
        if key not in known:
            raise Error(f"{path}: unknown key {key!r}: {nearest(key, known)}")
    for key, allowed in (
        ("task_type", (None, "CAUSAL_LM")),
        ("num_transformer_submodules", (None, 1)),
        ("minigpt_shift", (None, True, False)),
        ("modules_to_save", (None, [])),
    ):
        if values.get(key) not in allowed:
            raise Error(f"{path}: {key} is {values[key]!r}, expected {allowed[-1]!r}: not built here")
    for key in ("num_virtual_tokens", "token_dim"):
        if type(values.get(key)) is not int or values[key] < 1:
            raise Error(f"{path}: {key} is {values.get(key)!r}, expected a whole number of at least 1")
    return values
