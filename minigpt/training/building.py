"""From the options of train.py to the objects they describe, ready to fit.

What can be wrong with a model or a method is found before the data is touched, and so before anything is written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from minigpt.tokenizer import Tokenizer
from minigpt.training import compose
from minigpt.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from minigpt.training.compute import Compute
from minigpt.training.goal import TALKS, TASKS
from minigpt.training.language import Language
from minigpt.training.loop import Hooks
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import SIZES
from minigpt.training.schedule import learning_rate
from minigpt.training.talks import Talks
from minigpt.training.tasks import Tasks
from minigpt.training.weights import Kept, State
from minigpt.tuning import methods
from minigpt.tuning.method import Method
from minigpt.tuning.report import Report


@dataclass(frozen=True)
class Pieces:
    """What a run is made of."""

    subject: Language | Talks | Tasks  # what is learned from, and how that is judged
    method: Method
    report: Report  # what learns, and what will be stored
    kept: Kept  # what is kept of it for use
    state: State  # and for going on
    compute: Compute
    optimizer: torch.optim.Optimizer
    batches: object  # corpus.batches.Batches, or such
    validation: object
    context: int  # most tokens of a text
    progress: Progress


def build(options, ranks, others: dict[str, Callable]) -> tuple[object, Pieces]:
    """The options with what could only be known now, and the pieces.

    `others` makes, by name and from the options, the methods that minigpt does not know.
    """
    if options.run.threads:
        torch.set_num_threads(options.run.threads)
    shape = compose.find_init(options.shape)
    new, task = shape.init is None, options.goal.task
    options = options._replace(
        shape=shape,
        optimizing=options.optimizing.decided(new),
        schedule=options.schedule.decided(options.method.rate(new, answers=task in TASKS)),
    )
    ranks.check(options.batching.batch_size, options.loop.accumulate)
    method, model = make_method(options, others), None
    if shape.init is not None:
        model = compose.open_model(shape, options.run.device)
        report = attach(method, model, options.loop.seed)
    subject = ranks.first(partial((Tasks if task in TASKS else Talks if task in TALKS else Language).open, options))
    if model is None:
        options = options._replace(shape=sized(options, subject.vocab_size, ranks))
        model = compose.make_model(options.shape, subject, options.loop.seed, options.run.device)
        report = attach(method, model, options.loop.seed)
    compose.check_vocabulary(model, subject, shape)
    return assemble(options, ranks, subject, method, model, report)


def make_method(options, others: dict[str, Callable]) -> Method:
    if options.method.method in others:
        return others[options.method.method](options)

    def encode(text: str) -> list[int]:
        return Tokenizer.load(options.shape.init).encode(text)

    return methods.make(options.method.method, options.tuning, encode, options.loop.seed)


def attach(method: Method, model, seed: int) -> Report:
    torch.manual_seed(seed)
    return method.attach(model)


def sized(options, vocab_size: int, ranks):
    """--size auto, decided."""
    shape = options.shape
    if shape.size != "auto":
        return shape
    size = compose.choose_size(shape, options.batching.minutes, vocab_size, options.run.device)
    return replace(shape, size=tuple(SIZES)[ranks.agree(tuple(SIZES).index(size))])


def assemble(options, ranks, subject, method, model, report: Report) -> tuple[object, Pieces]:
    context = min(compose.row_length(options.shape, model), model.config.context - method.taken(model))
    batches, validation = (
        method.batches(model, each) for each in subject.batches(context, options, model.config.vocab_size)
    )
    objective = subject.objective(model, options)
    module = objective.module
    ids = {"bos_token_id": subject.tokenizer.eot, "eos_token_id": subject.tokenizer.eot}
    kept = Kept(method, model, None if module is model else module, base=options.shape.init or "", **ids)
    steps = ranks.agree(compose.count_steps(objective, batches, options, ranks.count))
    compute = Compute(model, options.computing, options.run.out, ranks, objective)
    compute.measure(context)
    options = options._replace(
        batching=replace(options.batching, epochs=None, minutes=None),
        loop=replace(options.loop, steps=steps),
        computing=replace(options.computing, precision=compute.precision.name),
    )
    ranks.prepare(module)
    head_lr = options.goal.head_lr or options.method.head_rate(options.schedule.lr)
    optimizer = make_optimizer(module, options.optimizing, objective.head, head_lr / options.schedule.lr)
    state, run = State(kept), options.run
    before_step = partial(method.before_step, model)
    progress = load_checkpoint(run.out, state, module, optimizer, ranks, before_step) if run.resume else Progress()
    report = total(report, kept)
    return options, Pieces(
        subject, method, report, kept, state, compute, optimizer, batches, validation, context, progress
    )


def total(report: Report, kept: Kept) -> Report:
    """With the words and head of a task; a run that keeps a whole model stores all of it."""
    learns = sum(weight.numel() for weight in kept.module.parameters() if weight.requires_grad)
    stored = sum(weight.nbytes for weight in kept.model.parameters()) if kept.whole else report.stored
    own = 0 if kept.task is None else sum(t.nbytes for t in (kept.task.words.weight, *kept.task.head.parameters()))
    return Report(learns, stored + own, report.base)


def hooks_of(options, run: Pieces, ranks) -> Hooks:
    """What the loop does beside learning."""
    subject, compute, config = run.subject, run.compute, options.run
    state = config.out, run.state, compute.module, run.optimizer
    return Hooks(
        learning_rate=lambda step: learning_rate(step, options.loop.steps, options.schedule),
        evaluate=lambda: subject.judge(compute, run.validation, config.eval_batches),
        sample=ranks.once(compose.sampler(subject, run.method, options, compute)),
        improved=lambda: ranks.save(run.kept, compute.module, config.out),
        save=lambda progress: save_checkpoint(*state, progress, config.keep, ranks),
        score=subject.score,
        say=subject.say,
        before_step=lambda step: run.method.before_step(compute.model, step),
    )
