"""How long texts are in tokens, by the size of the vocabulary: bytes a token of English and of Chinese notes."""

import json
from pathlib import Path

from minigpt.tokenizer import Tokenizer

NOTES = Path(__file__).resolve().parents[2] / "data" / "notes.jsonl"
SIZES = (257, 512, 1024, 2048, 4096, 8192)


def bytes_a_token(sizes=SIZES, notes: Path = NOTES) -> dict[str, list[float]]:
    """Language -> bytes a token of every fifth note, with a vocabulary learned from the others."""
    records = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    kept, others = records[::5], [r["text"] for place, r in enumerate(records) if place % 5]
    texts = {"English": "en", "Chinese": "zh"}
    kept = {name: [r["text"] for r in kept if r["language"] == code] for name, code in texts.items()}
    found = {name: [] for name in texts}
    for size in sizes:
        tokenizer = Tokenizer.train(others, size)
        for name, each in kept.items():
            tokens = sum(map(len, tokenizer.encode_batch(each)))
            found[name].append(sum(len(text.encode()) for text in each) / tokens)
    return found


def draw():
    from matplotlib.figure import Figure

    found = bytes_a_token()
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(found.items(), ("#36c", "#c4622d"), strict=True):
        axes.plot(SIZES, values, "o-", color=color, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES], fontsize=8)
    axes.set_xlabel("tokens in the vocabulary")
    axes.set_ylabel("bytes a token")
    axes.set_ylim(0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
