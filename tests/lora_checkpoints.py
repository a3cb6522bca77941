"""Small checkpoints and adapters as they lie on disk, and ways to merge them that share no code with ours."""

import json
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file

from lora import files
from lora.config import Config
from lora.exact import Update

WIDTH, DTYPES = 48, (torch.float32, torch.bfloat16, torch.float16)
LINEAR = {  # leaf -> (out, in) of a Llama-shaped layer
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH // 2, WIDTH),
    "self_attn.v_proj": (WIDTH // 2, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.up_proj": (3 * WIDTH, WIDTH),
    "mlp.down_proj": (WIDTH, 3 * WIDTH),
}


def llama(layers: int = 2, dtype=torch.float32, tied: bool = False) -> dict[str, torch.Tensor]:
    tensors = {"model.embed_tokens.weight": torch.randn(61, WIDTH), "model.norm.weight": torch.randn(WIDTH)}
    if not tied:
        tensors["lm_head.weight"] = torch.randn(61, WIDTH)
    for layer in range(layers):
        for leaf, shape in LINEAR.items():
            tensors[f"model.layers.{layer}.{leaf}.weight"] = torch.randn(shape) * 0.05
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = torch.rand(WIDTH)
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def save(directory: Path, tensors: dict, config: dict | None = None, shards: int = 1) -> Path:
    """A Hugging Face directory; with `shards`, an index and that many files."""
    directory.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in sorted(set(places.values())):
        save_file({n: t for n, t in tensors.items() if places[n] == file}, directory / file, metadata={"format": "pt"})
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return directory


def adapter(
    directory: Path, tensors: dict, r=4, alpha=8.0, targets=("q_proj", "v_proj", "down_proj"), std=0.05,
    dtype=torch.float32, fingerprint=None, **options,
) -> Path:  # fmt: skip
    """Random A and B for every weight (out, in) whose module is a target."""
    config = Config(r=r, alpha=alpha, targets=tuple(targets), **{"tied": "untie", **options})
    updates = {}
    for name, weight in tensors.items():
        path = name.removesuffix(".weight")
        if name.endswith(".weight") and weight.ndim == 2 and config.wants(path):
            A, B = torch.randn(r, weight.shape[1]) * std, torch.randn(weight.shape[0], r) * std
            magnitude = torch.rand(weight.shape[0]) + 0.5 if config.dora else None
            updates[path] = Update(A.to(dtype), B.to(dtype), config.scale(path), magnitude=magnitude)
    files.write(files.Stored(config, updates, fingerprint=fingerprint or {}), directory)
    return directory


def nearest(x: numpy.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """float64 -> dtype by numpy: ties to even; bfloat16 by rounding the mantissa to 8 bits."""
    if dtype == torch.bfloat16:
        mantissa, exponent = numpy.frexp(x)
        return torch.from_numpy(numpy.ldexp(numpy.rint(mantissa * 256) / 256, exponent)).float().to(torch.bfloat16)
    kind = {torch.float32: numpy.float32, torch.float16: numpy.float16, torch.float64: numpy.float64}[dtype]
    return torch.from_numpy(x.astype(kind))


def delta(directory: Path, path: str) -> numpy.ndarray:
    """s B A in float64, from the files alone."""
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    A, B = (tensors[f"base_model.model.{path}.lora_{part}.weight"].double().numpy() for part in "AB")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    return scale * (B @ A)


def paths(directory: Path) -> list[str]:
    names = load_file(directory / "adapter_model.safetensors")
    ends = (".lora_A.weight",)
    return [
        name.removeprefix("base_model.model.").removesuffix(end) for name in names for end in ends if name.endswith(end)
    ]


def merged(tensors: dict, directory: Path, times: float = 1.0, skip=(), dtype=None) -> dict:
    """The naive merge: float64, one rounding."""
    result = {
        name: tensor if dtype is None else nearest(tensor.double().numpy(), dtype) for name, tensor in tensors.items()
    }
    for path in paths(directory):
        weight = tensors[f"{path}.weight"]
        if path not in skip:
            total = weight.double().numpy() + times * delta(directory, path)
            result[f"{path}.weight"] = nearest(total, dtype or weight.dtype)
    return result
