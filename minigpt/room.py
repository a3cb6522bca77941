"""How much memory is left, asked before much of it is taken.

Linux lends more than there is, and later ends the process that uses it, without a word and in the middle of its work.
So what is known to be needed is first held against what is there; all sizes are in bytes.
"""

import re
from pathlib import Path

from minigpt.errors import Error

try:
    import resource
except ImportError:  # Windows
    resource = None

GIB = 1 << 30
UNLIMITED = 1 << 60
SPENT = ("out of memory", "can't allocate memory", "not enough memory")  # as PyTorch says it, by device


def free(device="cpu") -> int | None:
    """Bytes that can still be taken on this device, swap included; None where the system does not tell.

    Of main memory it is the least that Linux, the container (cgroup v2) and `ulimit -v` leave.

    >>> free() is None or free() > 0
    True
    """
    if getattr(device, "type", str(device)).startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    if not Path("/proc/meminfo").is_file():
        return None
    return max(0, min(_of_machine(), _of_container(Path("/sys/fs/cgroup")), _of_limit()))


def check(need: int, what: str, advice: str, device="cpu", left: int | None = None):
    """`Error` if `what` takes more than is left (by default, what `free` says).

    >>> check(3 << 30, "a step", "give a smaller --batch-size", left=1 << 30)
    Traceback (most recent call last):
    ...
    minigpt.errors.Error: a step takes 3.0 GiB of memory, 1.0 GiB are left: give a smaller --batch-size
    """
    left = free(device) if left is None else left
    if left is not None and need > left:
        raise Error(f"{what} takes {need / GIB:.1f} GiB of memory, {left / GIB:.1f} GiB are left: {advice}")


def spent(problem: BaseException) -> str | None:
    """One sentence if this error means that memory is at its end.

    >>> spent(MemoryError())
    'out of memory: give it less at a time, or a smaller model; python -m minigpt.memory says what takes how much'
    >>> spent(ValueError("another one"))
    """
    text = str(problem)
    if not isinstance(problem, MemoryError) and not any(words in text.lower() for words in SPENT):
        return None
    wanted = re.search(r"tried to allocate ([\d.]+ ?\w+)", text, re.IGNORECASE)
    more = f", {wanted[1]} more were wanted" if wanted else ""
    return (
        f"out of memory{more}: give it less at a time, or a smaller model; "
        "python -m minigpt.memory says what takes how much"
    )


def _of_machine() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("MemAvailable", UNLIMITED) + sizes.get("SwapFree", 0)


def _of_container(root: Path) -> int:
    """What the group of this process, and those around it, may still take; what files are cached can be given up."""
    own = [line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")]
    place, left = root / (own[0].strip("/") if own else ""), UNLIMITED
    while place.is_relative_to(root):
        most = _read(place / "memory.max").strip()
        if most.isdigit():
            cached = re.search(r"^file (\d+)", _read(place / "memory.stat"), re.MULTILINE)
            taken = int(_read(place / "memory.current").strip() or 0) - int(cached[1] if cached else 0)
            left = min(left, int(most) - taken)
        place = place.parent
    return left


def _of_limit() -> int:
    most = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    if most < 0:
        return UNLIMITED
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return most - pages * resource.getpagesize()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
