"""Which modules a config names: found before anything is touched, so that a wrong name leaves the model as it was."""

from collections.abc import Iterator

from torch import Tensor, nn

from lora.config import ALL_LINEAR, Config, ends_path, named
from lora.errors import Error, nearest
from lora.layers import Conv1DLayer, EmbeddingLayer, Layer, LinearLayer
from lora.nf4_layer import NF4Linear
from lora.saved import Holder

HEADS = ("lm_head", "head", "embed_out", "output_layer", "score", "classifier")  # what "all-linear" leaves out


def find_targets(model: nn.Module, config: Config) -> dict[str, nn.Module]:
    """Path -> module (a Layer, if it is adapted already) of everything the config adapts."""
    modules = dict(walk(model))
    found = {}
    for path, module in modules.items():
        if not config.wants(path):
            continue
        if config.targets == ALL_LINEAR and (
            kind_of(module) not in (LinearLayer, Conv1DLayer) or _is_head(model, path)
        ):
            continue
        if kind_of(module) is None:
            kind = type(base_module(module)).__name__
            raise Error(f"lora: {path} is a {kind}; adapters fit Linear, Conv1D and Embedding: name another layer")
        if config.dora and kind_of(module) is EmbeddingLayer:
            raise Error(f"lora: dora: {path} is an embedding; DoRA here fits linear layers: leave it out")
        check_plain(path, module)
        found[path] = module
    if config.targets:
        _check_names(config, modules, found)
    return found


def walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules as they are named without adapters: nothing inside a Layer or a Saved, nor what others have added."""
    inside = ()
    for path, module in model.named_modules():
        if not path or (inside and path.startswith(inside)):
            continue
        if isinstance(module, Holder):
            inside = (*inside, path + ".")
        elif isinstance(child := getattr(module, "learned_in", None), str):
            inside = (*inside, f"{path}.{child}.")
        yield path, module


def _check_names(config: Config, modules: dict, found: dict):
    leaves = {path.rsplit(".", 1)[-1] for path in modules} | modules.keys()
    names = (config.targets,) if isinstance(config.targets, str) else config.targets
    for name in names:
        fits = found if isinstance(config.targets, str) else [path for path in found if named((name,), path)]
        if not fits:
            within = f" within layers {list(config.layers)}" if config.layers is not None else ""
            raise Error(f"lora: targets: {name!r} fits no module{within}: {nearest(name, leaves)}")
    for kind in ("rank_pattern", "alpha_pattern", "slices"):
        for key in getattr(config, kind):
            if not any(ends_path(key, path) for path in found):
                raise Error(f"lora: {kind}: {key!r} fits none of the {len(found)} targets: {nearest(key, found)}")
    for name in () if isinstance(config.exclude, str) else config.exclude:
        if not any(named((name,), path) for path in modules):
            raise Error(f"lora: exclude: {name!r} fits no module: {nearest(name, leaves)}")


def find_saved(model: nn.Module, config: Config) -> dict[str, str | None]:
    """Path -> None for modules to learn whole, "bias" where only their bias learns."""
    found = {}
    modules = dict(walk(model))
    for name in config.modules_to_save:
        fits = [path for path in modules if named((name,), path)]
        if not fits:
            leaves = {path.rsplit(".", 1)[-1] for path in modules}
            raise Error(f"lora: modules_to_save: {name!r} fits no module: {nearest(name, leaves)}")
        found |= dict.fromkeys(fits)
    if config.bias == "all":
        adapted = find_targets(model, config) if config.targets else {}  # these have theirs beside A and B
        for path, module in modules.items():
            bias = getattr(base_module(module), "bias", None)
            if isinstance(bias, nn.Parameter) and path not in found and path not in adapted:
                found[path] = "bias"
    for path in found:
        within = (module for own, module in model.named_modules() if f"{own}.".startswith(f"{path}."))
        if any(isinstance(module, Layer) for module in within):
            raise Error(
                f"lora: {path} carries adapters already and cannot be learned whole: detach them, or leave it out"
            )
    return found


def kind_of(module: nn.Module) -> type[Layer] | None:
    if isinstance(module, Layer):
        return type(module)
    if isinstance(module, nn.Linear) and type(module).__name__ != "NonDynamicallyQuantizableLinear":
        return LinearLayer  # that one is nn.MultiheadAttention's, which reads the weight and never calls it
    if isinstance(module, NF4Linear):
        return Conv1DLayer if module.transposed else LinearLayer
    if isinstance(module, nn.Embedding):
        return EmbeddingLayer
    if type(module).__name__ == "Conv1D" and isinstance(getattr(module, "weight", None), nn.Parameter):
        return Conv1DLayer
    return None


def check_plain(path: str, module: nn.Module):
    """A weight that is computed, or changed by forward, can be neither merged nor left as it is."""
    base = base_module(module)
    if isinstance(base, NF4Linear):
        return
    if not isinstance(base.weight, nn.Parameter):
        raise Error(
            f"lora: {path}: its weight is computed (weight_norm, a parametrization): remove that, or leave it out"
        )
    if getattr(base, "max_norm", None) is not None:
        raise Error(f"lora: {path}: its max_norm rewrites the weight in forward: set it to None, or leave it out")


def _is_head(model: nn.Module, path: str) -> bool:
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return path.rsplit(".", 1)[-1] in HEADS or (output is not None and model.get_submodule(path) is output)


def base_module(module: nn.Module) -> nn.Module:
    return module.base if isinstance(module, Holder) else module


def like_of(module: nn.Module) -> Tensor:
    """Something of the weight's dtype and device."""
    base = base_module(module)
    return base.like if isinstance(base, NF4Linear) else base.weight


def sizes_of(module: nn.Module) -> tuple[int, int]:
    if isinstance(base := base_module(module), NF4Linear):
        return base.in_features, base.out_features
    rows, columns = base_module(module).weight.shape
    return (rows, columns) if kind_of(module).transposed else (columns, rows)


def find_parts(config: Config, path: str, module: nn.Module) -> tuple | None:
    """((size, adapted), ...) of a fused layer, from the config; None for a whole one."""
    given = next((value for key, value in config.slices.items() if ends_path(key, path)), None)
    if given is None:
        return None
    n_out = sizes_of(module)[1]
    if all(isinstance(part, bool) for part in given) and n_out % len(given) == 0:
        given = [(n_out // len(given), part) for part in given]
    if any(isinstance(part, bool) for part in given) or sum(size for size, _ in given) != n_out:
        raise Error(f"lora: slices: {path} has {n_out} outputs, which {tuple(given)} do not add up to or divide")
    if not any(adapted for _, adapted in given) or kind_of(module) is EmbeddingLayer or config.dora:
        raise Error(f"lora: slices: {path}: adapt at least one part, of a linear layer, without dora")
    return tuple((int(size), bool(adapted)) for size, adapted in given)


def find_tied(model: nn.Module, config: Config, targets: dict) -> dict[str, str]:
    """Targets that share their weight: refused, or with tied="tie" {head: embedding} to be changed together."""
    users = {}
    for path, module in walk(model):
        weight = None if isinstance(base_module(module), NF4Linear) else getattr(base_module(module), "weight", None)
        if isinstance(weight, nn.Parameter):
            users.setdefault(id(weight), []).append(path)
    together = {}
    for path, module in targets.items():
        if isinstance(base_module(module), NF4Linear):
            continue  # its codes are nobody else's
        others = [other for other in users[id(base_module(module).weight)] if other != path]
        if not others or config.tied == "untie":
            continue
        if config.tied == "refuse":
            raise Error(
                f"lora: {path} and {others[0]} share one weight: give tied='untie' to change {path} alone "
                f"(the merged model then has two matrices), or tied='tie' to change both by the same update"
            )
        head, embedding = path, others[0]
        if kind_of(module) is EmbeddingLayer:
            head, embedding = embedding, head
        if len(others) > 1 or kind_of(model.get_submodule(embedding)) is not EmbeddingLayer:
            raise Error(f"lora: tied='tie' joins one linear head and one embedding; {path} shares with {others}")
        together[head] = embedding
    for head, embedding in together.items():  # the update is kept at the head, the embedding looks at it
        targets.pop(embedding, None)
        targets.setdefault(head, model.get_submodule(head))
    return together
