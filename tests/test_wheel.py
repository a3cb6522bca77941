"""The wheel: everything that is read at run time is inside, and what is installed works far from the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"  # a copy: building leaves files behind
    for name in ("minigpt", "lora"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    words = "-m pip wheel --no-deps --no-build-isolation --quiet --wheel-dir".split()
    done = subprocess.run([sys.executable, *words, out, source], capture_output=True, text=True, cwd=out)
    if done.returncode and "setuptools" in done.stderr and "No module" in done.stderr:
        pytest.skip("setuptools is not installed: no wheel can be built without the network")
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = out.glob("minigpt-*.whl")
    return found


def test_every_file_of_the_libraries_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for room in ("minigpt", "lora"):
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in inside
    packages = {name.split("/")[0] for name in inside}
    assert {each for each in packages if not each.endswith(".dist-info")} == {"minigpt", "lora"}


CODE = """
import lora, minigpt, torch
from minigpt import GPT, presets
from minigpt.generation import beam_search, generate
from minigpt.generation.tree import as_html
assert "site-packages" in minigpt.__file__ and "site-packages" in lora.__file__, minigpt.__file__
model = GPT(presets.llama_like(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
traces = []
beam_search(model, [[1, 2]], max_new_tokens=3, traces=traces)
as_html(traces[0], str, "a page")
lora.attach(model, lora.Config(r=2))
lora.save(model, "adapter")
lora.detach(model)
model.save_pretrained("base")
print(len(generate(model, [[1, 2]], max_new_tokens=3)[0]))
"""


@pytest.mark.slow
def test_the_wheel_works_far_from_the_repository(wheel, tmp_path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.check_output(where, text=True).strip())
    zipfile.ZipFile(wheel).extractall(site)  # a wheel of pure Python is its files
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # there is what it depends on
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run([python, *words], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert run("-c", CODE).strip() == "3"
    run("-m", "lora", "merge", "base", "adapter", "merged")
    run("-m", "lora", "verify", "base", "adapter", "merged", "--policy", "exact")
    assert "peak" in run("-m", "minigpt.memory", "gpt2")
