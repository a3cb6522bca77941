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
How does a model's adapter get there and back?   bridge.py layout.py installing.py
Is this checkpoint that base plus that adapter?  verify.py diagnose.py
What is the sum of two adapters?                 combine.py
What did the update learn?                       spectrum.py              section 7
"""

from importlib import import_module

_HOME = {
    **dict.fromkeys(("ALL_LINEAR", "Config"), "config"),
    "Error": "errors",
    **dict.fromkeys(("attach", "detach"), "attaching"),
    **dict.fromkeys(("use", "disabled", "rows", "scaled", "serving"), "switching"),
    **dict.fromkeys(("adapters", "names", "layers_of", "modules_of", "parameters"), "inventory"),
    "spectra": "spectrum",
    **dict.fromkeys(("merge", "unmerge", "bake"), "merging"),
    **dict.fromkeys(("quantize", "dequantize", "round_base"), "quantizing"),
    **dict.fromkeys(("save", "load", "refill", "collect"), "bridge"),
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
