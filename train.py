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

import lora
from minigpt.cli import dump, parse, run
from minigpt.errors import Error
from minigpt.training.options import BatchConfig, DataConfig, LoopConfig, OptimizerConfig, RunConfig, ShapeConfig
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


RECORDS = (DataConfig, ShapeConfig, Method, BatchConfig, LoopConfig, ScheduleConfig, OptimizerConfig, RunConfig)
EXAMPLES = """
examples:
  python train.py                                            the embedded notes, some five minutes on a laptop
  python train.py --minutes 5 --out runs/short               as long as you have
  python train.py --data notes.jsonl --field note            your own notes
  python train.py --data folder/ --shape gpt2 --dropout 0.1  a folder of .txt, as GPT-2
  python train.py --init gpt2 --data notes.jsonl --field note --lr 1e-4    go on from a downloaded GPT-2
  python train.py --init runs/notes --method lora --data letters/ --lr 1e-3 --out runs/letters    an adapter beside it
  python train.py --resume --out runs/notes                  after Ctrl-C or a power cut: bit for bit as if nothing was
"""


def main() -> int:
    options = read_options(sys.argv[1:])
    from minigpt.training.launch import join

    out = options[-1]
    with join(out.parallel, out.device, out.out) as ranks:
        return train(options, ranks)


def train(options: list, ranks) -> int:
    """The run that the options describe, in as many processes as `ranks` has."""
    data, shape, method, batching, loop, schedule, adamw, out = options
    import torch

    from minigpt.training import compose
    from minigpt.training.checkpoint import Progress, load_checkpoint, save_checkpoint
    from minigpt.training.estimate import announce
    from minigpt.training.loop import Hooks, fit
    from minigpt.training.optimizer import make_optimizer
    from minigpt.training.schedule import learning_rate
    from minigpt.training.weights import WholeModel

    if out.threads:
        torch.set_num_threads(out.threads)
    shape = compose.find_init(shape)
    ranks.check(batching.batch_size, loop.accumulate)
    tokens, tokenizer = ranks.first(partial(compose.open_data, data, shape, out))
    model = compose.make_model(shape, tokens, loop.seed, out.device)
    ids = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    weights = WholeModel(model, **ids) if method.method == "full" else Adapter(model, shape.init, method, loop.seed)
    context = min(shape.context, model.config.context)
    batches, validation = compose.make_batches(tokens, context, batching, loop.seed)
    loop = replace(
        loop, steps=ranks.agree(compose.count_steps(model, batches, batching, loop, adamw, ranks.count))
    )
    ranks.prepare(model)
    optimizer = make_optimizer(model, adamw)
    ranks.check_optimizer(optimizer)
    options = (data, shape, method, replace(batching, epochs=None, minutes=None), loop, schedule, adamw, out)
    progress = load_checkpoint(out.out, weights, model, optimizer, ranks) if out.resume else Progress()
    micro = batching.batch_size * context
    print(announce(model, micro * loop.accumulate, micro, loop.steps, tokens.train, bool(shape.init)), flush=True)

    if ranks.main:
        compose.begin(out, tokenizer, dump(*replace_run(options)))
    hooks = Hooks(
        learning_rate=lambda step: learning_rate(step, loop.steps, schedule),
        evaluate=compose.evaluator(model, validation, tokenizer, out.eval_batches, ranks),
        sample=ranks.once(compose.sampler(model, tokenizer, out, loop.seed)),
        improved=lambda: ranks.save(weights, model, out.out),
        save=lambda progress: save_checkpoint(out.out, weights, model, optimizer, progress, out.keep, ranks),
    )
    log = ranks.log(out.out, progress.step, loop.steps, out.tensorboard)
    try:
        progress, stopped_by = fit(model, optimizer, batches, loop, hooks, log, progress, adamw.clip, ranks)
        ranks.load(weights, model, out.out)
        compose.finish(out, hooks.evaluate, hooks.sample, progress, log)
    finally:
        log.close()
    settings = {name: value for record in options for name, value in asdict(record).items()}
    if ranks.main:
        compose.report(out.out, model, micro, tokens, settings, progress)
    kept = "model" if method.method == "full" else "adapter"
    print(f"\n{out.out} holds the {kept}, metrics.jsonl and report.html (open it in a browser)")
    if stopped_by:
        print(f"go on with: python train.py --resume --out {out.out}")
        return 128 + stopped_by
    print(f"let it write: python sample.py {out.out}")
    return 0


def read_options(words: list[str]) -> list:
    """The options; with --resume those of the run, changed by what is given now."""
    read = partial(parse, *RECORDS, prog="train.py", description="Text in, model out.", epilog=EXAMPLES)
    options = read(args=words)
    shape, method, out = options[1], options[2], options[-1]
    if method.method == "lora" and shape.init is None and not out.resume:
        raise Error("--method lora tunes a model that is there: name it with --init")
    if not out.resume:
        out.check_free()
        return options
    saved = out.out / "train.yaml"
    if not saved.is_file():
        raise Error(f"{saved}: not found: {out.out} is not a run that can be resumed")
    options = read(args=["--config", str(saved), *words])
    batching = next(record for record in options if isinstance(record, BatchConfig))
    if batching.minutes or batching.epochs:
        raise Error("--resume goes on to the --steps of the run: give --steps to go further, not --minutes or --epochs")
    return options


def replace_run(options) -> list:
    """What train.yaml keeps: `resume` and `overwrite` are said anew each time."""
    return [*options[:-1], replace(options[-1], resume=False, overwrite=False)]


if __name__ == "__main__":
    run(main, "train.py", lora.Error)
