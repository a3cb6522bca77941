"""A decoding step of 8 rows as the number of adapters among them grows: GPT-2 124M, float32, r 8, all linear layers.

With k adapters row b uses number b mod k. Ours: `lora.rows` inside `lora.serving`. peft: `adapter_names`, one for
each row; its layers work adapter after adapter, on the rows that each has.
"""

from dataclasses import dataclass

from bench import lora_decode
from bench.peers import Shape, need, transformers

UNIT, REFERENCE, ROUNDS = "tokens/s", "ours", 15
ROWS = 8


@dataclass(frozen=True)
class Work:
    """`at` adapters, for 8 rows."""

    name: str
    at: int
    axis: str = "adapters among 8 rows"
    units: int = ROWS


WORKS = [Work(f"{count} adapters", count) for count in (1, 2, 4, 8)]


def ours(work: Work):
    rows = lora_decode.Work("", ROWS)
    return lora_decode.decoding(rows, "all-linear", mixed="abcdefgh"[: work.at])


def peft(work: Work):
    need("peft")
    import peft
    import torch

    shape = Shape("", context=1024)
    model, _ = transformers(shape, *shape.tokens())
    names = "abcdefgh"[: work.at]
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    model = peft.get_peft_model(model, config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    model.eval()
    tokens, chosen = torch.zeros(ROWS, 1, dtype=torch.int64), [names[row % work.at] for row in range(ROWS)]

    def turn():
        with torch.inference_mode():
            model(tokens, adapter_names=chosen, use_cache=False)

    return turn


PEERS = {"ours": ours, "peft": peft}
