"""Two processes are one: the same step, the same files, and one sentence when one of them is lost."""

import copy
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import ROOT, launch, launch_any, run_train
from safetensors.torch import load_file
from test_training import some_batches, tiny

import lora
from minigpt import Error
from minigpt.loss import IGNORE
from minigpt.training.checkpoint import Progress, list_checkpoints, load_checkpoint, save_checkpoint
from minigpt.training.compute import Compute
from minigpt.training.evaluate import evaluate
from minigpt.training.launch import join
from minigpt.training.log import read_metrics
from minigpt.training.loop import train_step
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import LoopConfig, OptimizerConfig, RunConfig
from minigpt.training.ranks import ALONE, Replicated
from minigpt.training.weights import WholeModel

LLAMA = {"norm": "rmsnorm", "gated": True, "activation": "silu", "positions": "rotary", "bias": False, "tied": False}


def rank_of(number: int, count: int) -> Replicated:
    """One of `count` ranks, without a group."""
    ranks = Replicated.__new__(Replicated)
    ranks.number, ranks.count = number, count
    return ranks


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 6), share=st.integers(1, 20))
def test_every_batch_goes_to_one_rank_and_every_rank_gets_as_many(count, share):
    batches = some_batches(400, batch_size=2)
    numbers = range(3, 3 + share)
    dealt = [list(rank_of(number, count).deal(batches, numbers)) for number in range(count)]
    assert len({len(mine) for mine in dealt}) == 1
    real = [(place, batch) for mine in dealt for place, batch in mine if batch.n_targets]
    assert sorted(place for place, _ in real) == list(range(share))
    for place, batch in real:
        assert torch.equal(batch.tokens, batches[3 + place].tokens)
        assert torch.equal(batch.targets, batches[3 + place].targets)
    blanks = [batch for mine in dealt for _, batch in mine if not batch.n_targets]
    assert len(blanks) == -share % count and all((batch.targets == IGNORE).all() for batch in blanks)


# --- what follows until the next line runs in two processes -----------------------------------------------------


class Masked:
    """Batches whose targets are masked very unevenly: a mean of means would be far off."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        batch = self.batches[i]
        kept = torch.rand(batch.targets.shape, generator=torch.Generator().manual_seed(i)) < (0.9, 0.1, 0.5)[i % 3]
        targets = batch.targets.where(kept, IGNORE)
        return type(batch)(batch.tokens, targets, batch.positions, batch.documents, int((targets != IGNORE).sum()))


def adapted(**options):
    model = tiny(dropout=0.1, **LLAMA).double()
    config = {"targets": ["q_proj", "v_proj", "down_proj"], "dropout": 0.1}
    lora.attach(model, lora.Config(r=2, alpha=4, **config | options))
    for name, weight in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(weight, std=0.1)  # B = 0 would hide A
    return model


def quantized():
    """QLoRA: matrices in four bits, which are buffers and not parameters; adapters beside them learn."""
    model = tiny(dropout=0.1, d_model=64, **LLAMA).double()
    lora.quantize(model)
    lora.attach(model, lora.Config(r=2, alpha=4, targets="all-linear", dropout=0.1))
    for parameter in lora.parameters(model):
        torch.nn.init.normal_(parameter, std=0.1)
    return model


MODELS = {
    "gpt2": lambda: tiny(dropout=0.1).double(),
    "llama": lambda: tiny(dropout=0.1, **LLAMA).double(),
    "lora": adapted,
    "dora": lambda: adapted(dora=True),
    "qlora": quantized,
    "tied": lambda: adapted(targets=["q_proj", "head"], dropout=0.0),
    "muon": lambda: tiny(dropout=0.1, **LLAMA).double(),
}
ADAMW, MUON = OptimizerConfig(optimizer="adamw"), OptimizerConfig(optimizer="muon")
BATCHES = {"eot": 0, "document_mask": True}  # 300 tokens: 19 windows, 10 batches, the last of one row
LOOP = LoopConfig(accumulate=3)


def steps(model, ranks, first=0, n=4, loop=LOOP, optimizer=None, clip=0.01, batches=None, config=ADAMW):
    """n steps: their losses, lengths of gradients, tokens; and the optimizer."""
    optimizer = optimizer or make_optimizer(model, config)
    batches = batches or Masked(some_batches(300, batch_size=2, **BATCHES))
    model.train()
    compute = Compute(model, ranks=ranks)
    done = [train_step(model, optimizer, batches, loop, step, 1e-2, clip, compute) for step in range(first, first + n)]
    return done, optimizer


def farthest(model, ranks, wanted) -> float:
    """The largest difference of a weight, seen where files are written."""
    with ranks.writing(model) as whole:
        pairs = zip(model.parameters(), wanted.parameters(), strict=True) if whole else ()
        return max(((ours - theirs).abs().max().item() for ours, theirs in pairs), default=0.0)


def same_as_alone(kind: str, ranks) -> dict:
    model = MODELS[kind]()
    twin, untouched = copy.deepcopy(model), copy.deepcopy(model)
    if not ranks.main:
        for number in (*model.parameters(), *model.buffers()):
            torch.nn.init.zeros_(number)  # all begin as the main process does
    ranks.prepare(model)
    config = MUON if kind == "muon" else ADAMW
    (ours, _), (theirs, _) = steps(model, ranks, config=config), steps(twin, ALONE, config=config)
    judged = evaluate(model, some_batches(300, batch_size=2, shuffle=False), torch.arange(50), ranks=ranks)
    wanted = evaluate(twin, some_batches(300, batch_size=2, shuffle=False), torch.arange(50))
    moved = max((a - b).abs().max().item() for a, b in zip(twin.parameters(), untouched.parameters(), strict=True))
    return {
        "weights": farthest(model, ranks, twin),
        "numbers": max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)),
        "clipped": max(norm for _, norm, _ in theirs) > 0.01,
        "moved": moved,
        "evaluation": abs(judged.loss - wanted.loss) + abs(judged.bits_per_byte - wanted.bits_per_byte),
        "tokens": judged.tokens - wanted.tokens,
    }


EXCHANGES = ("all_reduce", "reduce_scatter_tensor", "reduce_scatter_single")  # the last is the name from torch 2.13 on


def counted(exchange, calls: list[int], *args, **options):
    calls.append(max(value.numel() for value in (*args, *options.values()) if isinstance(value, torch.Tensor)))
    return exchange(*args, **options)


def exchanges(ranks, accumulate: int) -> int:
    """Exchanges of gradients in one step; numbers such as the loss are not counted."""
    model, calls = tiny(), []
    ranks.prepare(model)
    names = [name for name in EXCHANGES if hasattr(dist, name)]
    before = {name: getattr(dist, name) for name in names}
    for name in names:
        setattr(dist, name, partial(counted, before[name], calls))
    try:
        steps(model, ranks, n=1, loop=LoopConfig(accumulate=accumulate))
    finally:
        for name in names:
            setattr(dist, name, before[name])
    return sum(size > 8 for size in calls)


def through_a_checkpoint(run: Path, writer, reader) -> float:
    """2 steps, saved by one kind and read by another (other dropout in memory, other weights), 2 more: against 4."""
    twin, model, other = (tiny(dropout=0.1).double() for _ in range(3))
    steps(twin, ALONE, config=MUON)
    writer.prepare(model)
    _, optimizer = steps(model, writer, n=2, config=MUON)
    evaluate(model, some_batches(90, shuffle=False), torch.arange(50), ranks=writer)  # leaves weights together
    if writer is ALONE and dist.get_rank():
        writer.sum()
    else:
        save_checkpoint(run, WholeModel(model), model, optimizer, Progress(step=2), ranks=writer)
    dist.barrier()
    torch.nn.init.ones_(other.token_embedding.weight)
    reader.prepare(other)
    optimizer = make_optimizer(other, MUON)
    assert load_checkpoint(run, WholeModel(other), other, optimizer, reader).step == 2
    steps(other, reader, first=2, n=2, optimizer=optimizer)
    return farthest(other, reader, twin)


def measure(out: Path):
    """Everything that needs a group and no command line, in one group."""
    from minigpt.training.shards import Sharded

    found = {}
    with join("ddp", "cpu", out) as ddp:
        kinds = {"ddp": ddp, "fsdp": Sharded(torch.device("cpu"))}
        for name, ranks in kinds.items():
            found[name] = {kind: same_as_alone(kind, ranks) for kind in MODELS}
            found[name]["exchanges"] = [exchanges(ranks, accumulate) for accumulate in (2, 4, 8)]
            model = tiny()
            ranks.prepare(model)
            held = [getattr(w, "to_local", w.detach)().numel() for w in model.parameters()]
            found[name]["held"] = sum(held) / sum(w.numel() for w in model.parameters())
        for writer, reader in (("ddp", "fsdp"), ("fsdp", "alone"), ("alone", "fsdp")):
            pair = ({**kinds, "alone": ALONE}[kind] for kind in (writer, reader))
            found[f"{writer} to {reader}"] = through_a_checkpoint(out / f"{writer}-{reader}", *pair)
        model, twin = tiny(dropout=0.1), tiny(dropout=0.1)
        two = {"loop": LoopConfig(accumulate=2), "clip": 0.0}
        steps(model, ddp, **two), steps(twin, ALONE, **two)
        found["two addends"] = farthest(model, ddp, twin)
        (out / f"found-{ddp.number}.json").write_text(json.dumps(found))


# --- and is judged here ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("ranks")
    launch(measure, out, where=out / "text")
    return json.loads((out / "found-0.json").read_text())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_three_micro_batches_on_two_ranks_are_the_step_of_one_process(found, parallel, kind):
    """float64, uneven masks, documents, dropout, a short batch, one blank a step, clipping, AdamW, four steps."""
    seen = found[parallel][kind]
    assert seen["weights"] < 1e-12 and seen["numbers"] < 1e-6, seen  # the loss is added in float32
    assert seen["moved"] > 1e-3 and seen["clipped"], "nothing was tested"
    assert seen["evaluation"] < 1e-12 and seen["tokens"] == 0


def test_gradients_are_exchanged_once_a_step_however_many_micro_batches(found):
    assert found["ddp"]["exchanges"] == [1, 1, 1]
    assert found["fsdp"]["exchanges"] == [3, 3, 3]  # two blocks and the rest


def test_a_shard_is_half_of_the_weights(found):
    assert found["ddp"]["held"] == 1 and 0.49 < found["fsdp"]["held"] < 0.55


def test_checkpoints_cross_from_any_number_of_processes_to_any_other(found):
    for way in ("ddp to fsdp", "fsdp to alone", "alone to fsdp"):
        assert found[way] < 1e-12, way


def test_a_sum_of_two_has_one_order_so_that_not_a_bit_differs(found):
    assert found["two addends"] == 0.0


TINY = "--n-layers 2 --n-heads 2 --d-model 16 --context 16 --batch-size 2 --vocab-size 300 --threads 1".split()
STEP = (
    "--dropout 0.1 --accumulate 3 --warmup 2 --schedule constant --sample-tokens 5 --eval-batches 3 "
    "--precision fp32 --optimizer adamw"
).split()
OFTEN = "--eval-every 2 --sample-every 3 --save-every 2".split()


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    draw = random.Random(0)
    words = "cough fever chest pain denies allergies 患者 咳嗽 发热 three days".split()
    lines = [json.dumps({"note": " ".join(draw.choices(words, k=30))}, ensure_ascii=False) for _ in range(40)]
    path = tmp_path_factory.mktemp("data") / "notes.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def train(*words, count: int, where: Path):
    return launch(run_train, *words, count=count, where=where)


@pytest.fixture(scope="module")
def whole(notes, tmp_path_factory) -> Path:
    """Six steps of one process."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train("--data", notes, "--field", "note", "--out", run, *TINY, *STEP, *OFTEN, "--steps", 6, count=1,
          where=run.parent / "text")  # fmt: skip
    return run


def difference(left: Path, right: Path) -> float:
    ours, theirs = load_file(left), load_file(right)
    assert list(ours) == list(theirs)
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_a_run_goes_from_two_processes_to_one_to_two_shards(whole, notes, tmp_path):
    """Against one process that never stopped: float32, so the order of three addends shows in the last digits."""
    run = tmp_path / "run"
    text = train("--data", notes, "--field", "note", "--out", run, *TINY, *STEP, *OFTEN, "--steps", 2, count=2,
                 where=tmp_path / "two")  # fmt: skip
    assert text.count("first loss") == 1, "one process talks"
    train("--out", run, "--resume", "--steps", 4, count=1, where=tmp_path / "one")
    train("--out", run, "--resume", "--steps", 6, "--parallel", "fsdp", count=2, where=tmp_path / "shards")
    ours, theirs = list_checkpoints(run)[-1], list_checkpoints(whole)[-1]
    assert ours.name == theirs.name == "step-00000006"
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert difference(ours / file, theirs / file) < 1e-6
    assert difference(run / "model.safetensors", whole / "model.safetensors") < 1e-6
    for kind, number in (("train", "loss"), ("eval", "loss"), ("sample", "step"), ("train", "tokens")):
        ours, theirs = ([r[number] for r in read_metrics(path) if r["kind"] == kind] for path in (run, whole))
        if kind != "sample":
            assert ours == pytest.approx(theirs, rel=1e-6), kind
    assert (run / "report.html").is_file() and not list(run.rglob("*.tmp-*"))


def test_an_adapter_learned_in_shards_is_the_adapter_learned_alone(whole, notes, tmp_path):
    words = ["--data", notes, "--field", "note", "--init", whole, "--method", "lora", "--lr", 1e-2, *TINY, *STEP]
    for count, parallel in ((1, "ddp"), (2, "fsdp")):
        more = ["--steps", 3, "--parallel", parallel, "--eval-every", 2]
        train(*words, *more, "--out", tmp_path / parallel, count=count, where=tmp_path / f"text-{parallel}")
    for file in ("adapter_model.safetensors", "checkpoints/step-00000003/optimizer.safetensors"):
        assert difference(tmp_path / "ddp" / file, tmp_path / "fsdp" / file) < 1e-6


def test_what_cannot_work_is_said_once_by_the_main_process_or_in_one_sentence(notes, tmp_path):
    with pytest.raises(Error, match=r"--accumulate 4 or more \(with --batch-size 2 "):
        rank_of(0, 4).check(8, 1)
    rank_of(0, 4).check(8, 4)
    with pytest.raises(Error, match="give ddp or fsdp"):
        RunConfig(parallel="pipeline")
    words = ["--data", tmp_path / "nothing.jsonl", "--accumulate", 2, "--out", tmp_path / "run"]
    codes, text = launch_any(run_train, *words, count=2, where=tmp_path / "text", seconds=60)
    assert codes == [2, 2] and len(text.strip().splitlines()) == 1 and "nothing.jsonl" in text


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def children(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


def test_kill_9_of_one_rank_ends_the_run_in_one_sentence_with_a_checkpoint(notes, tmp_path):
    """The only test with torchrun itself, which must not leave the other process waiting."""
    run = tmp_path / "run"
    words = ["--data", notes, "--field", "note", "--out", run, *TINY, *STEP, "--steps", 1_000_000, "--save-every", 3]
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", ROOT / "train.py",
         *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        wait_for(lambda: list_checkpoints(run) or process.poll() is not None)
        os.kill(random.choice(children(process)), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        process.terminate()
    said = re.findall(r"train\.py: (process \d of 2 stops, .*)", errors)
    assert process.returncode and len(said) == 1, errors[-3000:]
    checkpoint = list_checkpoints(run)[-1]
    assert re.search(r"another one has ended .*: step-\d{8} is whole, go on with: torchrun --nproc-per-node 2", said[0])
    assert f"--resume --out {run}" in said[0]
    step = json.loads((checkpoint / "state.json").read_text())["step"]
    train("--out", run, "--resume", "--steps", step + 1, count=1, where=tmp_path / "text")
    assert [record["step"] for record in read_metrics(run) if record["kind"] == "train"] == list(range(1, step + 2))
    assert all(math.isfinite(record["loss"]) for record in read_metrics(run) if record["kind"] == "train")
