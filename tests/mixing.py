"""A model that holds one of everything, and eight rows that have each their own of it."""

from helpers import model, randomize

import lora
from minigpt.tuning import adapter, mixed, prefix, prompt, ptuning

NAMES = [None, "lora", "rslora", "houlsby", "prompt", "ptuning", "prefix", ("lora", "ptuning2")]
TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 10], [11], [12, 13, 14], [15, 16, 17, 18, 19], [20, 21]]


def tuned(kind, shift):
    """A model that holds one of everything, far from the base."""
    gpt = model(kind, std=0.15, context=40)
    lora.attach(gpt, lora.Config(r=2, alpha=4, targets="all-linear"), "lora")
    lora.attach(gpt, lora.Config(r=3, alpha=4, rslora=True), "rslora")
    adapter.attach(gpt, adapter.Config(bottleneck=5), "houlsby")
    prompt.attach(gpt, prompt.Config(length=3, start="uniform"), "prompt")
    ptuning.attach(gpt, ptuning.Config(length=2), "ptuning")
    prefix.attach(gpt, prefix.Config(length=4, hidden=6, shift=shift), "prefix")
    prefix.attach(gpt, prefix.Config(length=2, shift=shift), "ptuning2")
    if not shift and gpt.config.positions == "learned":
        gpt.token_embedding.unshifted |= {"prompt", "ptuning"}  # as files say
    for module in gpt.modules():
        if isinstance(added := getattr(module, "learned_in", None), str):
            randomize(getattr(module, added), 0.3)
    return gpt


def alone(gpt, names, place, text, read):
    """The same row as a batch of its own, by `use`: no `rows` anywhere but where a prompt's text stands."""
    mixed.use(gpt, names, lora)
    several = names if isinstance(names, tuple) else (names,)
    with prompt.rows(gpt, [next((name for name in several if name in ("prompt", "ptuning")), None)]):
        return read([text], place)
