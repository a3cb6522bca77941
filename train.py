"""Text in, model out. See `python train.py --help`, or begin with

    python train.py                                                    our own notes, four million parameters
    python train.py --data notes.jsonl --field note --out runs/mine    yours
    python train.py --resume --out runs/mine                           after a stop

The loop itself is minigpt/training/loop.py; what each --method does is in minigpt/tuning/ and lora/.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import lora
from minigpt.cli import dump, run
from minigpt.errors import Error
from minigpt.files import alone
from minigpt.training import command
from minigpt.training.command import Options
from minigpt.tuning.method import Method
from minigpt.tuning.options import check_own
from minigpt.tuning.report import Report

EXAMPLES = """
examples:
  python train.py                                            the embedded notes, some five minutes on a laptop
  python train.py --minutes 5 --out runs/short               as long as you have
  python train.py --data notes.jsonl --field note            your own notes
  python train.py --data folder/ --shape gpt2 --dropout 0.1  a folder of .txt, as GPT-2
  python train.py --init gpt2 --data notes.jsonl --field note --lr 1e-4    go on from a downloaded GPT-2
  python train.py --init runs/notes --extend-context 2x --steps 100 --lr 1e-4 --out runs/long    twice the context
  python train.py --init runs/notes --method lora --data letters/ --out runs/letters    an adapter beside it
  python train.py --init runs/notes --method prompt --data letters/ --out runs/prompt   twenty learned tokens
  python train.py --init runs/notes --task classify --data n.jsonl --field note --label type --out runs/type
  python train.py --resume --out runs/notes                  after Ctrl-C or a power cut: bit for bit as if nothing was
"""
LORA = ("lora", "qlora")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Methods lora and qlora: low-rank updates beside frozen matrices; qlora: these in four bits."""

    lora_r: int = 8  # rank of the adapters
    lora_alpha: float = 16.0  # their strength: the update is alpha / r times B A
    lora_targets: tuple[str, ...] = ()  # layers that get one, or all-linear; by default q_proj, v_proj; qlora: all
    lora_dropout: float = 0.0  # of their input
    rslora: bool = False  # alpha / sqrt(r) instead of alpha / r
    dora: bool = False  # learn direction and length of each row apart

    def __post_init__(self):
        self.config("lora")

    def check(self, method: str):
        """`Error` if one of these was given to another method."""
        check_own(method, (self,), dict.fromkeys(vars(self), LORA))

    def config(self, method: str) -> lora.Config:
        """As the library wants it."""
        usual = ("q_proj", "v_proj") if method == "lora" else (lora.ALL_LINEAR,)
        targets = self.lora_targets or usual
        try:
            return lora.Config(
                r=self.lora_r, alpha=self.lora_alpha, dropout=self.lora_dropout, rslora=self.rslora, dora=self.dora,
                targets=lora.ALL_LINEAR if targets == (lora.ALL_LINEAR,) else targets,
            )  # fmt: skip
        except lora.Error as problem:
            raise Error(str(problem)) from None


class Lora(Method):
    """Adapters beside the frozen weights, which qlora has in four bits; kept in PEFT's format."""

    def __init__(self, options: Options):
        self.name = options.method.method
        self.config = options.beside.config(self.name)

    def attach(self, model) -> Report:
        base = sum(weight.numel() for weight in model.parameters())  # in four bits they are no parameters
        if self.name == "qlora":
            print(lora.quantize(model), flush=True)
        found = lora.attach(model, self.config)
        lora.collect(model)  # what no file can hold is told now, not after the last step
        return Report(found.parameters, found.stored, base)

    def save(self, model, directory: Path, base: str):
        lora.save(model, directory, base=base)

    def load(self, model, directory: Path):
        lora.refill(model, directory)


def main() -> int:
    options = command.read(sys.argv[1:], LoraConfig, EXAMPLES)
    from minigpt.training.launch import join

    with join(options.run.parallel, options.run.device, options.run.out) as ranks:
        return train(options, ranks)


def train(options: Options, ranks) -> int:
    """The run that the options describe, in as many processes as `ranks` has."""
    from minigpt.training import compose
    from minigpt.training.building import build
    from minigpt.training.estimate import check_memory

    options, run = build(options, ranks, dict.fromkeys(LORA, Lora))
    subject, compute, out, steps = run.subject, run.compute, options.run.out, options.loop.steps
    job = compose.describe(options, run.context, compute)
    print(subject.announce(compute.model, job, steps, trained=bool(options.shape.init)), flush=True)
    check_memory(compute.model, job)
    print(f"method      {options.method.method}: {run.report}\n{compute.describe()}", flush=True)
    with alone(out) if ranks.main else nullcontext():
        stopped = learn(options, run, ranks, job)
    return command.goodbye(options, stopped)


def learn(options: Options, run, ranks, job) -> int:
    """The steps, and what there is to see of them afterwards; the number of the signal that stopped them, or 0."""
    from minigpt.training import compose, memorising
    from minigpt.training.building import hooks_of
    from minigpt.training.loop import fit

    subject, compute, out = run.subject, run.compute, options.run.out
    if ranks.main:
        compose.begin(options.run, subject.tokenizer, dump(*command.kept(options)))
        if sys.stdout.isatty():  # somebody is there who could look
            print(command.watching(out), flush=True)
    hooks = hooks_of(options, run, ranks)
    log = ranks.log(out, run.progress.step, options.loop.steps, options.run.tensorboard)
    try:
        if not run.progress.step:
            log.record("method", 0, method=options.method.method, **run.report.record())
        state = run.optimizer, run.batches, options.loop, hooks, log, run.progress
        progress, stopped = fit(compute.module, *state, options.optimizing.clip, compute)
        ranks.load(run.kept, compute.module, out)
        found = compose.finish(options, run, hooks, progress, log)
    finally:
        log.close()
    if ranks.main:
        tables = {} if stopped else memorising.after_training(options, run)
        compose.report(options, replace(run, progress=progress), found, job, tables)
    return stopped


if __name__ == "__main__":
    run(main, "train.py", lora.Error)
