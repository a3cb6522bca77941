"""LoRA for any nn.Module: h = W0 x + (alpha/r) B A x. Knows nothing of minigpt.

question                                         file                     paper (Hu et al. 2021)
What does an adapted layer compute?              product.py layers.py    section 4.1
What is an adapter, a sum, one for each row?     adapter.py dora.py      section 4.1, 4.2
Which layers get one?                            attaching.py targets.py section 4.2
Which is at work, what is attached?              switching.py inventory.py
How is it merged exactly, and unmerged?          merging.py exact.py      section 4.1
How does the base fit in four bits?              quantizing.py nf4_layer.py nf4.py  Dettmers et al. 2023
What is an adapter of such a base merged onto?   rounded.py
How does it lie on disk?                         files.py peft_config.py
How does a model's adapter get there and back?   saving.py loading.py layout.py
Is this checkpoint that base plus that adapter?  verify.py diagnose.py
What is the sum of two adapters?                 combine.py
What did the update learn?                       spectrum.py              section 7
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for whoever reads types
    from lora.attaching import attach, detach
    from lora.config import ALL_LINEAR, Config
    from lora.errors import Error
    from lora.inventory import adapters, layers_of, modules_of, names, parameters
    from lora.loading import load, refill
    from lora.merging import bake, merge, unmerge
    from lora.quantizing import dequantize, quantize, round_base
    from lora.saving import collect, save
    from lora.spectrum import spectra
    from lora.switching import disabled, rows, scaled, serving, use

__all__ = [
    "ALL_LINEAR", "Config", "Error", "adapters", "attach", "bake", "collect", "dequantize", "detach", "disabled",
    "layers_of", "load", "merge", "modules_of", "names", "parameters", "quantize", "refill", "round_base", "rows",
    "save", "scaled", "serving", "spectra", "unmerge", "use",
]  # fmt: skip

_HOME = {
    **dict.fromkeys(("ALL_LINEAR", "Config"), "config"),
    "Error": "errors",
    **dict.fromkeys(("attach", "detach"), "attaching"),
    **dict.fromkeys(("use", "disabled", "rows", "scaled", "serving"), "switching"),
    **dict.fromkeys(("adapters", "names", "layers_of", "modules_of", "parameters"), "inventory"),
    "spectra": "spectrum",
    **dict.fromkeys(("merge", "unmerge", "bake"), "merging"),
    **dict.fromkeys(("quantize", "dequantize", "round_base"), "quantizing"),
    **dict.fromkeys(("save", "collect"), "saving"),
    **dict.fromkeys(("load", "refill"), "loading"),
}


def __getattr__(name: str):
    """Names are fetched when first asked for: `python -m lora --help` should not wait for torch.

    So no file may have the name of a function: importing it would put the file in its place.
    """
    if name in _HOME:
        return getattr(import_module(f"lora.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lora' has no attribute {name!r}")


def __dir__():
    return [*globals(), *_HOME]
