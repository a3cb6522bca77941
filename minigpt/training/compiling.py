"""torch.compile of the model's blocks, which may fail in many ways (no compiler, no Triton, a graph it cannot take):
then the step is made again without, and one line says why.

Each block is compiled in place: modules, parameter names and checkpoints are what they were, and all blocks of a
shape share one compilation. Sampling runs uncompiled: each length of the text would be a shape of its own.
"""

from contextlib import AbstractContextManager

import torch
from torch import nn


def wanted(choice: str, device: torch.device) -> bool:
    """What "auto" means: on a GPU. On a CPU a compiled step took 1.4 times as long: see docs/precision.md.

    >>> wanted("auto", torch.device("cpu")), wanted("on", torch.device("cpu"))
    (False, True)
    """
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def compile_blocks(model: nn.Module, backend: str = "inductor"):
    """Have each block compiled at its first call."""
    for block in model.blocks:
        block.compile(backend=backend)


def forget(model: nn.Module):
    """The blocks as they were before `compile_blocks`."""
    for block in model.blocks:
        block._compiled_call_impl = None  # what Module.compile sets; there is no call that takes it back


def uncompiled() -> AbstractContextManager:
    """A context in which compiled blocks run as they are written."""
    return torch.compiler.set_stance("force_eager")


def reason(problem: BaseException) -> str:
    """An exception in one line: torch's go over many, and the innermost says most.

    >>> reason(RuntimeError("backend='inductor' raised:\\nInvalidCxxCompiler: No working C++ compiler found"))
    'RuntimeError: InvalidCxxCompiler: No working C++ compiler found'
    """
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    first = next((line for line in lines if not line.endswith("raised:")), "no message")
    return f"{type(problem).__name__}: {first[:200]}"
