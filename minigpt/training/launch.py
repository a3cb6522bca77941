"""From what torchrun says to a group of ranks, and from a lost process to one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from minigpt.errors import Error
from minigpt.training.checkpoint import list_checkpoints
from minigpt.training.ranks import ALONE, Alone, Replicated

TIMEOUT = timedelta(hours=2)  # longest wait for a rank that lives: the main one may be preparing data
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def join(parallel: str, device: str, out: Path) -> Iterator[Alone]:
    """The ranks that torchrun has started, as a group; without torchrun, `ALONE`.

    Only the main process prints. When another one dies, the next sum fails: that becomes one sentence.
    """
    if not all(name in os.environ for name in TORCHRUN):
        yield ALONE
        return
    ranks = _start(parallel, device)
    try:
        yield ranks
    except RuntimeError as problem:  # gloo's are plain ones
        if not isinstance(problem, dist.DistError) and "gloo" not in str(problem).lower():
            raise
        raise Error(_lost(ranks, out)) from problem
    dist.destroy_process_group()


def _start(parallel: str, device: str) -> Replicated:
    local = int(os.environ["LOCAL_RANK"])
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cuda:
        if device not in ("auto", "cuda"):
            raise Error(f"--device is {device}: under torchrun each process takes a GPU of its own: give --device cuda")
        if local >= torch.cuda.device_count():
            raise Error(f"process {local} of this machine has no GPU, it has {torch.cuda.device_count()}: "
                        "start as many processes as there are GPUs")  # fmt: skip
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as problem:
        raise Error(
            f"the processes did not find each other ({str(problem).splitlines()[0]}): start them again"
        ) from None
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if parallel == "fsdp":
        from minigpt.training.shards import Sharded

        ranks = Sharded(where)
    else:
        ranks = Replicated(where)
    if not ranks.main:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ranks


def _lost(ranks: Alone, out: Path) -> str:
    checkpoints = list_checkpoints(out)
    go_on = f"torchrun --nproc-per-node {ranks.count} train.py --resume --out {out}"
    what = f"process {ranks.number} of {ranks.count} stops, for another one has ended (killed, out of memory, or lost)"
    if not checkpoints:
        return f"{what}: there is no checkpoint yet, start again"
    return f"{what}: {checkpoints[-1].name} is whole, go on with: {go_on}"
