"""LoRA beside peft: a training step of GPT-2 124M, each in a process of its own, in turn; and a decoding step.

    python bench/lora_speed.py            both
    python bench/lora_speed.py --only decode --rounds 3

Training: r 8, alpha 16, context 256, batch 2, fp32, 2 threads, AdamW on the adapters; random tokens. Ratios are
medians over rounds of (ours / peer in the same round). The floor of a step is its matrix products alone, by the fastest
library at hand. Decoding: one token for 1 or 8 rows, base and adapters in turn on the same weights; medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

V, T, B = 50257, 256, 2
TRAINING = ["ours, q and v", "peft, c_attn", "ours, all linear", "peft, all linear", "ours, full", "floor"]
RATIOS = {"ours, q and v": "peft, c_attn", "ours, all linear": "peft, all linear"}
QV = ("q_proj", "v_proj")


def our_model():
    from minigpt import GPT, presets

    return GPT(presets.gpt2("small"))


def our_step(torch, targets):
    import lora
    from minigpt.loss import cross_entropy

    model = our_model()
    if targets:
        lora.attach(model, lora.Config(r=8, alpha=16, targets=targets))
    x = torch.randint(V, (B, T))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    return lambda: cross_entropy(model.hidden(x), model.head, x), optimizer


def peft_step(torch, targets):
    import peft
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0))
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    x = torch.randint(V, (B, T))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    return lambda: model(x, labels=x, use_cache=False).loss, optimizer


def floor_step(torch):
    """Forward and input gradients of every linear layer and the head; attention's products, causal half."""
    from minigpt.linear import fast

    n, c, heads = B * T, 768, 12
    shapes = [(c, c)] * 4 + [(c, 4 * c), (4 * c, c)]
    triples = [(torch.randn(n, i), torch.randn(o, i), torch.randn(n, o)) for i, o in shapes]
    head = torch.randn(n, c), torch.randn(V, c), torch.randn(n, V)
    q, half = torch.randn(B * heads, T, c // heads), torch.randn(B * heads, T // 2, c // heads)

    def step():
        for _ in range(12):
            for x, w, g in triples:
                fast(x, w), fast(g, w.T)
            for _ in range(7):
                torch.bmm(q, half.transpose(1, 2))
        fast(head[0], head[1]), fast(head[2], head[1].T)

    return step


def train_worker(torch, name: str, steps: int) -> dict:
    if name == "floor":
        step = floor_step(torch)
    else:
        who, what = name.split(", ")
        targets = {"q and v": QV, "c_attn": ["c_attn"], "all linear": "all-linear", "full": None}[what]
        loss, optimizer = our_step(torch, targets) if who == "ours" else peft_step(torch, targets)

        def step():
            loss().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return {"tokens_per_second": B * T / median_seconds(step, steps)}


def decode(torch, times: int):
    """One token through base, merged and adapted model, in turn: milliseconds and speed against the base."""
    import lora
    from minigpt.serving import serving

    torch.set_num_threads(2)
    model, base = our_model().eval(), our_model().eval()
    lora.attach(model, lora.Config(r=8, alpha=16, targets=QV), name="q and v")
    for name in "abcd":
        lora.attach(model, lora.Config(r=8, alpha=16, targets="all-linear"), name=name)
    for parameter in lora.parameters(model):
        torch.nn.init.normal_(parameter, std=0.01)
    print("| one token | weights | rows | ms | speed against |\n|---|---|---|---|---|")
    with lora.serving(model):
        _decode(torch, model, base, times, "as they are")
        with serving(model):
            _decode(torch, model, None, times, "laid out")  # merge first, then lay out: then it is the base


def _decode(torch, model, base, times: int, weights: str):
    import lora

    for rows in (1, 8):
        x = torch.randint(V, (rows, 1))
        seconds = {}

        def clock(name, model, x=x, seconds=seconds):
            with torch.inference_mode():
                model(x)
                began = time.perf_counter()
                model(x)
                seconds.setdefault(name, []).append(time.perf_counter() - began)

        for _ in range(times):
            for name, adapters in (("base", ()), ("q and v", ["q and v"]), ("all linear", ["a"])):
                lora.use(model, *adapters)
                clock(name, model)
            if rows > 1:
                with lora.rows(model, list("abcd") * 2):
                    clock("4 adapters mixed", model)
        if base is not None:
            lora.merge(model, "a")
            for _ in range(times):  # other memory than the unmerged weights, so beside another model
                clock("another base", base)
                clock("merged", model)
            lora.unmerge(model)
        against = {"q and v": "base", "all linear": "base", "4 adapters mixed": "all linear", "merged": "another base"}
        for name, found in seconds.items():
            peer = against.get(name)
            ratio = f"{statistics.median(seconds[peer]) / statistics.median(found):.2f} of {peer}" if peer else ""
            print(f"| {name} | {weights} | {rows} | {1000 * statistics.median(found):.1f} | {ratio} |")


def median_seconds(step, steps: int) -> float:
    seconds = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def worker(name: str, steps: int):
    import resource

    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    found = train_worker(torch, name, steps)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def run(name: str, steps: int) -> dict:
    root = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); import bench.lora_speed as b; b.worker({name!r}, {steps})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def train(rounds: int, steps: int):
    found = {name: [] for name in TRAINING}
    for number in range(rounds):
        for name in TRAINING:
            found[name].append(run(name, steps))
            print(f"round {number + 1}/{rounds}  {name}: {found[name][-1]}", file=sys.stderr)
    print("| training step | tokens/s, median | against | ratio, median of rounds | peak MiB |\n|---|---|---|---|---|")
    for name in TRAINING:
        speed = statistics.median(r["tokens_per_second"] for r in found[name])
        peak = statistics.median(r["peak_mib"] for r in found[name])
        peer, ratio = RATIOS.get(name, ""), ""
        if peer:
            pairs = zip(found[name], found[peer], strict=True)
            ratio = f"{statistics.median(a['tokens_per_second'] / b['tokens_per_second'] for a, b in pairs):.2f}"
        print(f"| {name} | {speed:,.0f} | {peer} | {ratio} | {peak:,.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each training step is measured (default 5)")
    parser.add_argument("--steps", type=int, default=4, help="steps a measurement (default 4)")
    parser.add_argument("--times", type=int, default=25, help="tokens decoded of each kind (default 25)")
    parser.add_argument("--only", choices=["train", "decode"], help="one half of it")
    options = parser.parse_args()
    if options.only != "decode":
        train(options.rounds, options.steps)
    if options.only != "train":
        import torch

        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        decode(torch, options.times)


if __name__ == "__main__":
    main()
