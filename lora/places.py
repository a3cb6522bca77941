"""Where a module stands in a model, and how another comes into its place."""

from torch import nn


def replace(model: nn.Module, path: str, module: nn.Module):
    """Put `module` in the place of the one at `path`; in all its places, if the model has it under several names."""
    old = model.get_submodule(path)
    for parent in list(model.modules()):
        for leaf in [leaf for leaf, child in parent._modules.items() if child is old]:
            setattr(parent, leaf, module)
