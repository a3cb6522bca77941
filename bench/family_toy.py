"""Measurements on the toy language (toy.py): in-context learning, forgetting, soft prompts, language-model adaptation.

Each takes the pre-trained base and gives a table: names of columns, and rows.
"""

import copy
import random
from pathlib import Path
from statistics import mean

import torch

import lora
from bench import toy
from minigpt import GPT
from minigpt.corpus import spans
from minigpt.loss import cross_entropy
from minigpt.tuning import freeze, prefix, prompt

PLUS, MINUS = toy.OPERATIONS.index("plus one"), toy.OPERATIONS.index("minus one")  # known, new
BASE_STEPS, ROWS = 1800, 40


def pretrain(tick=int) -> GPT:
    model, generator = toy.make_model(0), torch.Generator().manual_seed(0)
    toy.fit(model, lambda _: toy.batch_of(toy.mixed(ROWS, generator)), BASE_STEPS, 1e-2, "muon", tick)
    return model


def few_shot(base: GPT, tick=int) -> dict:
    """Exact match by the number of shown rows, with and without the task's name. No weight changes."""
    before = copy.deepcopy(base.state_dict())
    found = []
    for named in (False, True):
        for shots in range(4):
            each = [toy.exact_match(base, operation, shots, named) for operation in range(toy.KNOWN)]
            found.append(["with its name" if named else "without", shots, mean(each), min(each), max(each)])
            tick()
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())
    return {"columns": ["task", "shots", "exact match", "worst task", "best task"], "rows": found}


def answers(operation: int, generator, rows: int = ROWS, shots: int = 0):
    """Batches of single rows, or of one after `shots` shown, targets on the answer alone; inputs for tuning only."""
    return lambda _: toy.batch_of(toy.texts(operation, rows, shots + 1, generator, which="tune"), answers_only=True)


def attach(model: GPT, method: str, seed: int):
    """Let a method loose on the model: what learns, and at which rate."""
    torch.manual_seed(seed)
    if method == "full":
        freeze.freeze(model, "all")
        return 1e-3
    if method == "top block":
        freeze.freeze(model, "top:1")
        return 3e-3
    if method == "LoRA, r 4":
        lora.attach(model, lora.Config(r=4, alpha=8, targets=["q_proj", "v_proj"]))
        return 1e-2
    if method == "prefix, P 4":
        prefix.attach(model, prefix.PrefixConfig(length=4, shift=False))
        return 3e-2
    prompt.attach(model, prompt.PromptConfig(length=4, seed=seed))
    return 1e-1


def tune(base: GPT, method: str, operation: int, steps: int, seed: int = 0, shots: int = 0, tick=int, rows: int = ROWS):
    """A copy of the base, tuned; the ids that go before a text, if any."""
    model, generator = copy.deepcopy(base), torch.Generator().manual_seed(100 + seed)
    rate, batches = attach(model, method, seed), answers(operation, generator, rows, shots)
    if not method.startswith("prompt"):
        toy.fit(model, batches, steps, rate, tick=tick)
        return model, []
    toy.fit(model, lambda step: prompt.prepend(model, batches(step), shift=False), steps, rate, tick=tick)
    return model, prompt.ids(model)


METHODS = ("full", "top block", "LoRA, r 4", "prefix, P 4", "prompt, P 4")
TUNING = 250


def methods(base: GPT, tick=int) -> dict:
    """A known and a new task by each method, and what becomes of what the base knew."""
    generator = torch.Generator().manual_seed(7)
    old = toy.mixed(200, generator)
    batch = toy.batch_of(old)
    found = []

    def loss(model) -> float:
        with torch.no_grad():
            return cross_entropy(model.hidden(batch.tokens), model.head, batch.targets).item()

    for method in METHODS:
        known, new = [], []
        for operation, scores in ((PLUS, known), (MINUS, new)):
            model, front = tune(base, method, operation, TUNING, tick=tick)
            scores.append(exact(model, front, operation))
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        with torch.no_grad(), switched_off(model, method):
            same = torch.equal(model(old), base(old))
            after = loss(model)
        found.append([method, trained, known[0], new[0], loss(base), after, "yes" if same else "no"])
    columns = ["method", "numbers that learn", "known task", "new task", "loss on the old tasks before"]
    return {"columns": [*columns, "after the new task", "logits bit for bit"], "rows": found}


def switched_off(model: GPT, method: str):
    """Without the adapter, where there is one to take off: a text without a prompt's ids is the base's anyway."""
    from contextlib import nullcontext

    if method.startswith("LoRA"):
        return lora.disabled(model)
    if method.startswith("prefix"):
        prefix.detach(model)
    return nullcontext()


def exact(model: GPT, front: list[int], operation: int, shots: int = 0, kept: bool = True) -> float:
    """On inputs that no tuning saw; the text at its own positions behind a prompt, or moved."""
    if not front or not kept:
        return toy.exact_match(model, operation, shots, front=front, which="held")
    with prompt.unshifted(model):
        return toy.exact_match(model, operation, shots, front=front, which="held")


def instruction(base: GPT, tick=int) -> dict:
    """Instruction prompt tuning: nothing, a soft prompt, two shown rows, and both; a known task and a new one."""
    found = []
    for operation in (PLUS, MINUS):
        cells = [exact(base, [], operation)]
        for shots in (0, 2):
            if shots:
                cells.append(exact(base, [], operation, shots))
            scores = []
            for seed in range(2):
                model, front = tune(base, "prompt", operation, 150, seed, shots, tick)
                scores.append(exact(model, front, operation, shots))
            cells.append(mean(scores))
        found.append([f"{toy.OPERATIONS[operation]} ({'known' if operation == PLUS else 'new'})", *cells])
    return {"columns": ["task", "nothing", "soft prompt", "two rows", "both"], "rows": found}


def soft(base: GPT, config: prompt.PromptConfig, seed: int, kept: bool, steps: int, tick=int) -> float:
    """A soft prompt for the known task without its name; exact match."""
    model, generator = copy.deepcopy(base), torch.Generator().manual_seed(200 + seed)
    prompt.attach(model, config)
    batches = answers(PLUS, generator, rows=20)
    toy.fit(model, lambda step: prompt.prepend(model, batches(step), shift=not kept), steps, 1e-1, tick=tick)
    return exact(model, prompt.ids(model), PLUS, kept=kept)


def lengths(base: GPT, tick=int) -> dict:
    """Prompts of 1 to 50 vectors, three seeds; the text at its own positions, and moved by the prompt."""
    found = []
    for length in (1, 5, 20, 50):
        cells = []
        for kept in (True, False):
            configs = [prompt.PromptConfig(length=length, seed=seed, start="uniform") for seed in range(3)]
            scores = [soft(base, config, config.seed, kept, 120, tick) for config in configs]
            cells += [mean(scores), "/".join(f"{100 * score:.0f}" for score in scores)]
        found.append([length, length * base.config.d_model, *cells])
    columns = ["P", "numbers that learn", "text keeps its positions", "seeds, %", "text is moved by P", "seeds,  %"]
    return {"columns": columns, "rows": found}


def starts(base: GPT, tick=int) -> dict:
    """What a prompt of 5 begins as, at three points of its training."""
    name = (toy.NAMES + PLUS,)
    kinds = {
        "uniform, +-0.5": {"start": "uniform"},
        "vocabulary": {"start": "vocabulary", "among": toy.VOCAB},
        "the task's name": {"start": "text", "text": name},
    }
    found = []
    for kind, options in kinds.items():
        cells = []
        for steps in (5, 20, 80):
            configs = [prompt.PromptConfig(length=5, seed=seed, **options) for seed in range(3)]
            cells.append(mean(soft(base, config, config.seed, True, steps, tick) for config in configs))
        found.append([kind, *cells])
    return {"columns": ["start", "after 5 steps", "20", "80"], "rows": found}


SENTINELS = list(range(toy.SENTINELS, toy.VOCAB))
INFILLING_STEPS, ADAPTATION = 1200, (0, 30, 100, 300)


def corrupted(generator, rng: random.Random, after_only: bool):
    """The training text as infilling strings; every token a target, or those after the separator, as T5's."""
    texts = [
        spans.infilling(*spans.corrupt(text, spans.draw(len(text), rng, mean=2.0), SENTINELS), toy.SEPARATOR)
        for text in toy.mixed(ROWS, generator, k=4).tolist()
    ]
    width = max(map(len, texts))
    batch = toy.batch_of(torch.tensor([text + [toy.END] * (width - len(text)) for text in texts]))
    for row, text in enumerate(texts):
        batch.targets[row, len(text) - 1 :] = toy.IGNORE
        if after_only:
            batch.targets[row, : text.index(toy.SEPARATOR)] = toy.IGNORE
    return batch


def adaptation(after_only: bool, tick=int) -> dict:
    """A base of infilling strings, n steps of plain text, then a soft prompt: how good is it?"""
    generator, rng = torch.Generator().manual_seed(3), random.Random(3)
    infiller, found = toy.make_model(0), []
    toy.fit(infiller, lambda _: corrupted(generator, rng, after_only), INFILLING_STEPS, 1e-2, "muon", tick)
    for steps in ADAPTATION:
        model, generator = copy.deepcopy(infiller), torch.Generator().manual_seed(4)
        if steps:
            toy.fit(model, lambda _, g=generator: toy.batch_of(toy.mixed(ROWS, g)), steps, 5e-3, "muon", tick)
        named = toy.exact_match(model, PLUS, named=True)
        configs = [prompt.PromptConfig(length=5, seed=seed, start="uniform") for seed in range(3)]
        scores = [soft(model, config, config.seed, True, 120, tick) for config in configs]
        found.append([steps, named, mean(scores), "/".join(f"{100 * score:.0f}" for score in scores)])
    return {"columns": ["steps of plain text", "asked by name", "soft prompt, P 5", "seeds, %"], "rows": found}


def infilling(_: Path, tick=int) -> dict:
    """The base had a target at every token of the string."""
    return adaptation(False, tick)


def span_corruption(_: Path, tick=int) -> dict:
    """The base had targets after the separator only, as T5 has."""
    return adaptation(True, tick)
