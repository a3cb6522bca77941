"""python -m bench NAME: measure, and print a table. Without a name: what there is."""

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

import bench
from bench import show
from bench.harness import CLOCKS, Failed, Settings, lines, measure
from minigpt.files import write_atomic

# Name -> what it asks. The first are measured by the harness; the others have a main() of their own.
TIMED = {
    "train_step": "a training step, small and GPT-2 124M, beside nanoGPT, transformers and litgpt",
    "lora_step": "a training step with LoRA, GPT-2 124M, beside peft, loralib and litgpt",
    "generation": "writing text: greedy, beams, samples, beside transformers",
    "lora_decode": "what adapters cost at decoding, of the speed of their base",
    "lora_merge": "merging LoRA into GPT-2 124M and taking it out again, beside peft",
    "few_rows": "one pass over GPT-2's weights with few rows, by kernel",
    "import_time": "`import minigpt` beside `import torch`",
    "growth": "a training step as context, width and batch grow, beside transformers",
    "length": "a decoding step as the text grows, beside transformers",
    "adapters": "a decoding step as the number of adapters in a batch grows, beside peft",
}
OTHERS = {
    "lora_exact": "how exact merging is, and how many broken adapters are taken, beside peft and loralib",
    "int8_loss": "what 8-bit weights cost a run of yours, in nats",
    "kill_ranks": "are the weights the same bits after ten kill -9 of one process of two?",
    "time_to_quality": "how soon is our default as good as the GPT-2 recipe after 20 minutes?",
    "ablation": "what each part of the default recipe is worth, three seeds",
    "methods": "every tuning method on one frozen base: quality, numbers, bytes, time",
    "counts": "what each method learns and stores, beside the papers' numbers",
    "latency": "a forward pass with each method, the grid of the LoRA paper",
    "mixed_rows": "tokens a second of eight rows with adapters of their own",
    "family": "the claims of the GPT papers, on toys: shots, forgetting, scale, prompts",
    "instruct": "does tuning on instructions help with instructions never tuned on?",
    "chat": "what a conversation costs, and what its history is worth",
    "context": "what each way of stretching positions is worth",
    "serve": "requests at once beside one after another, and what HTTP costs",
    "context_cost": "time and memory against the length of a text",
}
ALL = ("train_step", "lora_step", "lora_exact", "lora_merge", "generation", "lora_decode", "few_rows", "import_time")
EXAMPLES = """
examples:
  python -m bench train_step --nanogpt ~/nanoGPT --rounds 9
  python -m bench generation --only beams
  python -m bench growth --plot growth.svg --json growth.jsonl
  python -m bench train_step --threads 1 --clock cpu        where others compute on the machine too
"""


def main() -> int:
    if (name := next(iter(sys.argv[1:]), None)) in OTHERS:
        sys.argv[:2] = [f"python -m bench {name}"]  # the rest is its own
        return importlib.import_module(f"bench.{name}").main()
    options = make_parser().parse_args()
    if options.name is None:
        make_parser().print_help()
        return 0
    try:
        for name in ALL if options.name == "all" else [options.name]:
            importlib.import_module(f"bench.{name}").main() if name in OTHERS else run(name, options)
    except Failed as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    names = [f"  {name:15} {what}" for name, what in (TIMED | OTHERS | {"all": ", ".join(ALL)}).items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="\n".join([bench.__doc__, *names]), epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", choices=[*TIMED, *OTHERS, "all"], metavar="NAME", nargs="?", help="one of the above")
    parser.add_argument("--rounds", type=int, help="turns of each peer at each work (default 5, of quick works 15)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process (default: all)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds of the wall, or of the processor")
    parser.add_argument("--only", default="", metavar="WORDS", help="works whose name holds this")
    parser.add_argument("--peers", metavar="A;B", help="these peers alone, named as in the table")
    parser.add_argument("--nanogpt", metavar="DIR", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every turn as a line of JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="a picture of the table")
    return parser


def run(name: str, options):
    """Measure one benchmark, and show it."""
    module = importlib.import_module(f"bench.{name}")
    works = [work for work in module.WORKS if options.only in work.name]
    peers = options.peers.split(";") if options.peers else list(module.PEERS)
    if not works:
        raise Failed(f"--only {options.only!r} fits none of: {', '.join(work.name for work in module.WORKS)}")
    if unknown := [peer for peer in peers if peer not in module.PEERS]:
        raise Failed(f"--peers {unknown[0]!r} is none of: {'; '.join(module.PEERS)}")
    if options.nanogpt and not Path(options.nanogpt, "model.py").is_file():
        raise Failed(f"--nanogpt {options.nanogpt}: no model.py there: name the directory of a checkout")
    paths = {"nanogpt": str(Path(options.nanogpt).resolve())} if options.nanogpt else {}
    rounds = options.rounds or getattr(module, "ROUNDS", 5)
    settings = Settings(rounds, options.threads, options.clock, paths)
    results = [result for work in works for result in measure(f"bench.{name}", work, peers, settings)]
    if not results:
        raise Failed(f"{name}: none of its peers is here")
    print(f"{name}: {describe(settings)}\n\n{show.table(results, module.REFERENCE, module.UNIT)}\n", flush=True)
    for line in show.disagreements(results):
        print(line)
    if options.json:
        head = {"bench": name, "machine": describe(settings), "clock": options.clock}
        write_atomic(options.json, "\n".join([json.dumps(head), *lines(results)]) + "\n")
    if options.plot:
        write_atomic(options.plot, show.draw(results, module.UNIT))


def describe(settings: Settings) -> str:
    """What the numbers depend on: versions, processor, how it was measured."""
    from importlib.metadata import version

    clock = {"wall": "wall clock", "cpu": "processor's seconds"}[settings.clock]
    how = f"{settings.rounds} rounds, {settings.threads} threads, {clock}"
    return f"torch {version('torch')}, Python {platform.python_version()}, {platform.machine()}; {how}"


if __name__ == "__main__":
    sys.exit(main())
