"""Text in, model out. See `python train.py --help`, or begin with

    python train.py                                                    our own notes, four million parameters
    python train.py --data notes.jsonl --field note --out runs/mine    yours
    python train.py --resume --out runs/mine                           after a stop

The loop itself is minigpt/training/loop.py; what LoRA does to the model is in lora/.
"""

import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lora
from minigpt.cli import dump, parse, run
from minigpt.errors import Error
from minigpt.training.options import (
    SIZES,
    BatchConfig,
    ComputeConfig,
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    RunConfig,
    ShapeConfig,
)
from minigpt.training.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Method:
    """Method: what learns."""

    method: str = "full"  # full: every weight; lora: adapters beside the frozen weights of --init
    lora_r: int = 8  # rank of the adapters
    lora_alpha: float = 16.0  # their strength: the update is alpha / r times B A
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")  # layers that get one, by name; or all-linear
    lora_dropout: float = 0.0  # of their input
    rslora: bool = False  # alpha / sqrt(r) instead of alpha / r
    dora: bool = False  # learn direction and length of each row apart

    def __post_init__(self):
        if self.method not in ("full", "lora"):
            raise Error(f"--method is {self.method!r}: give full or lora")
        self.config()

    def config(self) -> lora.Config:
        """As the library wants it."""
        targets = lora.ALL_LINEAR if self.lora_targets == (lora.ALL_LINEAR,) else self.lora_targets
        try:
            return lora.Config(
                r=self.lora_r, alpha=self.lora_alpha, targets=targets, dropout=self.lora_dropout,
                rslora=self.rslora, dora=self.dora,
            )  # fmt: skip
        except lora.Error as problem:
            raise Error(str(problem)) from None


class Adapter:
    """What a run of --method lora keeps on disk: the adapter, in PEFT's format; the base stays where it is."""

    def __init__(self, model, base: str, method: Method, seed: int):
        import torch

        self.model, self.base = model, base
        torch.manual_seed(seed)
        print(lora.attach(model, method.config()), flush=True)

    def save(self, directory: Path):
        lora.save(self.model, directory, base=self.base)

    def load(self, directory: Path):
        lora.refill(self.model, directory)


EXAMPLES = """
examples:
  python train.py                                            the embedded notes, some five minutes on a laptop
  python train.py --minutes 5 --out runs/short               as long as you have
  python train.py --data notes.jsonl --field note            your own notes
  python train.py --data folder/ --shape gpt2 --dropout 0.1  a folder of .txt, as GPT-2
  python train.py --init gpt2 --data notes.jsonl --field note --lr 1e-4    go on from a downloaded GPT-2
  python train.py --init runs/notes --extend-context 2x --steps 100 --lr 1e-4 --out runs/long    twice the context
  python train.py --init runs/notes --method lora --data letters/ --lr 1e-3 --out runs/letters    an adapter beside it
  python train.py --resume --out runs/notes                  after Ctrl-C or a power cut: bit for bit as if nothing was
"""


class Options(NamedTuple):
    """All records, in the order of --help."""

    data: DataConfig
    shape: ShapeConfig
    method: Method
    batching: BatchConfig
    loop: LoopConfig
    schedule: ScheduleConfig
    optimizing: OptimizerConfig
    computing: ComputeConfig
    run: RunConfig


RECORDS = tuple(Options.__annotations__.values())


class Pieces(NamedTuple):
    """What the options describe, ready to train."""

    model: object  # minigpt.GPT
    weights: object  # how the run keeps what is learned: weights.WholeModel, or Adapter above
    optimizer: object
    compute: object  # compute.Compute
    batches: object  # corpus.batches.Batches, as the next one
    validation: object
    tokens: object
    tokenizer: object
    progress: object  # checkpoint.Progress


def main() -> int:
    options = read_options(sys.argv[1:])
    from minigpt.training.launch import join

    with join(options.run.parallel, options.run.device, options.run.out) as ranks:
        return train(options, ranks)


def train(options: Options, ranks) -> int:
    """The run that the options describe, in as many processes as `ranks` has."""
    from minigpt.training import compose
    from minigpt.training.checkpoint import save_checkpoint
    from minigpt.training.estimate import announce
    from minigpt.training.loop import Hooks, fit
    from minigpt.training.schedule import learning_rate

    options, pieces = build(options, ranks)
    model, weights, optimizer, compute, batches, validation, tokens, tokenizer, progress = pieces
    out, loop, job = options.run.out, options.loop, compose.describe(options, batches.context, compute)
    print(announce(model, job, loop.steps, tokens.train, trained=bool(options.shape.init)))
    print(compute.describe(), flush=True)
    if ranks.main:
        compose.begin(options.run, tokenizer, dump(*kept_options(options)))
    hooks = Hooks(
        learning_rate=lambda step: learning_rate(step, loop.steps, options.schedule),
        evaluate=compose.evaluator(model, validation, tokenizer, options.run.eval_batches, compute),
        sample=ranks.once(compose.sampler(model, tokenizer, options.run, loop.seed, compute)),
        improved=lambda: ranks.save(weights, model, out),
        save=lambda progress: save_checkpoint(out, weights, model, optimizer, progress, options.run.keep, ranks),
    )
    log = ranks.log(out, progress.step, loop.steps, options.run.tensorboard)
    try:
        clip = options.optimizing.clip
        progress, stopped_by = fit(model, optimizer, batches, loop, hooks, log, progress, clip, compute)
        ranks.load(weights, model, out)
        compose.finish(out, hooks.evaluate, hooks.sample, progress, log)
    finally:
        log.close()
    if ranks.main:
        settings = {name: value for record in options for name, value in asdict(record).items()}
        compose.report(out, model, job, tokens, settings, progress, compute)
    return say_goodbye(options, stopped_by)


def build(options: Options, ranks) -> tuple[Options, Pieces]:
    """The options with what could only be known now, and the objects they describe."""
    import torch

    from minigpt.training import compose
    from minigpt.training.checkpoint import Progress, load_checkpoint
    from minigpt.training.compute import Compute
    from minigpt.training.optimizer import make_optimizer
    from minigpt.training.weights import WholeModel

    data, shape, method, batching, loop, _, optimizing, computing, run = options
    if run.threads:
        torch.set_num_threads(run.threads)
    shape, optimizing = compose.find_init(shape), optimizing.decided(new=shape.init is None)
    ranks.check(batching.batch_size, loop.accumulate)
    tokens, tokenizer = ranks.first(partial(compose.open_data, data, shape, run))
    if shape.init is None and shape.size == "auto":
        size = compose.choose_size(shape, batching.minutes, tokens.vocab_size, run.device)
        shape = replace(shape, size=tuple(SIZES)[ranks.agree(tuple(SIZES).index(size))])
    model = compose.make_model(shape, tokens, loop.seed, run.device)
    ids = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    weights = WholeModel(model, **ids) if method.method == "full" else Adapter(model, shape.init, method, loop.seed)
    context = compose.row_length(shape, model)
    batches, validation = compose.make_batches(tokens, context, batching, loop.seed)
    steps = compose.count_steps(model, batches, batching, loop, optimizing, computing, ranks.count)
    loop, batching = replace(loop, steps=ranks.agree(steps)), replace(batching, epochs=None, minutes=None)
    compute = Compute(model, computing, run.out, ranks)
    compute.measure(context)
    computing = replace(computing, precision=compute.precision.name)
    ranks.prepare(model)
    optimizer = make_optimizer(model, optimizing)
    progress = load_checkpoint(run.out, weights, model, optimizer, ranks) if run.resume else Progress()
    decided = options._replace(shape=shape, batching=batching, loop=loop, optimizing=optimizing, computing=computing)
    return decided, Pieces(model, weights, optimizer, compute, batches, validation, tokens, tokenizer, progress)


def say_goodbye(options: Options, stopped_by: int) -> int:
    """What there is now and what to do with it; the exit status."""
    out = options.run.out
    kept = "model" if options.method.method == "full" else "adapter"
    print(f"\n{out} holds the {kept}, metrics.jsonl and report.html (open it in a browser)")
    if stopped_by:
        print(f"go on with: python train.py --resume --out {out}")
        return 128 + stopped_by
    print(f"let it write: python sample.py {out}")
    return 0


def read_options(words: list[str]) -> Options:
    """The options; with --resume those of the run, changed by what is given now."""

    def read(words: list[str]) -> Options:
        return Options(
            *parse(*RECORDS, prog="train.py", description="Text in, model out.", epilog=EXAMPLES, args=words)
        )

    options = read(words)
    run = options.run
    if options.method.method == "lora" and options.shape.init is None and not run.resume:
        raise Error("--method lora tunes a model that is there: name it with --init")
    if not run.resume:
        run.check_free()
        return options
    saved = run.out / "train.yaml"
    if not saved.is_file():
        raise Error(f"{saved}: not found: {run.out} is not a run that can be resumed")
    options = read(["--config", str(saved), *words])
    if options.batching.minutes or options.batching.epochs:
        raise Error("--resume goes on to the --steps of the run: give --steps to go further, not --minutes or --epochs")
    return options


def kept_options(options: Options) -> Options:
    """What train.yaml keeps: `resume` and `overwrite` are said anew each time."""
    return options._replace(run=replace(options.run, resume=False, overwrite=False))


if __name__ == "__main__":
    run(main, "train.py", lora.Error)
