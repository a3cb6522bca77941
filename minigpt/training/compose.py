"""From options to objects: the pieces train.py hands to the loop."""

import copy
import math
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from minigpt import hub, room
from minigpt.context.extend import extend, parse_length
from minigpt.corpus.batches import Batches
from minigpt.corpus.tokens import Tokens, load_tokens
from minigpt.errors import Error
from minigpt.files import write_atomic
from minigpt.generation import generate
from minigpt.memory import Job
from minigpt.model import GPT, count_parameters
from minigpt.privacy import identifiers
from minigpt.tokenizer import Tokenizer
from minigpt.training.checkpoint import Progress, remove_leftovers
from minigpt.training.compute import Compute
from minigpt.training.estimate import memory_bytes, parameter_table
from minigpt.training.goal import TASKS
from minigpt.training.log import Log, peak_memory, read_metrics
from minigpt.training.loop import train_step
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import (
    SIZES,
    BatchConfig,
    DataConfig,
    RunConfig,
    ShapeConfig,
)
from minigpt.training.report import write_report
from minigpt.training.streams import stream_seed
from minigpt.training.throughput import flops_per_token, measure_peak, table

TOKENS_A_PARAMETER = 0.5  # that a model should read at least, for --size auto
UTILISATION = 0.4  # of the peak, in a step of the default shape and optimizer


def open_data(data: DataConfig, shape: ShapeConfig, run: RunConfig) -> tuple[Tokens, Tokenizer]:
    """The tokens to learn from: prepared ones, or made now into RUN/tokens (and found there the next time)."""
    from minigpt.corpus.preparation import prepare

    source, field = data.source()
    if (source / "manifest.json").is_file():
        tokens = load_tokens(source)
    else:
        # A model that is gone on from brings its tokenizer: its embeddings mean nothing in another.
        tokenizer = data.tokenizer or shape.init
        options = (data.vocab_size, data.validation, data.on_bad, data.where)
        manifest = prepare(source, run.out / "tokens", field, tokenizer, *options, progress=True)
        if found := identifiers.warning(manifest["identifiers"]):
            print(f"warning: {source} {found}", file=sys.stderr)
        tokens = load_tokens(run.out / "tokens")
    return tokens, tokens.tokenizer()


def find_tokenizer(options, texts: Iterable[str]) -> Tokenizer:
    """That of a run that goes on, the one of --tokenizer, or of --init; else one learned from these texts."""
    known = options.run.out if options.run.resume else options.data.tokenizer or options.shape.init
    if known is None:
        return Tokenizer.train(texts, options.data.vocab_size)
    return Tokenizer.load(known) if Path(known).is_dir() else Tokenizer.named(str(known))


def find_init(shape: ShapeConfig) -> ShapeConfig:
    """--init as a directory: the one named, or, with --download, the model of that name fetched from the hub."""
    return shape if shape.init is None else replace(shape, init=str(hub.find(shape.init, shape.download)))


def choose_size(shape: ShapeConfig, minutes: float | None, vocab_size: int, device: str) -> str:
    """--size auto: the largest that reads at least `TOKENS_A_PARAMETER` tokens a parameter in the time, or tiny.

    What is too large for its time has not begun to use its parameters; docs/training.md has the measurement.
    """
    if minutes is None or (shape.n_layers, shape.n_heads, shape.d_model) != (None, None, None):
        return "small"
    flops = 60 * minutes * UTILISATION * measure_peak(pick_device(device), torch.float32)
    for size in reversed(SIZES):
        with torch.device("meta"):
            model = GPT(shape.sized(size).model_config(vocab_size))
        n_parameters = sum(weight.numel() for weight in model.parameters())
        if flops / flops_per_token(model, model.config.context) >= TOKENS_A_PARAMETER * n_parameters:
            return size
    return "tiny"


def pick_device(device: str) -> torch.device:
    """--device auto is cuda where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def make_model(shape: ShapeConfig, tokens, seed: int, device: str) -> GPT:
    """A new model, its weights drawn from `seed`; or the one of --init, with this run's dropout."""
    if shape.init is not None:
        return check_vocabulary(open_model(shape, device), tokens, shape)
    config = shape.model_config(tokens.vocab_size)
    room.check(4 * count_parameters(config), "a model of this shape", "give a smaller --size or --d-model", device)
    torch.manual_seed(stream_seed(seed, "init"))
    return GPT(config).to(pick_device(device))


def open_model(shape: ShapeConfig, device: str) -> GPT:
    """The model of --init, its context as long as --extend-context says."""
    model = GPT.from_pretrained(shape.init, device=pick_device(device), **shape.dropouts())
    if shape.extend_context is not None:
        model = extend(model, parse_length(shape.extend_context, model.config.context), shape.rope)
    return model


def check_vocabulary(model: GPT, tokens, shape: ShapeConfig) -> GPT:
    """`model`, if it knows every token of the data."""
    if model.config.vocab_size < tokens.vocab_size:
        raise Error(
            f"{shape.init} knows {model.config.vocab_size} tokens, the data uses {tokens.vocab_size}: "
            f"prepare it with the model's tokenizer, --tokenizer {shape.init}"
        )
    return model


def row_length(shape: ShapeConfig, model: GPT) -> int:
    """Tokens of a training row: --context, as far as the model reads; all it reads after --extend-context."""
    return model.config.context if shape.extend_context is not None else min(shape.context, model.config.context)


def make_batches(tokens: Tokens, context: int, batching: BatchConfig, seed: int) -> tuple[Batches, Batches]:
    """Training batches in random order and validation batches in file order, rows of `context` tokens."""
    common = {"eot": tokens.eot, "document_mask": batching.document_mask}
    training = Batches(tokens.train, context, batching.batch_size, stream_seed(seed, "data"), **common)
    return training, Batches(tokens.val, context, batching.batch_size, 0, shuffle=False, **common)


def count_steps(objective, batches, options, processes: int = 1) -> int:
    """The number of steps that --epochs or --minutes means; --minutes is timed on a copy that is thrown away."""
    batching, loop = options.batching, options.loop
    if batching.epochs is not None:
        return max(1, math.ceil(batching.epochs * len(batches) / loop.accumulate))
    if batching.minutes is None:
        return loop.steps
    trial, loop = copy.deepcopy(objective), replace(loop, accumulate=-(-loop.accumulate // processes))
    trial.module.train()
    optimizer = make_optimizer(trial.module, options.optimizing, trial.head)
    compute = Compute(trial.model, options.computing, objective=trial)
    seconds = []
    for step in range(6):
        began = time.perf_counter()
        train_step(trial.module, optimizer, batches, loop, step, 1e-4, options.optimizing.clip, compute)
        seconds.append(time.perf_counter() - began)
    typical = sorted(seconds[1:])[2]  # the first step also warms up
    return max(1, round(60 * batching.minutes / typical))


def begin(run: RunConfig, tokenizer: Tokenizer, settings: str):
    """Make the run's directory: the tokenizer and train.yaml, which --resume and --config read."""
    if run.overwrite and not run.resume:
        shutil.rmtree(run.out / "checkpoints", ignore_errors=True)
        (run.out / "metrics.jsonl").unlink(missing_ok=True)
    run.out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run.out)
    tokenizer.save(run.out)
    write_atomic(run.out / "train.yaml", settings)


def sampler(subject, method, options, compute: Compute):
    """A function from the step to a text the model writes; its randomness is its own. A task writes nothing."""
    run, model, tokenizer = options.run, compute.model, subject.tokenizer
    if options.goal.task in TASKS:
        return silent
    prompt = subject.prompt(run.prompt)
    room = model.config.context - method.taken(model) - len(prompt)
    if room < 1:
        raise Error(f"--prompt is {len(prompt)} tokens, the context {model.config.context}: shorten it")

    def write(step: int) -> str:
        draw = {"temperature": 0.8, "top_k": 50, "seed": stream_seed(options.loop.seed, "sample", step) % 2**32}
        virtual = method.virtual(model)
        with compute.sampling():
            (ids,) = generate(model, [virtual + prompt], min(run.sample_tokens, room), eos=tokenizer.eot, **draw)
        text = tokenizer.stream()  # which leaves out half a character at the end
        return subject.shown(run.prompt, prompt) + "".join(text.push(i) for i in ids if i != tokenizer.eot)

    return write


def silent(step: int) -> str:
    """No text."""
    return ""


def finish(options, run, hooks, progress: Progress, log: Log) -> dict:
    """Judge the model, whose weights are those that are kept, on all that is kept apart, and let it write."""
    found = run.subject.judge(run.compute, run.validation, None)
    log.record("final", progress.step, **found, peak_memory=peak_memory())
    if text := hooks.sample(progress.step):
        log.record("sample", progress.step, text=text)
        log.say(f"--- sample of the model that is kept\n{text}\n---")
    which = "the model that validated best" if options.loop.eval_every else "the last weights"
    log.say(f"kept: {which}; on all validation data {hooks.say(found)}")
    return found


def describe(options, context: int, compute: Compute) -> Job:
    """The options of train.py as the work whose memory is predicted."""
    optimizer, ranks = options.optimizing.optimizer, compute.ranks
    return Job(
        optimizer={"sgd": "momentum" if options.optimizing.momentum else "sgd"}.get(optimizer, optimizer),
        dtype="fp32" if compute.precision.name == "fp32" else "mixed",
        batch=options.batching.batch_size,
        length=context,
        accumulate=options.loop.accumulate,
        documents=options.batching.document_mask,
        checkpointing=options.computing.checkpointing,
        device=compute.device.type,
        ranks=ranks.count,
        parallel=options.run.parallel,
    )


def report(options, run, found: dict, job: Job, memorised: dict):
    """report.html of the run as it stands; `memorised` are further tables."""
    subject, progress, compute = run.subject, run.progress, run.compute
    out, model, own = options.run.out, compute.model, subject.report(compute.model, found)
    settings = {name: value for record in options for name, value in asdict(record).items()}
    memory = {name: f"{size / 2**20:,.1f} MiB" for name, size in memory_bytes(model, job).items()}
    memory["whole process, at its peak"] = f"{peak_memory() / 2**20:,.1f} MiB"
    tables = {
        "Parameters": parameter_table(model),
        "Memory of a training step": memory,
        **own["tables"],
        **memorised,
        "Training": {
            "steps": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds),
            "tokens a second": round(progress.tokens / max(progress.seconds, 1e-9)),
        },
        "Throughput": table(read_metrics(out), compute.flops, compute.peak),
        "Configuration": {name: str(value) for name, value in (settings | model.config.to_dict()).items()},
    }
    write_report(out, f"Training run {out.name}", own["lines"], tables, own.get("pictures", []))
