"""What each way of tuning adds to a model of a shape, and what it lets learn: on paper, by the formulas of its file.

    top        the highest blocks and the final norm       tuning/freeze.py
    lora       A (r, I) and B (O, r) for each target        lora/layers.py
    qlora      the same; the blocks' matrices in NF4        lora/nf4.py
    adapter    W_down (M, C), W_up (C, M), two biases       tuning/adapter.py
    prompt     (P, C)                                       tuning/prompt.py
    ptuning    the same, and an LSTM and an MLP             tuning/ptuning.py
    prefix     (P, G D) and an MLP to (P, 2 L G D)          tuning/prefix.py
    ptuning2   (P, 2 L, G, D)

C channels, L blocks, G key/value heads, D head size, P virtual tokens, M bottleneck, r rank, I in, O out.
"""

from collections.abc import Iterable

import torch

from minigpt.config import GPTConfig
from minigpt.errors import Error
from minigpt.memory.job import ALL_LINEAR, LINEAR, Job
from minigpt.memory.plan import Plan, Tensor, Virtual, nf4, tensor
from minigpt.model import GPT

MLP = 512  # hidden size of a prefix's MLP (Li & Liang 2021)


def plan_of(config: GPTConfig, job: Job) -> Plan:
    """The parameters of a model that nobody has built yet, and what the job's method adds to them.

    >>> plan = plan_of(GPTConfig(n_layers=1), Job(method="lora", r=8))
    >>> sum(t.numel for t in plan.learning()) == 2 * 8 * (768 + 768)
    True
    """
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in GPT(config).named_parameters()}
    if job.method == "top" and job.top > config.n_layers:
        raise Error(f"--top is {job.top}: the model has {config.n_layers} blocks")
    weights = {name: tensor(shape, job.weight_bytes, _learns(name, config, job)) for name, shape in shapes.items()}
    if job.method == "qlora":
        weights |= {name: nf4(shapes[name]) for name in shapes if name.endswith(_ends(LINEAR))}
    if job.adapted:
        added, ranks = _low_rank(job, shapes)
        return Plan(weights, added, ranks)
    if job.method == "adapter":
        return _bottlenecks(config, job, weights)
    return _virtual(config, job, weights) if job.n_virtual else Plan(weights)


def _learns(name: str, config: GPTConfig, job: Job) -> bool:
    if job.method == "top":
        parts = name.split(".")
        return parts[0] == "final_norm" or (parts[0] == "blocks" and int(parts[1]) >= config.n_layers - job.top)
    return job.method == "full"


def _low_rank(job: Job, shapes: dict[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, int]]:
    added, ranks, everything = {}, {}, ALL_LINEAR in job.targets
    for target in LINEAR if everything else job.targets:
        names = [name for name in shapes if name.endswith(_ends((target,)))]
        if not names and not everything:
            raise Error(f"--targets {target!r}: this model has no such layer; a gate_proj is in gated models only")
        for name in names:
            (n_out, n_in), path = shapes[name], name.removesuffix(".weight")
            added[f"{path}.adapters.default.A"] = tensor((job.r, n_in), 4, True)
            added[f"{path}.adapters.default.B"] = tensor((n_out, job.r), 4, True)
            ranks[path] = job.r
    return added, ranks


def _bottlenecks(config: GPTConfig, job: Job, weights: dict[str, Tensor]) -> Plan:
    width, narrow = config.d_model, job.bottleneck
    shapes = {"down.weight": (narrow, width), "down.bias": (narrow,), "up.weight": (width, narrow), "up.bias": (width,)}
    places = [f"blocks.{layer}.{part}" for layer in range(config.n_layers) for part in ("attn", "mlp")]
    added = {
        f"{place}.dropout.adapters.default.{name}": tensor(shape, 4, True)
        for place in places
        for name, shape in shapes.items()
    }
    return Plan(weights, added, bottlenecks=dict.fromkeys(places, narrow))


def _virtual(config: GPTConfig, job: Job, weights: dict[str, Tensor]) -> Plan:
    """Virtual tokens: a table, or what makes them."""
    length, width, keys = job.n_virtual, config.d_model, config.n_kv_heads * config.d_head
    if job.method == "prompt":
        made, shapes = Virtual(length), {"table": (length, width)}
    elif job.method == "ptuning":
        lstm = job.encoder == "lstm"
        hidden = job.hidden or (max(1, width // 2) if lstm else width)
        widths = (2 * hidden, 2 * hidden, width) if lstm else (width, hidden, hidden, width)
        made = Virtual(length, False, widths, hidden if lstm else 0)
        shapes = {"table": (length, width)} | (_lstm(width, hidden) if lstm else {}) | _mlp("mlp", widths)
    elif job.method == "ptuning2":
        made = Virtual(length, True, dropout=job.adapter_dropout)
        shapes = {"table": (length, 2 * config.n_layers, config.n_kv_heads, config.d_head)}
    else:
        widths = (keys, job.hidden or MLP, 2 * config.n_layers * keys)
        made = Virtual(length, True, widths, dropout=job.adapter_dropout)
        shapes = {"embedding": (length, keys)} | _mlp("transform", widths)
    place = "prefixes.held.default" if made.layers else "token_embedding.prompts.default"
    added = {f"{place}.{name}": tensor(shape, 4, True) for name, shape in shapes.items()}
    return Plan(weights, added, virtual=made)


def _mlp(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Linear layers with a nonlinearity between each two, as nn.Sequential counts them."""
    shapes = {}
    for place, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        shapes |= {f"{name}.{2 * place}.weight": (n_out, n_in), f"{name}.{2 * place}.bias": (n_out,)}
    return shapes


def _lstm(width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Two layers, both ways; each has four gates of what comes in and four of its own state."""
    shapes = {}
    for layer, n_in in enumerate((width, 2 * hidden)):
        for way in ("", "_reverse"):
            sizes = {"weight_ih": (4 * hidden, n_in), "weight_hh": (4 * hidden, hidden)}
            sizes |= {"bias_ih": (4 * hidden,), "bias_hh": (4 * hidden,)}
            shapes |= {f"lstm.{name}_l{layer}{way}": shape for name, shape in sizes.items()}
    return shapes


def _ends(targets: Iterable[str]) -> tuple[str, ...]:
    return tuple(f".{name}.weight" for name in targets)
