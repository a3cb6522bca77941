"""What a LoRA adapter learned: the spectrum of its update a layer, and phi(i, j) beside a second adapter.

This package knows nothing of lora, and lora draws its own picture: it is asked on its command line, so that there is
one drawing of it. That one is an SVG.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from minigpt.errors import Error


def draw(directory: Path, other: Path | None = None) -> bytes:
    """The SVG of `python -m lora analyze`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.svg"
        asked = [directory] if other is None else [directory, other]
        command = [sys.executable, "-m", "lora", "analyze", *map(str, asked), "--picture", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        if done.returncode or not file.is_file():
            said = done.stderr.strip().splitlines()
            raise Error(said[-1].removeprefix("lora: ") if said else f"{directory}: lora analyze did not draw it")
        return file.read_bytes()
