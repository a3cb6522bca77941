"""adapter_config.json of PEFT, to our Config and back.

What PEFT lets default silently (r, lora_alpha) must be there; what would change the result and is not built here is
refused by name; an unknown key is an error that names the nearest known one.
"""

import json
from pathlib import Path

from lora.config import Config
from lora.errors import Error, nearest

NAME = "adapter_config.json"

# PEFT's key -> ours
FIELDS = {
    "r": "r",
    "lora_alpha": "alpha",
    "target_modules": "targets",
    "exclude_modules": "exclude",
    "use_rslora": "rslora",
    "lora_dropout": "dropout",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "layers_to_transform": "layers",
    "use_dora": "dora",
    "bias": "bias",
    "modules_to_save": "modules_to_save",
}
# Written for PEFT, of no consequence for the numbers. `fan_in_fan_out` is PEFT's guess; the weight's shape knows.
NEUTRAL = {
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "fan_in_fan_out", "runtime_config", "megatron_core", "layers_pattern", "init_lora_weights", "ensure_weight_tying",
    "loftq_config",
}  # fmt: skip
# Change what the adapter computes, in ways that are not built here. Fine when absent, null, false or empty.
REFUSED = {
    "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication", "megatron_config",
    "eva_config", "corda_config", "lora_ga_config", "use_qalora", "qalora_group_size", "alora_invocation_tokens",
    "arrow_config", "kasa_config", "velora_config", "monteclora_config", "use_bdlora",
}  # fmt: skip
# Ways to start A and B that leave the base as it is. PiSSA, OLoRA, CorDA and LoRA-GA change it.
HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
QALORA_DEFAULT = 16


def read(directory: Path) -> Config:
    """The Config of an adapter directory; `Error` names the key that is missing, unknown or not supported."""
    path = directory / NAME
    values = _load(path)
    if values.get("peft_type") != "LORA":
        raise Error(f"{path}: peft_type is {values.get('peft_type')!r}, expected 'LORA': not an adapter of this kind")
    for key, value in values.items():
        if key not in FIELDS and key not in NEUTRAL | REFUSED:
            raise Error(f"{path}: unknown key {key!r}: {nearest(key, FIELDS.keys() | NEUTRAL | REFUSED)}")
        if key in REFUSED and value and (key, value) != ("qalora_group_size", QALORA_DEFAULT):
            raise Error(f"{path}: {key} is {value!r}, which changes what the adapter computes and is not supported")
    for key in ("r", "lora_alpha"):
        if values.get(key) is None:
            raise Error(f"{path}: {key} is missing; without it the strength of the adapter is a guess: add it")
    start = values.get("init_lora_weights", True)
    if start not in HARMLESS_STARTS:
        raise Error(
            f"{path}: init_lora_weights is {start!r}, which changed the base: convert it to a plain adapter first"
        )
    return _config(values, path)


def _load(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Error(f"{path}: not found: give the directory of an adapter, with {NAME} in it") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise Error(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise Error(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _config(values: dict, path: Path) -> Config:
    given = {ours: values[theirs] for theirs, ours in FIELDS.items() if values.get(theirs) is not None}
    given.setdefault("targets", "")
    if not given["targets"] and not given.get("modules_to_save"):
        raise Error(f"{path}: target_modules is missing: PEFT would guess it from the architecture; name the modules")
    pattern = values.get("layers_pattern")
    if pattern:
        given["targets"] = _with_layers(given, pattern)
    if given.get("alpha") == 0:
        raise Error(f"{path}: lora_alpha is 0, so the adapter does nothing: the file is damaged, or was never meant")
    given["tied"] = "tie" if values.get("ensure_weight_tying") else "untie"
    given["init"] = "gaussian" if values.get("init_lora_weights") == "gaussian" else "kaiming"
    try:
        return Config(**given)
    except (TypeError, ValueError, AttributeError) as problem:
        raise Error(f"{path}: a value has the wrong type ({problem})") from None
    except Error as problem:
        raise Error(f"{path}: {str(problem).removeprefix('lora.Config: ')}") from None


def _with_layers(given: dict, pattern: str | list[str]) -> str:
    """PEFT's layers_pattern as a part of one regular expression, which says the same and needs no field."""
    targets = given["targets"]
    if isinstance(targets, str):
        return targets  # PEFT, too, looks at layers only with a list
    names = [pattern] if isinstance(pattern, str) else pattern
    numbers = "|".join(map(str, given.pop("layers", None) or [r"\d+"]))
    ends = "|".join(target.replace(".", r"\.") for target in targets)
    return rf"(.*\.)?({'|'.join(names)})\.({numbers})\.(.*\.)?({ends})"


def write(config: Config, base: str = "") -> str:
    """The text of adapter_config.json, the same bytes for the same config on any machine."""
    values = {
        "peft_type": "LORA",
        "base_model_name_or_path": base or None,
        "inference_mode": True,
        "fan_in_fan_out": False,
        "init_lora_weights": "gaussian" if config.init == "gaussian" else True,
        "ensure_weight_tying": config.tied == "tie",
    }
    for theirs, ours in FIELDS.items():
        value = getattr(config, ours)
        values[theirs] = sorted(value) if isinstance(value, tuple) else value
    for key in ("exclude_modules", "modules_to_save"):
        values[key] = values[key] or None
    # Sorted on top only: of several patterns that fit a layer the first counts, so their order is part of the config.
    return json.dumps(dict(sorted(values.items())), indent=2, ensure_ascii=False) + "\n"
