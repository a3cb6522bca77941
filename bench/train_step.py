"""Training step beside its peers: tokens/s and peak memory, each run in a process of its own, in turn.

    python bench/train_step.py                                  ours, transformers, and the floor
    python bench/train_step.py --nanogpt path/to/nanoGPT        also a nanoGPT checkout of yours

GPT-2 shape, 6 layers, 6 heads, 384 wide, context 256, vocabulary 4096, batch 8, fp32, 2 threads; random tokens.
Ratios are medians over rounds of (ours / peer in the same round): a noisy machine slows both. The floor is the
matrix products alone, by the fastest library at hand: no implementation avoids them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

V, T, B, L, H, C = 4096, 256, 8, 6, 6, 384


def ours(torch, x, y):
    from minigpt import GPT, GPTConfig
    from minigpt.loss import cross_entropy

    model = GPT(GPTConfig(vocab_size=V, context=T, n_layers=L, n_heads=H, d_model=C))
    return model, lambda: cross_entropy(model.hidden(x), model.head, y), True


def llama(torch, x, y):
    from minigpt import GPT, presets
    from minigpt.loss import cross_entropy

    model = GPT(presets.llama_like(vocab_size=V, context=T, n_layers=L, n_heads=H, d_model=C))
    return model, lambda: cross_entropy(model.hidden(x), model.head, y), True


def transformers(torch, x, y, fused=False):
    from transformers import GPT2Config, GPT2LMHeadModel

    no_dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=T, n_layer=L, n_head=H, n_embd=C, **no_dropout))
    return model, lambda: model(x, labels=x, use_cache=False).loss, fused


def nanogpt(torch, x, y, fused=False):
    from model import GPT, GPTConfig  # of the checkout on sys.path

    model = GPT(GPTConfig(block_size=T, vocab_size=V, n_layer=L, n_head=H, n_embd=C, dropout=0.0, bias=True))
    return model, lambda: model(x, y)[1], fused


PEERS = {
    "ours": ours,
    "ours, llama shape": llama,
    "transformers": transformers,
    "transformers, fused AdamW": lambda *a: transformers(*a, fused=True),
    "nanoGPT": nanogpt,
    "nanoGPT, fused AdamW": lambda *a: nanogpt(*a, fused=True),
}


def floor(torch):
    """One step's matrix products at our shapes: linear layers three times, attention's seven, causal half."""
    from minigpt.linear import fast

    n = B * T
    linear = [(C, C)] * 4 + [(C, 4 * C), (4 * C, C)]
    pairs = [(torch.randn(n, i), torch.randn(o, i), torch.randn(n, o)) for i, o in linear]
    head = torch.randn(n, C), torch.randn(V, C), torch.randn(n, V)
    q, half = torch.randn(B * H, T, C // H), torch.randn(B * H, T // 2, C // H)

    def products(x, w, g):
        fast(x, w), fast(g, w.T), fast(x.T, g.T)

    def step():
        for _ in range(L):
            for pair in pairs:
                products(*pair)
            for _ in range(7):
                torch.bmm(q, half.transpose(1, 2))
        products(*head)

    return step


def worker(name: str, steps: int):
    import resource

    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    x, y = torch.randint(V, (B, T)), torch.randint(V, (B, T))
    if name == "floor":
        step = floor(torch)
    else:
        model, loss, fused = PEERS[name](torch, x, y)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=fused)

        def step():
            loss().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_second": B * T / statistics.median(seconds[2:]), "peak_mib": peak}))


def run(name: str, options) -> dict:
    root = str(Path(__file__).resolve().parents[1])
    # The checkout comes after our import: it has a bench.py of its own.
    peer = f"sys.path.append({options.nanogpt!r})" if name.startswith("nanoGPT") else "pass"
    start = f"import sys; sys.path.insert(0, {root!r}); import bench.train_step as b"
    code = f"{start}; {peer}; b.worker({name!r}, {options.steps})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each peer runs (default 5)")
    parser.add_argument("--steps", type=int, default=8, help="steps a run (default 8)")
    parser.add_argument("--nanogpt", help="directory of a nanoGPT checkout")
    options = parser.parse_args()
    names = [name for name in PEERS if options.nanogpt or not name.startswith("nanoGPT")] + ["floor"]
    found = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            found[name].append(run(name, options))
            print(f"round {number + 1}/{options.rounds}  {name}: {found[name][-1]}", file=sys.stderr)
    print("| | tokens/s, median | ours / it, median of rounds | peak MiB, median |\n|---|---|---|---|")
    for name in names:
        speed = statistics.median(r["tokens_per_second"] for r in found[name])
        pairs = zip(found["ours"], found[name], strict=True)
        ratio = statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
        peak = statistics.median(r["peak_mib"] for r in found[name])
        print(f"| {name} | {speed:,.0f} | {ratio:.2f} | {peak:,.0f} |")


if __name__ == "__main__":
    main()
