"""What a server makes of its model: requests at once beside requests one after another, and what HTTP costs.

    python -m bench serve                     a model as of the demo (4 blocks of width 256), a minute
    python -m bench serve --gpt2              the shape of GPT-2 124M, some minutes

A real server (sample.py --serve) in a process of its own, and this one as its clients, who read streams. In every round
each way has a turn, another one first each time: requests one after another, all at once, and the same texts by the
engine alone without HTTP, in this process, one by one and all at once. Ratios are of medians, over the rounds; weights
are random, as what they are does not matter.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

from minigpt import GPT, GPTConfig, presets
from minigpt.bpe_files import EOT
from minigpt.generation.engine import Ask, Engine
from minigpt.generation.sampling import Sampler
from minigpt.serving import serving
from minigpt.tokenizer import PATTERN, Tokenizer

ROOT = Path(__file__).resolve().parents[1]
DEMO = GPTConfig(n_layers=4, n_heads=4, d_model=256, vocab_size=4096, context=512)
PROMPT = list(range(1, 49))
WAYS = ("engine, one by one", "engine, at once", "HTTP, one by one", "HTTP, at once")


class Served:
    """A server process, and requests to it."""

    def __init__(self, directory: Path, threads: int, tokens: int):
        command = [sys.executable, ROOT / "sample.py", directory, "--serve", "--port", "0", "--quiet"]
        self.process = subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split(":")[2].split("/")[0])
        self.tokens, self.first = tokens, []

    async def ask(self, seed: int) -> int:
        """One streamed text; how many tokens it had."""
        body = {"prompt": PROMPT, "max_tokens": self.tokens, "seed": seed, "stream": True}
        text = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        began = time.perf_counter()
        writer.write(head.encode() + f"Connection: close\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        found = b""
        while part := await reader.read(1 << 16):
            if b"data: " in part and b"data: " not in found:
                self.first.append(time.perf_counter() - began)
            found += part
        writer.close()
        return int(re.search(rb'"completion_tokens":(\d+)', found)[1])

    async def one_by_one(self, requests: int) -> int:
        return sum([await self.ask(seed) for seed in range(requests)])

    async def at_once(self, requests: int) -> int:
        return sum(await asyncio.gather(*(self.ask(seed) for seed in range(requests))))

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def written(model: GPT, tokens: int, groups: list[list[int]]) -> int:
    """Tokens that the engine alone writes, the seeds of a group at once."""
    count, sampler = 0, Sampler(max_new_tokens=tokens, ends=frozenset([model.config.vocab_size - 1]))
    for seeds in groups:
        engine = Engine(model)
        for seed in seeds:
            engine.submit(Ask(PROMPT, sampler, seed))
        while not engine.idle:
            count += sum(map(len, engine.step().values()))
    return count


def save(directory: Path, config: GPTConfig) -> GPT:
    """A model of this shape, with a tokenizer of as many tokens: bytes, pairs of them, and the end of text."""
    torch.manual_seed(0)
    model, pairs = GPT(config).eval(), config.vocab_size - 257
    model.save_pretrained(directory)
    tokens = [bytes([i]) for i in range(256)] + [divmod(i, 256) for i in range(pairs)]
    ranks = {bytes(token): rank for rank, token in enumerate(tokens)}
    Tokenizer(ranks, PATTERN, {EOT: len(ranks)}).save(directory)
    return model


def measure(model: GPT, server: Served, requests: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each way, round by round."""
    seeds = list(range(requests))
    turns = {
        WAYS[0]: lambda: written(model, tokens, [[seed] for seed in seeds]),
        WAYS[1]: lambda: written(model, tokens, [seeds]),
        WAYS[2]: lambda: asyncio.run(server.one_by_one(requests)),
        WAYS[3]: lambda: asyncio.run(server.at_once(requests)),
    }
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    first: dict[str, list[float]] = {way: [] for way in WAYS[2:]}
    for number in tqdm(range(rounds + 1), unit="round", disable=None, leave=False):
        for place in range(len(WAYS)):
            way = WAYS[(place + number) % len(WAYS)]
            server.first, began = [], time.perf_counter()
            count = turns[way]()
            if number:  # the first round warms up
                speeds[way].append(count / (time.perf_counter() - began))
                first.setdefault(way, []).extend(server.first)
    return speeds | {f"first, {way}": first[way] for way in WAYS[2:]}


def table(found: dict[str, list[float]]) -> str:
    speed = {way: statistics.median(found[way]) for way in WAYS}
    lines = ["| way | tokens/s | of one by one | quartiles | first token, ms |", "|---|---|---|---|---|"]
    for way in WAYS:
        alone = found[f"{way.partition(',')[0]}, one by one"]
        ratios = [mine / theirs for mine, theirs in zip(found[way], alone, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        first = found.get(f"first, {way}")
        told = f"{1000 * statistics.median(first):.1f}" if first else ""
        ratio = speed[way] / statistics.median(alone)
        lines.append(f"| {way} | {speed[way]:,.0f} | {ratio:.2f} | {low:.2f} to {high:.2f} | {told} |")
    cost = [speed[f"HTTP, {how}"] / speed[f"engine, {how}"] for how in ("one by one", "at once")]
    lines.append(f"\nOf the engine's speed HTTP leaves {cost[0]:.0%} one by one, {cost[1]:.0%} at once.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=8, help="texts of a turn (default 8)")
    parser.add_argument("--tokens", type=int, default=64, help="of each text (default 64)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way (default 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch in each process (default: all)")
    parser.add_argument("--gpt2", action="store_true", help="the shape of GPT-2 124M")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        model = save(directory, presets.gpt2("small") if options.gpt2 else DEMO)
        server = Served(directory, options.threads, options.tokens)
        stack.callback(server.close)
        stack.enter_context(serving(model))
        found = measure(model, server, options.requests, options.tokens, options.rounds)
    print(table(found))
    print(
        f"\n{options.requests} texts of {options.tokens} tokens after {len(PROMPT)}, {options.threads} threads, ",
        end="",
    )
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
