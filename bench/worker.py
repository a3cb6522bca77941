"""One peer at work, in a process of its own: `python -m bench.worker JOB`, started by the harness.

It prepares, does one turn that does not count, says so in a line of JSON, and then does a turn for each line it
reads. Its standard output is for these answers alone: what the peers' libraries print goes to standard error.
"""

import importlib
import json
import os
import re
import resource
import sys
import time
from pathlib import Path

from bench.harness import Missing


def main():
    job = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        turn = prepare(job)
    except Missing as why:
        say(missing=str(why))
        return
    forget_peak()
    say(answer=turn())
    for _ in sys.stdin:
        say(**timed(turn))


def prepare(job: dict):
    """The peer's turn(), made from the words of the job."""
    module = importlib.import_module(job["module"])
    sys.path += job["paths"].values()  # last: a checkout may have modules named like ours
    return module.PEERS[job["peer"]](module.Work(**job["work"]))


def timed(turn) -> dict:
    """One turn: seconds by the wall and of the processor, peak of memory so far, what it returned."""
    processor, began = processor_seconds(), time.perf_counter()
    answer = turn()
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_seconds": processor_seconds() - processor,
        "peak_mib": peak_mib(),
        "answer": answer,
    }


def processor_seconds() -> float:
    """Of all threads of this process, and of the processes it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def forget_peak():
    """From here on the peak counts: building a model may take more than using it. Linux can forget, others cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    """Highest resident memory since `forget_peak`, where the system tells; else of the whole life of the process."""
    try:
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    except (OSError, TypeError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
