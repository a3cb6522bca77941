"""Processes that are forked from one that has imported torch, so that a test of several costs no seconds of import."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from pathlib import Path

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["torch", "torch.distributed.fsdp", "minigpt.training.compose", "lora"])
ROOT = Path(__file__).parents[1]


def launch(function, *args, count: int = 2, where: Path, seconds: float = 240) -> str:
    """function(*args) in `count` processes that believe torchrun started them; what they wrote. All must end well."""
    codes, text = launch_any(function, *args, count=count, where=where, seconds=seconds)
    assert codes == [0] * count, f"exit codes {codes}\n{text[-4000:]}"
    return text


def launch_any(function, *args, count: int, where: Path, seconds: float) -> tuple[list[int], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where.mkdir(parents=True, exist_ok=True)
    texts = [where / f"rank-{rank}.txt" for rank in range(count)]
    ranks = [
        FORK.Process(target=_child, args=(rank, count, port, texts[rank], function, args)) for rank in range(count)
    ]
    for process in ranks:
        process.start()
    end = time.monotonic() + seconds
    while any(process.is_alive() for process in ranks) and time.monotonic() < end:
        time.sleep(0.02)
        if any(process.exitcode for process in ranks):
            end = min(end, time.monotonic() + 10)  # one failed: the others wait for it in vain
    for process in ranks:
        process.kill()
        process.join()
    return [process.exitcode for process in ranks], "".join(text.read_text(encoding="utf-8") for text in texts)


def run_train(*words):
    """train.py with these words."""
    sys.path.insert(0, str(ROOT))
    import train

    sys.argv = ["train.py", *map(str, words)]
    train.run(train.main, "train.py", train.lora.Error)


def _child(rank: int, count: int, port: int, text: Path, function, args):
    import torch

    with text.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    torch.set_num_threads(1)
    if count > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    try:
        function(*args)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the others must hear of it now, not when the group has been taken down in good order
