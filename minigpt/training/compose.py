"""From options to objects: the pieces train.py hands to the loop."""

import copy
import math
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from minigpt import hub
from minigpt.context.extend import extend, parse_length
from minigpt.corpus.batches import Batches
from minigpt.corpus.tokens import Tokens, load_tokens
from minigpt.errors import Error
from minigpt.files import write_atomic
from minigpt.generation import generate
from minigpt.memory import Job
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.training.checkpoint import Progress, remove_leftovers
from minigpt.training.compute import PLAIN, Compute
from minigpt.training.estimate import memory_bytes, parameter_table, unigram_entropy
from minigpt.training.evaluate import evaluate
from minigpt.training.log import Log, peak_memory, read_metrics
from minigpt.training.loop import train_step
from minigpt.training.optimizer import make_optimizer
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
from minigpt.training.report import loss_lines, write_report
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
        prepare(source, run.out / "tokens", field, tokenizer, *options, progress=True)
        tokens = load_tokens(run.out / "tokens")
    return tokens, tokens.tokenizer()


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


def make_model(shape: ShapeConfig, tokens: Tokens, seed: int, device: str) -> GPT:
    """A new model, its weights drawn from `seed`; or the one of --init, with this run's dropout."""
    device = pick_device(device)
    if shape.init is None:
        torch.manual_seed(stream_seed(seed, "init"))
        return GPT(shape.model_config(tokens.vocab_size)).to(device)
    model = GPT.from_pretrained(shape.init, device=device, **shape.dropouts())
    if shape.extend_context is not None:
        model = extend(model, parse_length(shape.extend_context, model.config.context), shape.rope)
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


def count_steps(
    model: GPT,
    batches: Batches,
    batching: BatchConfig,
    loop: LoopConfig,
    optimizing: OptimizerConfig,
    computing: ComputeConfig = PLAIN,
    processes: int = 1,
) -> int:
    """The number of steps that --epochs or --minutes means; --minutes is timed on a copy that is thrown away."""
    if batching.epochs is not None:
        return max(1, math.ceil(batching.epochs * len(batches) / loop.accumulate))
    if batching.minutes is None:
        return loop.steps
    trial, loop = copy.deepcopy(model).train(), replace(loop, accumulate=-(-loop.accumulate // processes))
    optimizer, compute = make_optimizer(trial, optimizing), Compute(trial, computing)
    seconds = []
    for step in range(6):
        began = time.perf_counter()
        train_step(trial, optimizer, batches, loop, step, 1e-4, optimizing.clip, compute)
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


def evaluator(model: GPT, validation: Batches, tokenizer: Tokenizer, most: int, compute: Compute):
    """A function that evaluates `model` on all batches, or on up to `most` of them, as a record for the log."""
    lengths = torch.from_numpy(tokenizer.token_lengths())

    def record(everything: bool = False) -> dict:
        with compute.evaluating():
            return asdict(evaluate(model, validation, lengths, None if everything else most, compute.ranks))

    return record


def sampler(model: GPT, tokenizer: Tokenizer, run: RunConfig, seed: int, compute: Compute):
    """A function from the step to a text the model writes; its randomness is its own."""
    prompt = [tokenizer.eot, *tokenizer.encode(run.prompt)]
    room = model.config.context - len(prompt)
    if room < 1:
        raise Error(f"--prompt is {len(prompt)} tokens, the context {model.config.context}: shorten it")

    def write(step: int) -> str:
        draw = {"temperature": 0.8, "top_k": 50, "seed": stream_seed(seed, "sample", step) % 2**32}
        with compute.sampling():
            (ids,) = generate(model, [prompt], min(run.sample_tokens, room), eos=tokenizer.eot, **draw)
        return run.prompt + tokenizer.decode(i for i in ids if i != tokenizer.eot)

    return write


def finish(run: RunConfig, judge, write, progress: Progress, log: Log):
    """Judge the model, whose weights are those that validated best, on the whole validation split, let it write."""
    found = judge(everything=True)
    log.record("final", progress.step, **found)
    text = write(progress.step)
    log.record("sample", progress.step, text=text)
    log.say(f"--- sample of the best model\n{text}\n---")
    log.say(
        f"kept: the model that validated best; on all validation text loss {found['loss']:.3f}, "
        f"perplexity {found['perplexity']:.1f}, {found['bits_per_byte']:.3f} bits per byte"
    )


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


def report(run: Path, model: GPT, job: Job, tokens: Tokens, settings: dict, progress: Progress, compute: Compute):
    """report.html of the run as it stands."""
    entropy = unigram_entropy(tokens.train, model.config.vocab_size)
    memory = {name: f"{size / 2**20:,.1f} MiB" for name, size in memory_bytes(model, job).items()}
    memory["whole process, at its peak"] = f"{peak_memory() / 2**20:,.1f} MiB"
    data = {
        f"{split} {name}": tokens.manifest[split][name]
        for split in ("train", "val")
        for name in ("documents", "tokens", "bytes")
    }
    tables = {
        "Parameters": parameter_table(model),
        "Memory of a training step": memory,
        "Data": data,
        "Training": {
            "steps": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds),
            "tokens a second": round(progress.tokens / max(progress.seconds, 1e-9)),
        },
        "Throughput": table(read_metrics(run), compute.flops, compute.peak),
        "Configuration": {name: str(value) for name, value in (settings | model.config.to_dict()).items()},
    }
    write_report(run, f"Training run {run.name}", loss_lines(model.config.vocab_size, entropy), tables)
