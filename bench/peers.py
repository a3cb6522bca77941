"""Models of one shape by several hands, and the training step around each: what the benchmarks compare.

A maker takes a `Shape` and the batch, x and y (B, T), and returns the model and a function that computes its loss.
All have GPT-2's blocks (pre-norm, LayerNorm, tanh GELU, biases) and no dropout. What differs is said here:

    transformers   shifts the targets itself, so it is given x twice and predicts T - 1 of T tokens
    litgpt         knows rotary positions only, and no tied head: V x C numbers more
    nanoGPT        the exact GELU; a checkout that the user names
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from bench.harness import Missing


@dataclass(frozen=True)
class Shape:
    """A training step's sizes; by default GPT-2 124M."""

    name: str
    layers: int = 12
    heads: int = 12
    width: int = 768
    context: int = 1024
    vocabulary: int = 50257
    batch: int = 1

    @property
    def units(self) -> int:
        return self.batch * self.context

    def tokens(self):
        """x and y, (B, T): the same for every peer."""
        import torch

        draw = torch.Generator().manual_seed(0)
        text = torch.randint(self.vocabulary, (self.batch, self.context + 1), generator=draw)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def need(package: str):
    """`Missing` where it is not installed."""
    if importlib.util.find_spec(package) is None:
        raise Missing(f"{package} is not installed: pip install {package}")


def step(model, loss: Callable, fused: bool = True) -> Callable[[], float]:
    """turn(): forward, backward, AdamW on what learns; returns the loss, in which peers should agree roughly."""
    import torch

    learning = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=fused)

    def turn() -> float:
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.item()

    return turn


def ours(shape: Shape, x, y, preset: str = "gpt2"):
    import torch

    from minigpt import GPT, GPTConfig, presets
    from minigpt.loss import cross_entropy

    torch.manual_seed(0)
    sizes = {"n_layers": shape.layers, "n_heads": shape.heads, "d_model": shape.width}
    make = GPTConfig if preset == "gpt2" else presets.llama_like
    model = GPT(make(vocab_size=shape.vocabulary, context=shape.context, **sizes))
    return model, lambda: cross_entropy(model.hidden(x), model.head, y)


def transformers(shape: Shape, x, y):
    need("transformers")
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width}
    none = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=shape.vocabulary, n_positions=shape.context, **sizes, **none))
    return model, lambda: model(x, labels=x, use_cache=False).loss


def nanogpt(shape: Shape, x, y):
    if importlib.util.find_spec("model") is None:
        raise Missing("no directory given: --nanogpt DIR, a checkout of github.com/karpathy/nanoGPT")
    import torch
    from model import GPT, GPTConfig  # of the checkout on sys.path

    torch.manual_seed(0)
    sizes = {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width}
    model = GPT(GPTConfig(block_size=shape.context, vocab_size=shape.vocabulary, dropout=0.0, bias=True, **sizes))
    return model, lambda: model(x, y)[1]


def litgpt_config(shape: Shape) -> dict:
    return {
        "block_size": shape.context, "vocab_size": shape.vocabulary, "padded_vocab_size": shape.vocabulary,
        "n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width, "rotary_percentage": 1.0,
        "parallel_residual": False, "bias": True, "norm_class_name": "LayerNorm", "mlp_class_name": "GptNeoxMLP",
        "intermediate_size": 4 * shape.width, "gelu_approximate": "tanh",
    }  # fmt: skip


def litgpt(shape: Shape, x, y):
    need("litgpt")
    import torch
    from litgpt import GPT, Config
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    model = GPT(Config(**litgpt_config(shape)))
    model.apply(model._init_weights)
    return model, lambda: cross_entropy(model(x).flatten(0, 1), y.flatten())


def products(shape: Shape, x, y, learns: bool = True) -> Callable[[], None]:
    """turn(): the matrix products of a step, by the quickest library at hand: no implementation avoids them.

    Linear layers forward, for the gradient of their input and, where they learn, of their weight; of attention's
    seven products (two forward, five back) the causal half. The first two of them alone where nothing learns.
    """
    import torch

    from minigpt.linear import fast

    n, c, heads, time = shape.units, shape.width, shape.heads, shape.context
    layers = [(c, c)] * 4 + [(c, 4 * c), (4 * c, c)]
    triples = [(torch.randn(n, i), torch.randn(o, i), torch.randn(n, o)) for i, o in layers]
    head = torch.randn(n, c), torch.randn(shape.vocabulary, c), torch.randn(n, shape.vocabulary)
    q, half = (torch.randn(shape.batch * heads, t, c // heads) for t in (time, time // 2))

    def three(x, weight, slope):
        fast(x, weight), fast(slope, weight.T)
        if learns:
            fast(x.T, slope.T)

    def turn():
        for _ in range(shape.layers):
            for each in triples:
                three(*each)
            for _ in range(7):
                torch.bmm(q, half.transpose(1, 2))
        three(*head)

    return turn


def stepping(make: Callable, shape: Shape, **options) -> Callable[[], float]:
    """The training step of a maker above."""
    return step(*make(shape, *shape.tokens(), **options))
