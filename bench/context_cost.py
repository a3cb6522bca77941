"""What it costs to read a long text: seconds and memory of attention and of a prompt, by length.

    python -m bench context_cost                 a table each
    python -m bench context_cost --plot docs     and draws the pictures of docs/context.md

Each case has a process of its own: the memory is the peak of the process above what it was before. CPU seconds of one
thread, the better of two: a busy machine changes them less than seconds on the wall.
"""

import argparse
import resource
import time
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LENGTHS = (1024, 2048, 4096, 8192)
WINDOW = 256


def attention(kind: str, length: int):
    """Forward and backward of one attention under a band, 4 heads of 64."""
    import torch

    from minigpt.attention import fast
    from minigpt.masks import Band

    q, k, v = (torch.randn(1, 4, length, 64).requires_grad_() for _ in range(3))
    band = Band(WINDOW, length)
    return lambda: fast(q, k, v, band if kind == "chunks" else band.dense()).sum().backward()


def prefill(kind: str, length: int):
    """A prompt read by a model of 4 layers, 256 wide: at once or in chunks, all layers dense or all banded."""
    import torch

    from minigpt import GPT, presets
    from minigpt.generation.reader import Reader

    torch.manual_seed(0)
    banding = {"window": WINDOW, "banded_layers": range(4)} if "banded" in kind else {}
    shape = {"n_layers": 4, "n_heads": 4, "d_model": 256, "vocab_size": 4096, "context": length + 1}
    model = GPT(presets.llama_like(**shape, **banding)).eval()
    reader = Reader(model, [0], room=1)
    reader.prefill_chunk = 512 if "chunks" in kind else length
    return lambda: reader.start([[1] * length])


CASES = {
    attention: ("mask", "chunks"),
    prefill: ("dense, at once", "dense, chunks of 512", "banded, at once", "banded, chunks of 512"),
}


def measure(task: str, kind: str, length: int) -> dict[str, float]:
    """One case, in this process: CPU seconds (the better of two) and MiB at the peak."""
    import torch

    torch.set_num_threads(1)
    globals()[task](kind, 600)()  # what PyTorch fetches at the first time is not the task's
    work = globals()[task](kind, length)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(2):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": min(seconds), "mib": peak / 1024}


def cost(plot: Path | None):
    from tqdm import tqdm

    import minigpt.generation.reader  # noqa: F401  before the fork, with all of PyTorch
    from minigpt.training.report import draw

    cases = [(task.__name__, kind, length) for task, kinds in CASES.items() for kind in kinds for length in LENGTHS]
    # A process of its own for each, forked once PyTorch is there: the peak of a process never comes down again.
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        found = {case: pool.apply(measure, case) for case in tqdm(cases, leave=False)}
    for task, kinds in CASES.items():
        print(f"\n| {task.__name__}, {' / '.join(map(str, LENGTHS))} tokens | CPU seconds | MiB |\n|---|---|---|")
        for kind in kinds:
            cells = [found[task.__name__, kind, length] for length in LENGTHS]
            times = " / ".join(f"{cell['seconds']:.2f}" for cell in cells)
            sizes = " / ".join(f"{cell['mib']:.0f}" for cell in cells)
            print(f"| {kind} | {times} | {sizes} |")
        if plot:
            for what, label in (("seconds", "CPU seconds"), ("mib", "MiB at the peak")):
                curves = [
                    (kind, LENGTHS, [found[task.__name__, kind, length][what] for length in LENGTHS], colour)
                    for kind, colour in zip(kinds, ("#c33", "#36c", "#e99", "#8ad"), strict=False)
                ]
                picture = draw(label, curves, {}, across="tokens")
                (plot / f"context-{task.__name__}-{what}.svg").write_text(picture, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the pictures there")
    cost(parser.parse_args().plot)
