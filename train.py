"""Text in, model out. See `python train.py --help`, or begin with

    python train.py                                                    our own notes, four million parameters
    python train.py --data notes.jsonl --field note --out runs/mine    yours
    python train.py --resume --out runs/mine                           after a stop

The loop itself is minigpt/training/loop.py.
"""

import sys
from dataclasses import asdict, replace
from functools import partial

from minigpt.cli import dump, parse, run
from minigpt.errors import Error
from minigpt.training.options import BatchConfig, DataConfig, LoopConfig, OptimizerConfig, RunConfig, ShapeConfig
from minigpt.training.schedule import ScheduleConfig

RECORDS = (DataConfig, ShapeConfig, BatchConfig, LoopConfig, ScheduleConfig, OptimizerConfig, RunConfig)
EXAMPLES = """
examples:
  python train.py                                            the embedded notes, some five minutes on a laptop
  python train.py --minutes 5 --out runs/short               as long as you have
  python train.py --data notes.jsonl --field note            your own notes
  python train.py --data folder/ --shape gpt2 --dropout 0.1  a folder of .txt, as GPT-2
  python train.py --init gpt2 --data notes.jsonl --field note --lr 1e-4    go on from a downloaded GPT-2
  python train.py --resume --out runs/notes                  after Ctrl-C or a power cut: bit for bit as if nothing was
"""


def main() -> int:
    options = read_options(sys.argv[1:])
    data, shape, batching, loop, schedule, adamw, out = options
    import torch

    from minigpt import hub
    from minigpt.training import compose
    from minigpt.training.checkpoint import Progress, load_checkpoint, save_checkpoint
    from minigpt.training.estimate import announce
    from minigpt.training.log import Log
    from minigpt.training.loop import Hooks, fit
    from minigpt.training.optimizer import make_optimizer
    from minigpt.training.schedule import learning_rate

    if out.threads:
        torch.set_num_threads(out.threads)
    shape = compose.find_init(shape)
    tokens, tokenizer = compose.open_data(data, shape, out)
    model = compose.make_model(shape, tokens, loop.seed, out.device)
    context = min(shape.context, model.config.context)
    batches, validation = compose.make_batches(tokens, context, batching, loop.seed)
    optimizer = make_optimizer(model, adamw)
    loop = replace(loop, steps=compose.count_steps(model, batches, batching, loop, adamw))
    options = (data, shape, replace(batching, epochs=None, minutes=None), loop, schedule, adamw, out)
    progress = load_checkpoint(out.out, model, optimizer) if out.resume else Progress()
    micro = batching.batch_size * context
    print(announce(model, micro * loop.accumulate, micro, loop.steps, tokens.train), flush=True)

    compose.begin(out, tokenizer, dump(*replace_run(options)))
    ids = {"bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot}
    hooks = Hooks(
        learning_rate=lambda step: learning_rate(step, loop.steps, schedule),
        evaluate=compose.evaluator(model, validation, tokenizer, out.eval_batches),
        sample=compose.sampler(model, tokenizer, out, loop.seed),
        improved=lambda: hub.save(model, out.out, **ids),
        save=lambda progress: save_checkpoint(out.out, model, optimizer, progress, out.keep, **ids),
    )
    log = Log(out.out, progress.step, loop.steps, out.tensorboard)
    try:
        progress, stopped_by = fit(model, optimizer, batches, loop, hooks, log, progress, adamw.clip)
        compose.finish(out, model, hooks.evaluate, hooks.sample, progress, log)
    finally:
        log.close()
    settings = {name: value for record in options for name, value in asdict(record).items()}
    compose.report(out.out, model, micro, tokens, settings, progress)
    print(f"\n{out.out} holds the model, metrics.jsonl and report.html (open it in a browser)")
    if stopped_by:
        print(f"go on with: python train.py --resume --out {out.out}")
        return 128 + stopped_by
    print(f"let it write: python sample.py {out.out}")
    return 0


def read_options(words: list[str]) -> list:
    """The options; with --resume those of the run, changed by what is given now."""
    read = partial(parse, *RECORDS, prog="train.py", description="Text in, model out.", epilog=EXAMPLES)
    options = read(args=words)
    out: RunConfig = options[-1]
    if not out.resume:
        out.check_free()
        return options
    saved = out.out / "train.yaml"
    if not saved.is_file():
        raise Error(f"{saved}: not found: {out.out} is not a run that can be resumed")
    options = read(args=["--config", str(saved), *words])
    if options[2].minutes or options[2].epochs:
        raise Error("--resume goes on to the --steps of the run: give --steps to go further, not --minutes or --epochs")
    return options


def replace_run(options) -> list:
    """What train.yaml keeps: `resume` and `overwrite` are said anew each time."""
    return [*options[:-1], replace(options[-1], resume=False, overwrite=False)]


if __name__ == "__main__":
    run(main, "train.py")
