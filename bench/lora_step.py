"""A training step with LoRA, GPT-2 124M, beside peft, loralib and litgpt; float32, r 8, alpha 16, batch 2, context 256.

q and v: the projections that Hu et al. adapt. peft's one adapter on GPT-2's joined c_attn has r rows for q, k and v
together; loralib's MergedLinear has r for q and r for v, as ours. all linear: every matrix of the blocks. AdamW on
the adapters. full: the same step with every weight. The floor is what no implementation avoids: the frozen
layers' products forward, and for the gradients of their inputs (peers.py).
"""

from functools import partial

from bench import peers
from bench.peers import Shape, need, step

UNIT, REFERENCE = "tokens/s", "ours"
ALL, QV = "all linear", "q and v"
RANK = {"r": 8, "lora_alpha": 16}


class Work(Shape):
    """The name is what is adapted."""


WORKS = [Work(name, batch=2, context=256) for name in (QV, ALL)]


def ours(work: Work):
    import lora

    model, loss = peers.ours(work, *work.tokens())
    targets = ("q_proj", "v_proj") if work.name == QV else lora.ALL_LINEAR
    lora.attach(model, lora.Config(r=8, alpha=16, targets=targets))
    return step(model, loss)


def peft(work: Work):
    need("peft")
    import peft

    model, _ = peers.transformers(work, *work.tokens())
    targets = ["c_attn"] if work.name == QV else "all-linear"
    x, _ = work.tokens()
    model = peft.get_peft_model(model, peft.LoraConfig(**RANK, target_modules=targets))
    return step(model, lambda: model(x, labels=x, use_cache=False).loss)


def loralib(work: Work):
    """On transformers' model: each Conv1D becomes loralib's layer, which has a form for weights stored (I, O)."""
    need("loralib")
    import loralib

    model, loss = peers.transformers(work, *work.tokens())
    for block in model.transformer.h:
        for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
            old = getattr(getattr(block, part), name)
            if name == "c_attn":
                made = partial(loralib.MergedLinear, enable_lora=[True, work.name == ALL, True])
            elif work.name == ALL:
                made = loralib.Linear
            else:
                continue
            setattr(getattr(block, part), name, made(*old.weight.shape, fan_in_fan_out=True, **RANK))
    loralib.mark_only_lora_as_trainable(model)
    return step(model, loss)


def litgpt(work: Work):
    need("litgpt")
    import torch
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from torch.nn.functional import cross_entropy

    parts = ("query", "value") if work.name == QV else ("query", "key", "value", "projection", "mlp")
    chosen = {f"lora_{part}": True for part in parts}
    torch.manual_seed(0)
    model, (x, y) = GPT(Config(**peers.litgpt_config(work), lora_r=8, lora_alpha=16, **chosen)), work.tokens()
    model.apply(model._init_weights)
    mark_only_lora_as_trainable(model)
    return step(model, lambda: cross_entropy(model(x).flatten(0, 1), y.flatten()))


def full(work: Work):
    return step(*peers.ours(work, *work.tokens()))


def floor(work: Work):
    return peers.products(work, *work.tokens(), learns=False)


PEERS = {"ours": ours, "peft": peft, "loralib": loralib, "litgpt": litgpt, "ours, full": full, "floor": floor}
