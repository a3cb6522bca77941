"""One change at a time in a copy of the tree, the tests of its area, and what became of it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.mutants.areas import area_of, tests_of
from tests.mutants.by_lot import Mutation

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("minigpt", "lora", "tests", "data", "configs", "pyproject.toml", "train.py", "sample.py")
CAUGHT, SURVIVED, SLOW = "caught", "survived", "caught by the clock"


class Workshop:
    """A copy of the tree, where one file is changed, tried and put back; verdicts are kept in `memory` (JSON lines)."""

    def __init__(self, folder: Path, memory: Path):
        self.folder, self.memory = folder, memory
        shutil.rmtree(folder, ignore_errors=True)
        for name in KEPT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / name)
        self.known = {}
        if memory.is_file():
            records = map(json.loads, memory.read_text(encoding="utf-8").splitlines())
            self.known = {record["key"]: record["verdict"] for record in records}
        self.seconds: dict[str, float] = {}
        self.runner: subprocess.Popen | None = None

    def baseline(self, area: str) -> float:
        """Seconds that the tests of an area take where nothing is changed; they must pass."""
        if area not in self.seconds:
            began = time.monotonic()
            code, said = self._tests(area, limit=900)
            if code:
                raise SystemExit(f"the tests of {area} fail without any change:\n{said[-2000:]}")
            self.seconds[area] = time.monotonic() - began
        return self.seconds[area]

    def verdict(self, mutation: Mutation) -> str:
        """Whether the tests notice. The same change before the same tests is not tried again."""
        area = area_of(mutation.file)
        if (key := self.key(mutation, area)) in self.known:
            return self.known[key]
        file, limit = self.folder / mutation.file, 30 + 6 * self.baseline(area)
        source = file.read_text(encoding="utf-8")
        try:
            file.write_text(mutation.apply(source), encoding="utf-8")
            code, _ = self._tests(area, limit)
        finally:
            file.write_text(source, encoding="utf-8")
        found = SLOW if code is None else CAUGHT if code else SURVIVED
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        with self.memory.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"key": key, "verdict": found, "mutation": str(mutation)}) + "\n")
        self.known[key] = found
        return found

    def key(self, mutation: Mutation, area: str) -> str:
        parts = [(self.folder / name).read_bytes() for name in tests_of(area)]  # as they were copied
        parts += [str(mutation).encode(), f"{mutation.start}".encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]

    def _tests(self, area: str, limit: float) -> tuple[int | None, str]:
        """pytest's exit code, None where time was up, and what it said."""
        said = self.folder.with_name("said")
        arguments = ["-x", "-q", "-p", "no:cacheprovider", *tests_of(area)]
        asked = {"folder": str(self.folder), "arguments": arguments, "limit": limit, "output": str(said)}
        if self.runner is None:
            self.runner = self._begin()
        self.runner.stdin.write(json.dumps(asked) + "\n")
        self.runner.stdin.flush()
        return json.loads(self.runner.stdout.readline()), said.read_text(encoding="utf-8", errors="replace")

    def _begin(self) -> subprocess.Popen:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.folder),
        }
        command, pipe = [sys.executable, "-P", str(Path(__file__).with_name("forking.py"))], subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdin=pipe, stdout=pipe, text=True)

    def close(self):
        if self.runner is not None:
            self.runner.communicate()
