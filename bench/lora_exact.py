"""How exact and how strict: our LoRA beside peft and, where it is installed, loralib. Correctness, so no rounds.

    python -m bench lora_exact

1. Merge one 768 x 768 matrix, r 8: elements that are not the nearest number to the float64 sum; unmerge: elements that
   are not what they were. Base / adapter dtypes float32, bfloat16 / float32, bfloat16, float16 / float32, float16.
2. Damage an adapter in many ways and load it: how many are taken, and how many without a word.
3. The bytes of an adapter file of GPT-2 124M (r 8 on q and v).
"""

import copy
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lora
from lora.exact import round_once

PAIRS = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
    (torch.float16, torch.float16),
]


def triple(base, adapter):
    torch.manual_seed(0)
    W, A, B = torch.randn(768, 768) * 0.02, torch.randn(8, 768) * 0.02, torch.randn(768, 8) * 0.02
    return W.to(base), A.to(adapter), B.to(adapter)


def ours(W, A, B):
    model = nn.Sequential(nn.Linear(768, 768, bias=False, dtype=W.dtype))
    model[0].weight = nn.Parameter(W.clone())
    lora.attach(model, lora.Config(r=8, alpha=16, targets=["0"]))
    adapter = model[0].adapters["default"]
    adapter.A, adapter.B = nn.Parameter(A.clone()), nn.Parameter(B.clone())
    lora.merge(model)
    merged = model[0].base.weight.detach().clone()
    lora.unmerge(model)
    return merged, model[0].base.weight.detach()


def with_peft(safe):
    def run(W, A, B):
        import peft

        model = nn.Sequential(nn.Linear(768, 768, bias=False, dtype=W.dtype))
        model[0].weight = nn.Parameter(W.clone())
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["0"])
        wrapped = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        layer = wrapped.base_model.model[0]
        layer.lora_A["default"].weight, layer.lora_B["default"].weight = (
            nn.Parameter(A.clone()),
            nn.Parameter(B.clone()),
        )
        layer.merge(safe_merge=safe)
        merged = layer.base_layer.weight.detach().clone()
        layer.unmerge()
        return merged, layer.base_layer.weight.detach()

    return run


def with_loralib(W, A, B):
    import loralib

    if W.dtype != A.dtype:
        return None
    layer = loralib.Linear(768, 768, r=8, lora_alpha=16, bias=False).to(W.dtype)
    layer.weight.data, layer.lora_A.data, layer.lora_B.data = W.clone(), A.clone(), B.clone()
    layer.eval()
    merged = layer.weight.detach().clone()
    layer.train()
    return merged, layer.weight.detach()


MERGERS = {"ours": ours, "peft": with_peft(False), "peft, safe_merge": with_peft(True), "loralib": with_loralib}


def exactness():
    head = [f"{str(a)[6:]}/{str(b)[6:]}" for a, b in PAIRS]
    print(f"| wrong after merge; changed after unmerge | {' | '.join(head)} |\n|---|{'---|' * len(PAIRS)}")
    for name, merge in MERGERS.items():
        cells = []
        for pair in PAIRS:
            W, A, B = triple(*pair)
            truth = round_once(W.double() + 2 * (B.double() @ A.double()), W.dtype)
            try:
                found = merge(W, A, B)
            except ImportError as problem:
                print(f"without {name}: {problem}", file=sys.stderr)
                return
            share = (
                "-"
                if found is None
                else f"{(found[0] != truth).float().mean():.2%}; {(found[1] != W).float().mean():.2%}"
            )
            cells.append(share)
        print(f"| {name} | {' | '.join(cells)} |")


# --- broken adapters ------------------------------------------------------------------------------------------


def tiny():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=16, n_layer=2, n_head=2, n_embd=32)).eval()


def config(**changes):
    def damage(folder):
        path = folder / "adapter_config.json"
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in values.items() if value != "REMOVE"}))

    return damage


def tensors(change):
    def damage(folder):
        path = folder / "adapter_model.safetensors"
        found = load_file(path)
        change(found, sorted(found)[0])
        save_file(found, path)

    return damage


def set_one(value):
    return tensors(lambda found, name: found[name].view(-1)[0:1].fill_(value))


DAMAGES = {
    "lora_alpha missing": config(lora_alpha="REMOVE"),
    "r missing": config(r="REMOVE"),
    "alpha 0": config(lora_alpha=0),
    "a key misspelt": config(lora_alhpa=3),
    "rank of another adapter": config(r=5),
    "a target more": config(target_modules=["c_attn", "c_fc"]),
    "a target less": config(target_modules=["c_fc"]),
    "rank pattern that fits nothing": config(rank_pattern={"zzz": 3}),
    "dora claimed": config(use_dora=True),
    "NaN": set_one(float("nan")),
    "infinity": set_one(float("inf")),
    "whole numbers": tensors(lambda found, name: found.update({name: found[name].to(torch.int32)})),
    "A without B": tensors(lambda found, name: found.pop(name)),
    "a layer missing": tensors(lambda found, name: [found.pop(n) for n in list(found) if ".h.1." in n]),
    "a layer too many": tensors(lambda found, name: found.update({name.replace("h.0", "h.7"): found[name].clone()})),
    "a stray tensor": tensors(lambda found, name: found.update({"base_model.model.zzz": torch.ones(2)})),
    "another prefix": tensors(lambda found, name: found.update({"x." + name: found.pop(name)})),
    "truncated": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()[:-100]
    ),
}


def load_ours(base, folder):
    lora.load(base, folder)


def load_peft(base, folder):
    import peft

    peft.PeftModel.from_pretrained(base, folder)


def strictness():
    base = tiny()
    with tempfile.TemporaryDirectory() as scratch:
        sound, hurt = Path(scratch, "sound"), Path(scratch, "hurt")
        made = copy.deepcopy(base)
        lora.attach(made, lora.Config(r=4, alpha=8, targets=["c_attn"]))
        for parameter in lora.parameters(made):
            nn.init.normal_(parameter, std=0.1)
        lora.save(made, sound)
        print(f"\n| {len(DAMAGES) + 1} broken adapters or wrong bases | taken | without a word | which |")
        print("|---|---|---|---|")
        for name, load in (("ours", load_ours), ("peft", load_peft)):
            taken, silent = [], []
            for case, damage in {**DAMAGES, "another base": None}.items():
                shutil.rmtree(hurt, ignore_errors=True)
                shutil.copytree(sound, hurt)
                model = copy.deepcopy(base)
                if damage:
                    damage(hurt)
                else:
                    model.transformer.h[0].attn.c_attn.weight.data.mul_(1.1)
                with warnings.catch_warnings(record=True) as heard:
                    warnings.simplefilter("always")
                    try:
                        load(model, hurt)
                    except Exception:  # whatever it raises, it did not take it
                        continue
                taken.append(case)
                if not [
                    w for w in heard if "fan_in_fan_out" not in str(w.message) and "deprecat" not in str(w.message)
                ]:
                    silent.append(case)
            print(f"| {name} | {len(taken)} | {len(silent)} | {', '.join(silent)} |")


def sizes():
    from minigpt import GPT, presets

    model = GPT(presets.gpt2("small"))
    lora.attach(model, lora.Config(r=8, alpha=16, targets=["q_proj", "v_proj"]))
    with tempfile.TemporaryDirectory() as folder:
        written = []
        for compact in (True, False):
            lora.save(model, folder, compact=compact)
            written.append(f"{Path(folder, 'adapter_model.safetensors').stat().st_size:,}")
    report = lora.attach(model, lora.Config(r=8, alpha=16, targets=["q_proj", "v_proj"]), name="again")
    print(
        f"\nq and v of GPT-2 124M: {report.stored:,} bytes of numbers; files: {written[0]} compact, {written[1]} PEFT's"
    )


def main():
    exactness()
    strictness()
    sizes()


if __name__ == "__main__":
    main()
