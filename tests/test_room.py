"""Memory that is not there is missed before it is taken: the sentence says how much, and what would fit."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lora.cli
from minigpt import GPT, Error, GPTConfig, room
from minigpt.cli import run
from minigpt.memory import Job, Plan, predict
from minigpt.training import compose, estimate
from minigpt.training.options import ShapeConfig
from minigpt.web import opening

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux, which tells what is left")
SMALL = GPTConfig(n_layers=2, n_heads=2, d_model=32, context=64, vocab_size=300)
# A program with so many bytes left, as `ulimit -v` leaves them: PyTorch alone reserves some GB of addresses.
LIMITED = """
import resource, runpy, sys, torch
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TINY = "--n-layers 2 --n-heads 2 --d-model 64 --context 256 --vocab-size 300 --threads 1 --steps 2 --sample-every 0"


def limited(left: int, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LIMITED, str(left), str(ROOT / words[0]), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@LINUX
def test_what_is_left_is_what_the_strictest_of_three_says(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_of_limit", lambda: 5 << 30)
    monkeypatch.setattr(room, "_of_machine", lambda: 7 << 30)
    monkeypatch.setattr(room, "_of_container", lambda root: 6 << 30)
    assert room.free() == room.free(torch.device("cpu")) == 5 << 30
    monkeypatch.setattr(room, "_of_limit", lambda: -5)
    assert room.free() == 0


def test_a_container_is_as_small_as_those_around_it(tmp_path, monkeypatch):
    def group(place: Path, most: str, taken: int, cached: int):
        place.mkdir(exist_ok=True)
        (place / "memory.max").write_text(f"{most}\n")
        (place / "memory.current").write_text(f"{taken}\n")
        (place / "memory.stat").write_text(f"anon 1\nfile {cached}\nfile_mapped 7\n")

    read = room._read
    monkeypatch.setattr(room, "_read", lambda f: "1:cpu:/x\n0::/job\n" if f == Path("/proc/self/cgroup") else read(f))
    assert room._of_container(tmp_path) == room.UNLIMITED
    group(tmp_path / "job", "max", 900, 0)
    assert room._of_container(tmp_path) == room.UNLIMITED
    group(tmp_path, "1000", 900, 300)
    assert room._of_container(tmp_path) == 400
    group(tmp_path / "job", "500", 450, 50)
    assert room._of_container(tmp_path) == 100


def test_a_step_that_does_not_fit_is_refused_with_what_does(monkeypatch):
    gpt, job = GPT(SMALL), Job(batch=64, length=64)
    weights = sum(weight.nbytes for weight in gpt.parameters())
    need = predict(SMALL, job, Plan.of_model(gpt)).peak
    need += estimate.BESIDE
    monkeypatch.setattr(room, "free", lambda device: need - weights)
    estimate.check_memory(gpt, job)  # what the weights take is taken already
    monkeypatch.setattr(room, "free", lambda device: need - weights - 1)
    with pytest.raises(Error, match=r"--batch-size 63 fits; 32 with --accumulate 2 is the same step, or try --checkp"):
        estimate.check_memory(gpt, job)
    monkeypatch.setattr(room, "free", lambda device: (need - estimate.BESIDE) // 2 + estimate.BESIDE)
    with pytest.raises(Error, match=r"--batch-size (3[2-9]|4\d) fits; 32 with --accumulate 6 is the same step$"):
        estimate.check_memory(gpt, Job(batch=64, length=64, accumulate=3, checkpointing=True))
    monkeypatch.setattr(room, "free", lambda device: 0)
    with pytest.raises(Error, match="give a shorter --context, or a smaller --size, or try --checkpointing"):
        estimate.check_memory(gpt, job)
    monkeypatch.setattr(room, "free", lambda device: None)  # not known: nothing is refused
    estimate.check_memory(gpt, job)


def test_models_are_not_begun_that_no_memory_holds(tmp_path, monkeypatch):
    GPT(SMALL).save_pretrained(tmp_path)
    size = sum(weight.nbytes for weight in GPT(SMALL).parameters())
    monkeypatch.setattr(room, "free", lambda device: size)
    GPT.from_pretrained(tmp_path)
    tokens = type("Tokens", (), {"vocab_size": 300})
    shape = ShapeConfig(n_layers=2, n_heads=2, d_model=32, context=64)
    monkeypatch.setattr(room, "free", lambda device: size // 2 + 1)
    GPT.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with pytest.raises(Error, match=rf"the model of {re.escape(str(tmp_path))} takes .* of memory, .* are left"):
        GPT.from_pretrained(tmp_path)
    with pytest.raises(Error, match="a model of this shape takes .*: give a smaller --size"):
        compose.make_model(shape, tokens, 0, "cpu")


def test_a_server_says_how_many_texts_it_has_room_for(monkeypatch):
    gpt, left = GPT(SMALL), []
    monkeypatch.setattr(room, "free", lambda device: left[0])
    row = 2 * 2 * 64 * 32 * 4  # keys and values of two layers, 64 tokens of 32 numbers in 4 bytes
    left[:] = [8 * row]
    assert opening.crowded(gpt, 8) is None
    assert opening.crowded(gpt, 9).endswith("--max-rows 8 fits") and "9 texts of 64 tokens" in opening.crowded(gpt, 9)
    left[:] = [4 * row]
    assert opening.crowded(gpt.bfloat16(), 8) is None


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000 bytes. Error code 12"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    ],
)
def test_memory_at_its_end_is_one_sentence(problem, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "reconfigure", lambda **_: None, raising=False)

    def main():
        raise problem

    with pytest.raises(SystemExit) as ended:
        run(main, "train.py")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("train.py: out of memory") and said.count("\n") == 1
    assert "2.00 GiB" in said or "CUDA" not in str(problem)


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_lora_says_it_too(problem, capsys, monkeypatch):
    def inspect(options):
        raise problem

    monkeypatch.setattr(lora.cli, "_inspect", inspect)
    assert lora.cli.main(["inspect", "somewhere"]) == 2
    assert capsys.readouterr().err.startswith("lora: out of memory")
    problem = RuntimeError("another one")
    with pytest.raises(RuntimeError, match="another one"):
        lora.cli.main(["inspect", "somewhere"])


def test_other_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(sys.stdin, "reconfigure", lambda **_: None, raising=False)
    with pytest.raises(RuntimeError, match="must match"):
        run(lambda: torch.ones(2) + torch.ones(3), "train.py")


@LINUX
@pytest.mark.slow
def test_the_batch_that_is_proposed_is_one_that_runs(tmp_path):
    words = ["train.py", *TINY.split(), "--out", tmp_path / "run"]
    refused = limited(1 << 30, *words, "--batch-size", 512)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    said = re.search(r"train.py: a step of 512 rows takes .* are left: --batch-size (\d+) fits", refused.stderr)
    assert said, refused.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    done = limited(1 << 30, *words, "--batch-size", int(said[1]), "--overwrite")
    assert done.returncode == 0, done.stderr[-2000:]
