"""Measurements on the embedded notes: what a target at every token is worth, what a cache saves, what size does."""

from pathlib import Path

import torch

from bench import toy
from minigpt import GPT, presets
from minigpt.corpus.batches import Batch, Batches
from minigpt.corpus.preparation import prepare
from minigpt.corpus.tokens import load_tokens
from minigpt.generation import Memory, stream
from minigpt.loss import IGNORE, cross_entropy
from minigpt.prompting import Builder, Template
from minigpt.prompting.retrieval import TfIdf, demonstrated
from minigpt.prompting.soft import tuning_batch
from minigpt.prompting.trial import candidates_of, read_examples, run_trial, split
from minigpt.tuning import prompt

ROOT = Path(__file__).resolve().parents[1]
CONTEXT, ROWS, STEPS, EVERY = 128, 8, 240, 60
SIZES = {"small": (2, 2, 32), "middle": (3, 4, 64), "large": (4, 4, 128)}


def text(out: Path):
    """The embedded notes as tokens, made once; training batches and the first ones of validation."""
    folder = out / "notes-tokens"
    if not (folder / "manifest.json").is_file():
        prepare(ROOT / "data" / "notes.jsonl", folder, "text", None, 1024, 0.05, "skip", ())
    tokens = load_tokens(folder)
    batches = Batches(tokens.train, CONTEXT, ROWS, 0)
    held = Batches(tokens.val, CONTEXT, 64, 0, shuffle=False)
    return tokens.tokenizer().vocab_size, batches, held[0]


def make(size: str, vocab: int) -> GPT:
    torch.manual_seed(0)
    layers, heads, width = SIZES[size]
    return GPT(presets.llama_like(n_layers=layers, n_heads=heads, d_model=width, vocab_size=vocab, context=CONTEXT))


def thinned(batch: Batch, share: float, seed: int) -> Batch:
    """The same text, a random share of its targets: what a masked model is asked of a text it reads."""
    generator = torch.Generator().manual_seed(seed)
    asked = torch.rand(batch.targets.shape, generator=generator) < share
    targets = batch.targets.where(asked, IGNORE)
    return Batch(batch.tokens, targets, None, None, int((targets != IGNORE).sum()))


def curve(size: str, share: float, out: Path, tick=int) -> list[list[float]]:
    """[tokens read, validation loss over all targets], at every 60 steps."""
    vocab, batches, held = text(out)
    model, found, step = make(size, vocab), [], 0

    def look():
        nonlocal step
        step += 1
        tick()
        if step % EVERY == 0:
            with torch.no_grad():
                loss = cross_entropy(model.hidden(held.tokens), model.head, held.targets).item()
            found.append([step * ROWS * CONTEXT, loss])

    toy.fit(model, lambda i: thinned(batches[i], share, i) if share < 1 else batches[i], STEPS, 1e-2, "muon", tick=look)
    return found


def trained(size: str, out: Path, tick=int) -> GPT:
    vocab, batches, _ = text(out)
    model = make(size, vocab)
    toy.fit(model, lambda i: batches[i], STEPS, 1e-2, "muon", tick=tick)
    return model


def notes(out: Path, tick=int) -> dict:
    """Instruction prompt tuning on the English notes: which of five kinds is it, by its first 80 characters?"""
    model, tokenizer = trained("large", out, tick), load_tokens(out / "notes-tokens").tokenizer()
    examples = read_examples(ROOT / "data" / "notes.jsonl", "text", "type", ("language=en",), cut=80)
    names, template = candidates_of(examples), Template(question="{text}\nKind:")
    asked, pool = split(examples, 100, seed=0)
    builder, retriever = Builder(tokenizer, template, names), TfIdf([each.text for each in pool])
    rows = []
    for shots in (0, 2):
        plain = run_trial(model, tokenizer, template, shots, asked, pool, retriever, names, "prior", tick=tick)
        cells = []
        for seed in range(2):
            prompt.attach(model, prompt.PromptConfig(length=10, seed=seed))
            shown = list(demonstrated(pool, pool, retriever, shots))
            order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(seed)).tolist()

            def batch(step, order=order, shown=shown):
                chosen = [shown[order[(8 * step + i) % len(order)]] for i in range(8)]
                return tuning_batch(model, builder, chosen)

            toy.fit(model, batch, 60, 1e-1, tick=tick)
            front = prompt.ids(model)
            found = run_trial(model, tokenizer, template, shots, asked, pool, retriever, names, "sum", front, tick)
            cells.append(found.scores.accuracy)
            prompt.detach(model)
        rows.append([f"{shots} retrieved", plain.scores.accuracy, *cells])
    return {"columns": ["examples", "no soft prompt", "soft prompt, seed 0", "seed 1"], "rows": rows}


def targets(out: Path, tick=int) -> dict:
    """A target at every token, and at 15 % of them: loss after so many tokens read."""
    every, some = curve("middle", 1.0, out, tick), curve("middle", 0.15, out, tick)
    rows = [[read, loss, other] for (read, loss), (_, other) in zip(every, some, strict=True)]
    return {"columns": ["tokens read", "every token is a target", "15 % are"], "rows": rows}


def sizes(out: Path, tick=int) -> dict:
    """Validation loss of three sizes after the same text."""
    vocab, _, _ = text(out)
    rows = []
    for size in SIZES:
        parameters = sum(weight.numel() for weight in make(size, vocab).parameters())
        rows.append([size, parameters, *(loss for _, loss in curve(size, 1.0, out, tick))])
    reads = [f"loss after {step * ROWS * CONTEXT:,} tokens" for step in range(EVERY, STEPS + 1, EVERY)]
    return {"columns": ["size", "parameters", *reads], "rows": rows}


def turns(base: GPT, tick=int) -> dict:
    """A conversation of four turns: tokens read at each, with a cache and by reading it all anew."""
    memory, said, rows = Memory(base), [], []
    read = []
    hook = base.token_embedding.register_forward_hook(lambda _, inputs, out: read.append(inputs[0].numel()))
    generator = torch.Generator().manual_seed(0)
    for turn in range(1, 5):
        said += torch.randint(10, (8,), generator=generator).tolist()
        read.clear()
        answer = list(stream(base, said, 6, temperature=0, memory=memory))
        cached = sum(read)
        read.clear()
        again = list(stream(base, said, 6, temperature=0))
        assert again == answer
        anew = sum(len(said) + i for i in range(len(answer)))  # a text read from both sides changes with every token
        rows.append([turn, len(said), cached, sum(read), anew])
        said += answer
        tick()
    hook.remove()
    columns = ["turn", "tokens so far", "read, cache kept", "read, a new cache each turn", "read, no cache"]
    return {"columns": columns, "rows": rows}
