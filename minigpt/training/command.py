"""The options of train.py: all records, read together, and checked against each other before anything is written."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from minigpt.cli import parse
from minigpt.corpus.records import RecordConfig
from minigpt.errors import Error
from minigpt.training.goal import TALKS, TASKS, GoalConfig
from minigpt.training.options import (
    BatchConfig,
    ComputeConfig,
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    RunConfig,
    ShapeConfig,
)
from minigpt.training.schedule import ScheduleConfig
from minigpt.tuning.options import VIRTUAL, WHOLE, BottleneckConfig, MethodConfig, PartConfig, VirtualConfig, check_own

# Options of records and the tasks they belong to; the others are those of all data.
OF_RECORDS = {
    **dict.fromkeys(("instruction", "input", "output", "template"), ("instruct",)),
    "messages": ("chat",),
    **dict.fromkeys(("mask", "pack", "held_out", "held_out_by"), TALKS),
}


class Options(NamedTuple):
    """All records, in the order of --help."""

    data: DataConfig
    goal: GoalConfig
    records: RecordConfig
    shape: ShapeConfig
    method: MethodConfig
    parts: PartConfig
    bottleneck: BottleneckConfig
    virtual: VirtualConfig
    beside: object  # of methods that come from elsewhere; it knows which of its options are whose: `check(method)`
    batching: BatchConfig
    loop: LoopConfig
    schedule: ScheduleConfig
    optimizing: OptimizerConfig
    computing: ComputeConfig
    run: RunConfig

    @property
    def tuning(self) -> tuple[PartConfig, BottleneckConfig, VirtualConfig]:
        return self.parts, self.bottleneck, self.virtual


def read(words: list[str], beside: type, epilog: str) -> Options:
    """The options; with --resume those of the run, changed by what is given now."""
    kinds = [beside if kind is object else kind for kind in Options.__annotations__.values()]

    def once(words: list[str]) -> Options:
        return Options(*parse(*kinds, prog="train.py", description="Text in, model out.", epilog=epilog, args=words))

    options = once(words)
    run = options.run
    if not run.resume:
        check(options)
        run.check_free()
        return options
    saved = run.out / "train.yaml"
    if not saved.is_file():
        raise Error(f"{saved}: not found: {run.out} is not a run that can be resumed")
    options = once(["--config", str(saved), *words])
    check(options)
    if options.batching.minutes or options.batching.epochs:
        raise Error("--resume goes on to the --steps of the run: give --steps to go further, not --minutes or --epochs")
    return options


def check(options: Options):
    """`Error` for what does not go together."""
    method, task, run = options.method.method, options.goal.task, options.run
    check_own(method, options.tuning)
    check_own(task, (options.records,), OF_RECORDS, "--task")
    options.beside.check(method)
    if method != "full" and options.shape.init is None:
        raise Error(f"--method {method} tunes a model that is there: name it with --init")
    if options.shape.extend_context is not None and method not in WHOLE:
        raise Error(f"--extend-context changes the model, which --method {method} leaves as it is: extend it first")
    if method == "head" and task not in TASKS:
        raise Error("--method head teaches the head of a task alone: name it, such as --task classify")
    if options.batching.document_mask and task != "lm":
        raise Error(f"--document-mask is for packed text, not for --task {task}: leave it out")
    if (options.batching.document_mask or options.records.pack) and method in ("prompt", "ptuning"):
        raise Error(f"--method {method} begins each row, and packed texts share one: leave out --document-mask, --pack")
    if run.parallel == "fsdp" and (task in TASKS or method not in ("full", "lora")):
        raise Error(f"--parallel fsdp cannot do --method {method} with --task {task}: give --parallel ddp")
    if task in TASKS and (options.data.data is None) != (options.data.field is None):
        raise Error(f"--task {task} needs --data and --field, the name of the text's field, or neither: our own notes")
    if task in TALKS and (options.data.data is None or options.data.field is not None):
        raise Error(f"--task {task} reads the records of --data, by fields of their own, not --field: see --help")
    if method in VIRTUAL and options.virtual.length is not None and options.virtual.length < 1:
        raise Error(f"--length is {options.virtual.length}: give at least 1")


def kept(options: Options) -> Options:
    """What train.yaml keeps: `resume` and `overwrite` are said anew each time."""
    return options._replace(run=replace(options.run, resume=False, overwrite=False))


def watching(out: Path) -> str:
    """How to see a run that has begun, in a browser."""
    return f"watch       python sample.py {shlex.quote(str(out.parent))} --serve"


def goodbye(options: Options, stopped_by: int) -> int:
    """What there is now and what to do with it; the exit status."""
    out, method = options.run.out, options.method.method
    kept = "the model" if method in WHOLE else f"what {method} learned beside {options.shape.init}"
    print(f"\n{out} holds {kept}, metrics.jsonl and report.html (open it in a browser)")
    if stopped_by:
        print(f"go on with: python train.py --resume --out {out}")
        return 128 + stopped_by
    print(f"let it {'write' if options.goal.task == 'lm' else 'answer'}: python sample.py {out}")
    return 0
