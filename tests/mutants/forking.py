"""A process that has imported what is slow to import, and runs pytest in a copy of itself, as often as asked.

Each line of its standard input asks: {"folder": where, "arguments": [...], "limit": seconds, "output": a file}.
Each line of its standard output answers with pytest's exit code, or null where time was up. It imports nothing of
what is changed. A copy by fork needs a process without threads, which PyTorch has after its first large product.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

SLOW = (
    "torch", "numpy", "hypothesis", "pytest", "tiktoken", "safetensors.torch", "peft",
    "transformers.models.auto", "transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama",
    "transformers.generation.logits_process", "transformers.trainer_utils",
)  # fmt: skip


def main():
    for name in SLOW:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_run(**json.loads(line))), flush=True)


def _run(folder: str, arguments: list[str], limit: float, output: str) -> int | None:
    child = os.fork()
    if child == 0:
        os.setsid()
        os._exit(_tests(folder, arguments, output))
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _tests(folder: str, arguments: list[str], output: str) -> int:
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    sys.path[:] = [folder, *(path for path in sys.path if path)]
    try:
        return int(importlib.import_module("pytest").main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main()
