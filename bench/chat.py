"""Dialogues of your own: a small model learns to answer; does history help it, and what does a turn cost?

    python -m bench chat dialogues.jsonl                      {"messages": [...]} or {"turns": [...]} a line
    python -m bench chat dialogues.jsonl --steps 400 --context 256

Trains a new model of four million parameters on the answers (steps are counted, not seconds). Then, on dialogues kept
apart: nats a token of the true answers, when the model sees the whole dialogue, the last three utterances, or the last;
and how many tokens a turn reads, and in how many milliseconds, with the cache going on and without.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from bench.instruct import tune
from minigpt import GPT, presets
from minigpt.chat import Chat
from minigpt.corpus.examples import make_reader, open_records, texts
from minigpt.corpus.records import RecordConfig
from minigpt.corpus.rows import RecordBatches
from minigpt.corpus.talk import Dialogue, Layout, first_kept
from minigpt.generation import Memory
from minigpt.loss import cross_entropy
from minigpt.tokenizer import Tokenizer

RATE, ROWS = 4e-3, 8


def answers(dialogue: Dialogue, layout: Layout, encode, context: int, history: int | None) -> list[tuple[list, list]]:
    """(ids, learned) of each true answer after as much of the dialogue as is seen."""
    said, found = [encode(part.text) for part in dialogue.parts], []
    for place, part in enumerate(dialogue.parts):
        if part.learned and place and len(said[place]) + len(said[place - 1]) + 3 <= context + 1:
            room = context - len(said[place]) - 1
            first = first_kept([len(each) + 1 for each in said[:place]], room, history)
            prompt = layout.join(said[first:place])
            found.append((prompt + said[place] + [layout.end], [False] * len(prompt) + [True] * (len(said[place]) + 1)))
    return found


@torch.no_grad()
def loss(model: GPT, examples: list[tuple[list, list]], context: int, pad: int) -> tuple[float, int]:
    """Mean nats a token of the answers, and how many tokens these are."""
    batches = RecordBatches(*zip(*examples, strict=True), context, ROWS, seed=0, pad=pad, shuffle=False)
    total = 0.0
    for i in range(len(batches)):
        total += cross_entropy(model.hidden(batches[i].tokens), model.head, batches[i].targets, "sum").item()
    return total / batches.n_targets, batches.n_targets


def turns(model: GPT, tokenizer: Tokenizer, dialogues: list[Dialogue], goes_on: bool) -> dict[int, list[tuple]]:
    """By turn, of each dialogue: tokens of the prompt, tokens read, seconds up to the first token of the answer."""
    found: dict[int, list[tuple]] = {}
    for dialogue in dialogues:
        chat = Chat(model, tokenizer, max_new_tokens=24, temperature=0.8, seed=1)
        asked = [part.text for part in dialogue.parts if not part.learned][:4]
        for turn, text in enumerate(asked, start=1):
            if not goes_on:
                chat.memory = Memory(model)
            began = time.perf_counter()
            pieces = chat.say(text)
            next(pieces, None)
            first = time.perf_counter() - began
            for _ in pieces:
                pass
            found.setdefault(turn, []).append((chat.last.prompt_tokens, chat.last.read_tokens, first))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dialogues", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--save", type=Path, help="keep the model in this directory, for sample.py --chat")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = RecordConfig(pack=True)
    tokenizer = Tokenizer.train(texts(options.dialogues, "chat", config), 2048)
    data = open_records(options.dialogues, "chat", config, tokenizer, options.context, ROWS, 0)
    training, validation, counts = data
    print(counts)
    shape = {"n_layers": 4, "n_heads": 4, "d_model": 256, "context": options.context}
    model = GPT(presets.llama_like(vocab_size=tokenizer.vocab_size, **shape))
    tune(model, training, options.steps, rate=RATE, weight_decay=0.1)
    model.eval()
    if options.save:
        model.save_pretrained(options.save)
        tokenizer.save(options.save)
    apart = {validation.ids[a:b].tobytes() for a, b in zip(validation.starts[:-1], validation.starts[1:], strict=True)}
    layout, dialogues = Layout.of(tokenizer), []
    for document in make_reader(options.dialogues, "chat", config):
        example = document.text.fitted(layout, tokenizer.encode, options.context + 1)
        if example and torch.tensor(example.ids, dtype=torch.int32).numpy().tobytes() in apart:
            dialogues.append(document.text)
    print("\n| utterances seen | nats a token of the answer |\n|---|---|")
    for name, history in (("all", None), ("3", 3), ("1", 1)):
        examples = [each for d in dialogues for each in answers(d, layout, tokenizer.encode, options.context, history)]
        nats, tokens = loss(model, examples, options.context, tokenizer.eot)
        print(f"| {name} | {nats:.3f} ({tokens:,} tokens) |")
    heads = ("turn", "tokens of the prompt", "read with the cache", "ms to the first token", "the same without")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    going, anew = (turns(model, tokenizer, dialogues[:20], goes_on) for goes_on in (True, False))
    for turn in sorted(going):
        prompt, read, seconds = (sorted(column)[len(column) // 2] for column in zip(*going[turn], strict=True))
        without = sorted(seconds for _, _, seconds in anew[turn])[len(anew[turn]) // 2]
        print(f"| {turn} | {prompt} | {read} | {1000 * seconds:.1f} | {1000 * without:.1f} |")
    print(json.dumps({"parameters": sum(weight.numel() for weight in model.parameters()), "steps": options.steps}))
