"""What transformers' beam search answers for small random models: writes tests/vectors/beams.json.

    python tests/beam_vectors.py

The vectors let the grid be checked where transformers is not installed, and show when a new release answers otherwise.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch

from minigpt import GPT, GPTConfig

FILE = Path(__file__).parent / "vectors" / "beams.json"
PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6]]
MODELS = {"sharp": ({}, 0.35), "flat": ({}, 0.08), "llama": ({"positions": "rotary", "norm": "rmsnorm"}, 0.2)}
LLAMA = {"activation": "silu", "gated": True, "bias": False}
GRID = [
    {"num_beams": k, "length_penalty": penalty, "early_stopping": early, "eos": eos, "max_new_tokens": 8}
    for k, penalty, early, eos in itertools.product(
        (2, 5), (0.0, 1.0, 2.0, -0.5), (False, True, "never"), (None, [7], [7, 2])
    )
]


def small_model(name: str) -> GPT:
    """Weights from numpy, whose streams stay the same over releases."""
    shape, std = MODELS[name]
    more = LLAMA if shape else {}
    model = GPT(GPTConfig(vocab_size=17, context=32, n_layers=2, n_heads=2, d_model=16, **shape, **more)).eval()
    draw = np.random.default_rng(len(name))
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            weight.copy_(torch.from_numpy(draw.standard_normal(tuple(weight.shape)) * std))
    return model


def answers(name: str, directory: Path) -> list:
    """transformers' [[tokens, score] of each beam] of each prompt, for each point of the grid."""
    from transformers import AutoModelForCausalLM

    small_model(name).save_pretrained(directory)
    theirs = AutoModelForCausalLM.from_pretrained(directory).eval()
    return [[_search(theirs, prompt, **options) for prompt in PROMPTS] for options in GRID]


def _search(theirs, prompt: list[int], num_beams: int, eos, **options) -> list:
    ids = torch.tensor([prompt])
    out = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=num_beams, num_return_sequences=num_beams, do_sample=False,
        eos_token_id=eos, pad_token_id=16, return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    found = []
    for row, score in zip(out.sequences[:, len(prompt) :].tolist(), out.sequences_scores.tolist(), strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token in (eos or [])), len(row))
        found.append([row[:end], round(score, 6)])
    return found


def main():
    import tempfile

    FILE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        found = {name: answers(name, Path(directory) / name) for name in MODELS}
    lines = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(each) for each in found[name]) + "\n]" for name in found
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
