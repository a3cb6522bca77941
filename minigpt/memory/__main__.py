"""python -m minigpt.memory CONFIG: bytes of training and inference, before anything is allocated."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from minigpt import presets
from minigpt.cli import parse, run
from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest
from minigpt.memory.job import Job, parse_size

PRESETS = {"gpt1": (presets.gpt1,), "gpt2": (presets.gpt2,), "llama": (presets.llama_like,)}
PRESETS |= {f"gpt2-{size}": (presets.gpt2, size) for size in ("small", "medium", "large", "xl")}
GPT3 = ("small", "medium", "large", "XL", "2.7B", "6.7B", "13B", "175B")
PRESETS |= {f"gpt3-{size}": (presets.gpt3, size) for size in GPT3}

DESCRIPTION = """
How many bytes will this need, and where do they go?  Nothing is built or loaded.
Weights, gradients, optimizer states and activations are exact: what PyTorch keeps, storage by storage. The peak adds
the temporaries of the loss and of one block, and leaves out PyTorch itself (some 300 MB of code, more with CUDA).
"""
EXAMPLES = """
examples:
  python -m minigpt.memory gpt2 --batch 8                                  full fine-tuning of GPT-2 in 32 bits
  python -m minigpt.memory gpt2-xl --dtype mixed --device cuda --fit 24GiB    the largest batch for a card of 24 GiB
  python -m minigpt.memory gpt2-xl --method lora --r 8 --targets q_proj --targets v_proj --batch 4
  python -m minigpt.memory gpt3-6.7B --method qlora --targets all-linear --dtype bf16 --checkpointing --device cuda
  python -m minigpt.memory gpt2 --method prefix --virtual 20               or prompt, ptuning, ptuning2, adapter, top
  python -m minigpt.memory gpt3-175B --dtype bf16 --ranks 64 --parallel fsdp --batch 1 --device cuda
  python -m minigpt.memory llama --n-layers 6 --d-model 384 --n-heads 6 --vocab-size 4096 --context 256
  python -m minigpt.memory runs/notes --layers                             a run of yours, block by block
  python -m minigpt.memory gpt2 --json | jq .peak                          for scripts, in bytes
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Model: a published shape, a directory, and what to change about it."""

    model: str = field(metadata={"positional": True})  # gpt1, gpt2, gpt2-xl, gpt3-6.7B, llama, ..., or a directory
    n_layers: int | None = None  # blocks
    n_heads: int | None = None  # attention heads
    n_kv_heads: int | None = None  # fewer than n_heads: grouped keys and values
    d_model: int | None = None  # width of the model
    d_ff: int | None = None  # width of the feed-forward
    vocab_size: int | None = None  # tokens it knows
    context: int | None = None  # longest sequence
    dropout: float | None = None  # in all three places

    def config(self) -> GPTConfig:
        """The shape; of a directory only config.json is read."""
        names = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_ff", "vocab_size", "context")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.dropout is not None:
            changes |= dict.fromkeys(("embed_dropout", "attn_dropout", "resid_dropout"), self.dropout)
        if self.model in PRESETS:
            make, *size = PRESETS[self.model]
            return make(*size, **changes)
        if not Path(self.model).is_dir():
            raise Error(f"{self.model!r} is no directory and no preset: {nearest(self.model, PRESETS)}")
        from minigpt import hub

        return GPTConfig.from_dict(hub.read_config(self.model)[1].to_dict() | changes)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output: what is shown."""

    fit: str | None = None  # memory to fill, 8GiB or 24GB: also say the largest batch that fits
    layers: bool = False  # activations block by block
    json: bool = False  # one JSON object in bytes instead of tables


def main() -> int:
    model, job, output = parse(
        Model, Job, Output, prog="python -m minigpt.memory", description=DESCRIPTION, epilog=EXAMPLES
    )
    room = None if output.fit is None else parse_size(output.fit)
    from minigpt.memory import show
    from minigpt.memory.predict import largest_batch, predict
    from minigpt.memory.rules import folk_rules

    config = model.config()
    found, rules = predict(config, job), folk_rules(config, job)
    fits = None if room is None else largest_batch(config, job, room)
    if output.json:
        print(json.dumps(show.record(found, job, rules, room, fits)))
        return 0
    print(show.table(config, job, found))
    if output.layers:
        print("\n" + show.layers(found))
    print("\n" + show.rules_table(rules))
    if fits:
        peak = predict(config, replace(job, batch=fits)).peak
        print(f"\nthe largest batch in {show.human(room)} is {fits}: its peak is {show.human(peak)}")
    elif room is not None:
        one = predict(config, replace(job, batch=1)).peak
        hint = "--checkpointing, a shorter --length, another --method, or --parallel fsdp with more --ranks"
        print(f"\nnot even one row fits {show.human(room)}, it takes {show.human(one)}: try {hint}")
    return 0


if __name__ == "__main__":
    run(main, "python -m minigpt.memory")
