"""--profile: what every operator of three steps cost, as a trace for the standard viewers."""

from pathlib import Path

import torch

from minigpt.files import atomic_file

STEPS = 3


class Profile:
    """Watches `STEPS` steps after the first of this process, then writes run/trace.json.

    The file is Chrome's trace format: open it at https://ui.perfetto.dev (the file stays on your machine) or in
    chrome://tracing. The bars data, forward, backward and optimizer are the parts of a step.
    """

    def __init__(self, run: Path):
        self.path, self.seen, self.profiler = Path(run) / "trace.json", 0, None

    def after_step(self, last: bool = False) -> str | None:
        """To be called after each step; says where the trace is when it has been written."""
        self.seen += 1
        if self.profiler is not None and (last or self.seen > STEPS):
            return self._write()
        if self.seen == 1 and not last:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        return None

    def _write(self) -> str:
        self.profiler.stop()
        with atomic_file(self.path) as temporary:
            self.profiler.export_chrome_trace(str(temporary))
        self.profiler = None
        return (
            f"{self.path}: the trace of {self.seen - 1} steps; open it at https://ui.perfetto.dev or chrome://tracing"
        )
