"""What is served, in numbers: the model, its adapters, and what a LoRA adapter has learned."""

from torch import nn

from minigpt.model import count_parameters
from minigpt.tuning import learning
from minigpt.tuning.composed import METHODS
from minigpt.web.studio import Studio


def about(studio: Studio) -> dict:
    """For a page that has just been opened."""
    found = {"model": None, "adapters": [], "runs": studio.runs_dir is not None, "chat": studio.model is not None}
    if studio.model is None:
        return found
    config = studio.model.config
    found["model"] = {
        "id": studio.name,
        "parameters": count_parameters(config),  # also where four bits hold them
        "layers": config.n_layers,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "width": config.d_model,
        "context": config.context,
        "vocabulary": config.vocab_size,
        "positions": config.positions,
        "end": studio.tokenizer.eot,
    }
    return found | {"adapters": [of_adapter(studio, name) for name in studio.adapters]}


def of_adapter(studio: Studio, name: str) -> dict:
    """An adapter in numbers; rank and alpha are LoRA's."""
    model, attached = studio.model, studio.attached(name)
    methods = ({"LORA": studio.lora} if studio.lora else {}) | METHODS  # what P-tuning made is a prompt by now
    method = next(kind for kind, module in methods.items() if attached in module.names(model))
    base = {id(weight) for weight in learning.base_of(model)}  # which some share
    own = {id(weight): weight for part in _parts(model, attached) for weight in _of(part) if id(weight) not in base}
    found = {"id": name, "method": method, "parameters": sum(weight.numel() for weight in own.values())}
    held = []
    if method == "LORA":
        layers = studio.lora.layers_of(model).values()
        held = [layer.adapters[attached] for layer in layers if attached in layer.adapters]
    found["rank"] = max((each.rank for each in held), default=None)
    return found | {"alpha": max((each.config.alpha for each in held), default=None)}


def spectra(studio: Studio, name: str) -> list[dict]:
    """Singular values of each layer's update, and its size beside that of the weight it is added to."""
    layers, found = studio.lora.layers_of(studio.model), []
    for path, each in studio.lora.spectra(studio.model, studio.attached(name)).items():
        weight = getattr(layers[path].base, "weight", None)
        norm = 0.0 if weight is None else weight.detach().float().norm().item()
        told = {"name": path, "values": [_digits(value) for value in each.values], "rank": each.rank}
        told |= {"norm": _digits(each.norm), "share": _digits(each.norm / norm) if norm else None}
        found.append(told | {"effective_rank": _digits(each.effective_rank)})
    return found


def _parts(model: nn.Module, attached: str | None) -> list[nn.Module]:
    """The modules and tensors that were put beside the model's own under a name."""
    found = []
    for module in model.modules():
        if isinstance(where := getattr(module, "learned_in", None), str):
            held = getattr(module, where)
            found += [held[attached]] if attached in held else []
    return found


def _of(part) -> list:
    return list(part.parameters()) if isinstance(part, nn.Module) else [part]


def _digits(value: float) -> float:
    """Six of them, however small the number is."""
    return float(f"{value:.6g}")
