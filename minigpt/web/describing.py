"""What is served, in numbers: the model, its adapters, and what a LoRA adapter has learned."""

from torch import nn

from minigpt.web.studio import Studio


def about(studio: Studio) -> dict:
    """For a page that has just been opened."""
    found = {"model": None, "adapters": [], "runs": studio.runs_dir is not None, "chat": studio.model is not None}
    if studio.model is None:
        return found
    config = studio.model.config
    added = {id(p) for name in studio.adapters.values() for module in _parts(studio.model, name) for p in _of(module)}
    found["model"] = {
        "id": studio.name,
        "parameters": sum(p.numel() for p in studio.model.parameters() if id(p) not in added),
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
    parts = _parts(studio.model, attached := studio.attached(name))
    found = {"id": name, "method": "other", "parameters": sum(p.numel() for part in parts for p in _of(part))}
    found |= {"rank": None, "alpha": None}
    if studio.lora is not None and attached in studio.lora.names(studio.model):
        layers = studio.lora.layers_of(studio.model).values()
        ranks = [layer.adapters[attached].rank for layer in layers if attached in layer.adapters]
        scales = [layer.adapters[attached].config.alpha for layer in layers if attached in layer.adapters]
        found |= {"method": "lora", "rank": max(ranks, default=None), "alpha": max(scales, default=None)}
    return found


def spectra(studio: Studio, name: str) -> list[dict]:
    """Singular values of each layer's update, and its size beside that of the weight it is added to."""
    layers, found = studio.lora.layers_of(studio.model), []
    for path, each in studio.lora.spectra(studio.model, studio.attached(name)).items():
        weight = getattr(layers[path].base, "weight", None)
        norm = weight.norm().item() if weight is not None and weight.is_floating_point() else 0.0
        numbers = {
            "norm": each.norm,
            "share": each.norm / norm if norm else None,
            "effective_rank": each.effective_rank,
        }
        values = [round(value, 6) for value in each.values]
        found.append({"name": path, "values": values, "rank": each.rank} | {k: _round(v) for k, v in numbers.items()})
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


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
