"""Small models of every kind, shared by the tests."""

import torch

from minigpt import GPT, GPTConfig

SIZES = {"vocab_size": 61, "context": 24, "n_layers": 2, "n_heads": 4, "d_model": 32}
LLAMA = {"norm": "rmsnorm", "activation": "silu", "gated": True, "positions": "rotary", "bias": False}
KINDS = {
    "gpt2": {},
    "gpt1": {"norm_place": "post"},
    "gpt3": {"n_layers": 3, "window": 3, "banded_layers": (1,)},
    "llama": LLAMA | {"n_kv_heads": 2, "d_ff": 48, "tied": False},
    "mixture": LLAMA | {"n_kv_heads": 1, "d_head": 6, "norm_place": "post", "window": 4, "banded_layers": (0,)},
}


def config(kind: str = "gpt2", **changes) -> GPTConfig:
    return GPTConfig(**SIZES | KINDS[kind] | changes)


def model(kind: str = "gpt2", std: float | None = None, dtype=torch.float32, **changes) -> GPT:
    """A model of this kind in evaluation mode; with `std`, every parameter is N(0, std), norms and biases too."""
    made = GPT(config(kind, **changes)).to(dtype).eval()
    return made if std is None else randomize(made, std)


def randomize(module, std: float):
    """Weights as of a trained model: at initialisation biases are 0, gains 1, and a mistake in either is invisible."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=std)
    return module


def tokens(batch: int = 2, time: int = 12, vocab: int = SIZES["vocab_size"]) -> torch.Tensor:
    return torch.randint(vocab, (batch, time))
