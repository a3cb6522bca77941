"""Configs of the published models, by name. Counts are exact and tested on the meta device.

GPT-1 (Radford et al. 2018, section 4.1), GPT-2 (Radford et al. 2019, table 2), GPT-3 (Brown et al. 2020, table 2.1).
"""

from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest

# name: (n_layers, n_heads, d_head, d_model)
_GPT2 = {
    "small": (12, 12, 64, 768),
    "medium": (24, 16, 64, 1024),
    "large": (36, 20, 64, 1280),
    "xl": (48, 25, 64, 1600),
}
# Heads x d_head is 3072, not 2048, for XL, and 5120, not 5140, for 13B: the paper's own numbers, kept as printed.
_GPT3 = {
    "small": (12, 12, 64, 768),
    "medium": (24, 16, 64, 1024),
    "large": (24, 16, 96, 1536),
    "XL": (24, 24, 128, 2048),
    "2.7B": (32, 32, 80, 2560),
    "6.7B": (32, 32, 128, 4096),
    "13B": (40, 40, 128, 5140),
    "175B": (96, 96, 128, 12288),
}


def gpt1(**changes) -> GPTConfig:
    """GPT-1: post-norm, no final norm, 40,478 tokens, context 512: 116,534,784 parameters.

    >>> gpt1().norm_place
    'post'
    """
    return GPTConfig(**{"vocab_size": 40478, "context": 512, "norm_place": "post"} | changes)


def gpt2(size: str = "small", **changes) -> GPTConfig:
    """GPT-2 small, medium, large or xl: 124,439,808 / 354,823,168 / 774,030,080 / 1,557,611,200 parameters.

    >>> gpt2("medium", context=2048).n_layers
    24
    """
    return GPTConfig(**_row("gpt2", _GPT2, size, changes) | changes)


def gpt3(size: str = "small", **changes) -> GPTConfig:
    """GPT-3 small to 175B (174,604,259,328 parameters): GPT-2 with context 2048 and alternating banded layers.

    The paper publishes neither the bandwidth nor which layers are banded. We choose, and say so: odd layers
    (counting from 0), window 256, dense first as in GPT-Neo. Change both with `window=` and `banded_layers=`.

    >>> gpt3("175B").layer_window(0), gpt3("175B").layer_window(1)
    (None, 256)
    """
    sizes = _row("gpt3", _GPT3, size, changes) | {"context": 2048}
    odd = tuple(range(1, changes.get("n_layers", sizes["n_layers"]), 2))
    banding = {"window": 256, "banded_layers": odd} if odd else {}
    if "window" in changes and changes["window"] is None:
        banding = {}
    return GPTConfig(**sizes | banding | changes)


def llama_like(**changes) -> GPTConfig:
    """The Llama shape (Touvron et al. 2023, section 2.2): rotary, RMSNorm, SwiGLU, no biases.

    `d_ff` is 8/3 d_model rounded up to a multiple of 64, so that the three matrices of the gated feed-forward
    weigh as much as the two of GPT-2's. The head is tied unless `tied=False`.

    >>> llama_like(d_model=384, n_heads=6).d_ff
    1024
    """
    d_model = changes.get("d_model", 768)
    shape = {
        "norm": "rmsnorm",
        "activation": "silu",
        "gated": True,
        "positions": "rotary",
        "bias": False,
        "d_ff": -(-8 * d_model // 3 // 64) * 64,
    }
    return GPTConfig(**shape | changes)


def _row(family: str, table: dict, size: str, changes: dict) -> dict:
    if size not in table:
        raise Error(f"presets.{family} has no size {size!r}: {nearest(size, table)}")
    row = dict(zip(("n_layers", "n_heads", "d_head", "d_model"), table[size], strict=True))
    if {"n_heads", "d_model"} & changes.keys():
        del row["d_head"]  # another width: derived from it, not the published 64
    return row
