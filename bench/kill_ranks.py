"""Two processes, killed at ten random moments and resumed each time: are the final weights those of a run in peace?

    python -m bench kill_ranks [--kills 10] [--parallel ddp|fsdp] [--out DIRECTORY]

Each time one of the two, drawn at random, gets kill -9 a random time after the run has made its next checkpoint, in
the middle of whatever it does then; torchrun ends the other. The same number of processes adds in the same order, so
the answer must be yes to the last bit: weights, optimizer state and every recorded loss.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from minigpt.training.checkpoint import list_checkpoints
from minigpt.training.log import read_metrics

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OPTIONS = """
--n-layers 1 --n-heads 2 --d-model 16 --context 16 --batch-size 2 --vocab-size 300 --threads 1 --dropout 0.1
--accumulate 3 --warmup 4 --eval-every 4 --eval-batches 2 --sample-every 0 --save-every 1""".split()
STEPS = 25  # for each kill: what a run may do from its first new checkpoint to the kill, and more


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--parallel", default="ddp", choices=["ddp", "fsdp"])
    parser.add_argument("--out", type=Path, default=None)
    chosen = parser.parse_args()
    folder = chosen.out or Path(tempfile.mkdtemp())
    peace, killed = folder / "peace", folder / "killed"
    options = [*OPTIONS, "--parallel", chosen.parallel, "--steps", str(STEPS * chosen.kills)]
    start(peace, *options).communicate()
    kills, sentences = 0, 0
    draw = random.Random(0)
    while not (killed / "report.html").is_file():
        checkpoints = list_checkpoints(killed)
        process = start(killed, *options, "--resume" if checkpoints else "--overwrite")
        if kills == chosen.kills:
            process.communicate()
            break
        sentence = kill_one(process, killed, checkpoints[-1:], draw)
        kills += sentence is not None
        sentences += bool(sentence)
        print(
            f"kill {kills}: {sentence!r}, last checkpoint {[c.name for c in list_checkpoints(killed)[-1:]]}", flush=True
        )
    print(f"{kills} kills, {sentences} times the other process said so in a sentence")
    sys.exit(not equal(peace, killed))


def start(run: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*TORCHRUN, ROOT / "train.py", "--out", run, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, encoding="utf-8",
    )  # fmt: skip


def kill_one(process: subprocess.Popen, run: Path, before: list[Path], draw: random.Random) -> str | None:
    """Kill one of the ranks; what the other said of it ("" if nothing), None if the run was over before."""
    while process.poll() is None and list_checkpoints(run)[-1:] == before:
        time.sleep(0.01)
    time.sleep(draw.random() * 0.5)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    if process.poll() is None and found:
        os.kill(int(draw.choice(found)), signal.SIGKILL)
    _, errors = process.communicate()
    if process.returncode == 0:
        return None
    said = re.search(r"train\.py: (process \d of \d stops, .*)", errors)
    return said[1] if said else ""


def equal(peace: Path, killed: Path) -> bool:
    last = [list_checkpoints(run)[-1] for run in (peace, killed)]
    answers = {
        file: (last[0] / file).read_bytes() == (last[1] / file).read_bytes()
        for file in ("model.safetensors", "optimizer.safetensors")
    }
    answers["best model"] = (peace / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    losses = [{r["step"]: r["loss"] for r in read_metrics(run) if r["kind"] == "train"} for run in (peace, killed)]
    answers["losses"] = losses[0] == losses[1]
    print({name: "equal, bit for bit" if same else "DIFFERS" for name, same in answers.items()})
    return all(answers.values())


if __name__ == "__main__":
    main()
