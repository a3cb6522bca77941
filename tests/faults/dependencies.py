"""What is installed beside us, what each package is for, and under which licence."""

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PURPOSE = {  # of what pyproject.toml names
    "torch": "tensors, gradients, kernels",
    "numpy": "token files as memory maps",
    "einops": "changes of shape that can be read",
    "safetensors": "weights on disk without pickle",
    "tiktoken": "byte-level BPE at run time",
    "tokenizers": "trains that BPE",
    "jsonargparse": "command lines from dataclasses",
    "pyyaml": "config files",
    "tqdm": "progress bars",
    "matplotlib": "pictures",
    "jinja2": "report.html",
    "pytest": "tests",
    "pytest-xdist": "tests on two cores",
    "hypothesis": "tests of properties",
    "transformers": "the reference for models and tokenizers",
    "peft": "the reference for adapters",
    "bitsandbytes": "the reference for four bits",
    "pyarrow": "reads .parquet",
    "tensorboard": "--tensorboard",
    "openai": "tests of the server, as a client",
    "playwright": "tests of the page, in a browser",
    "starlette": "routes of the server",
    "uvicorn": "the server's sockets",
    "prometheus-client": "/metrics of the server",
    "huggingface-hub": "--download",
    "ruff": "style",
    "mypy": "types of the public names",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Package -> version, of constraints.txt; a line that is no exact version is under its own text."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            exact = re.fullmatch(r"([A-Za-z0-9_.-]+)==([A-Za-z0-9_.!+-]+)", line.strip())
            found[canonical(exact[1]) if exact else line] = exact[2] if exact else ""
    return found


def named() -> set[str]:
    """What pyproject.toml asks for, extras too."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(each for more in project["optional-dependencies"].values() for each in more)]
    return {canonical(re.match(r"[A-Za-z0-9_.-]+", each)[0]) for each in wanted} - {"minigpt"}


def needed() -> set[str]:
    """What is installed of it, with what that needs in turn on this machine; but for what only a build of PyTorch with
    CUDA needs, which PyTorch itself pins exactly."""
    from packaging.requirements import Requirement

    found, open_ = set(), set(named())
    while open_:
        name = open_.pop()
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for each in map(Requirement, requires):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                open_ |= {canonical(each.name)} - found
    return {name for name in found if not name.startswith(("nvidia-", "cuda-", "triton"))}


def licence(name: str) -> str:
    """As the package's own metadata says it."""
    about = metadata.metadata(name)
    trove = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier", []) if each.startswith("License ::")]
    stated = about.get("License-Expression") or ", ".join(trove) or (about.get("License") or "").split("\n")[0]
    return stated[:60] or "not stated"


def table() -> list[str]:
    rows = ["| package | pinned | for | licence |", "|---|---|---|---|"]
    for name in sorted(named() & needed()):
        rows.append(f"| {name} | {pinned().get(name, '')} | {PURPOSE.get(name, '')} | {licence(name)} |")
    return rows
