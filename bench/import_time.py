"""How much longer is `import minigpt`, with the model, than `import torch`?  Whole processes."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

UNIT, REFERENCE = "starts/s", "import torch"


@dataclass(frozen=True)
class Work:
    name: str = "start a process"
    units: int = 1


def starting(statement: str, work: Work):
    """turn(): a process that runs the statement."""
    return lambda: subprocess.run([sys.executable, "-c", statement], check=True).returncode


STATEMENTS = ("import torch", "import minigpt", "import torch; from minigpt import GPT")
WORKS = [Work()]
PEERS = {statement: partial(starting, statement) for statement in STATEMENTS}
