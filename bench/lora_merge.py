"""Merging LoRA into all linear layers of GPT-2 124M and taking it out again, r 8, beside peft.

Ours gives every weight the nearest number to W + (alpha / r) B A, and afterwards the bits of before; peft adds and
subtracts in the weight's own precision (`python -m bench lora_exact` counts what that changes).
"""

from dataclasses import dataclass

from bench.peers import Shape, need, transformers

UNIT, REFERENCE = "merges and back/s", "ours"


@dataclass(frozen=True)
class Work:
    """The name is the dtype of the base; adapters are float32."""

    name: str
    units: int = 1


WORKS = [Work("float32"), Work("bfloat16")]


def ours(work: Work):
    import torch

    import lora
    from bench.lora_decode import adapted

    model = adapted("all-linear")
    for name, weight in model.named_parameters():
        if ".adapters." not in name:
            weight.data = weight.data.to(getattr(torch, work.name))

    def turn():
        lora.merge(model)
        lora.unmerge(model)

    return turn


def peft(work: Work):
    need("peft")
    import peft
    import torch

    shape = Shape("")
    model, _ = transformers(shape, *shape.tokens())
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    model = peft.get_peft_model(model.to(getattr(torch, work.name)), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.01)

    def turn():
        model.merge_adapter()
        model.unmerge_adapter()

    return turn


PEERS = {"ours": ours, "peft": peft}
