"""What 8-bit weights cost a trained run: its loss on the whole validation text, as it is and inside `serving`.

    python -m bench int8_loss runs/notes

Every weight in 8 bits, small ones too, where `serving` would leave those as they are.
"""

import argparse

import torch
import torch.nn.functional as F

from minigpt import GPT, serving
from minigpt.corpus.batches import Batches
from minigpt.corpus.tokens import load_tokens
from minigpt.loss import IGNORE


def loss(model: GPT, batches: Batches) -> tuple[float, int]:
    """Mean nats a token, from the logits: `loss.cross_entropy` would read the head's weight as it is."""
    total, count = 0.0, 0
    for k in range(len(batches)):
        batch = batches[k]
        logits = model(batch.tokens, positions=batch.positions, documents=batch.documents)
        total += F.cross_entropy(logits.flatten(0, 1).double(), batch.targets.flatten(), reduction="sum").item()
        count += int((batch.targets != IGNORE).sum())
    return total / count, count


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="directory of a run that train.py made")
    run = parser.parse_args().run
    model, tokens = GPT.from_pretrained(run).eval(), load_tokens(f"{run}/tokens")
    batches = Batches(tokens.val, model.config.context, 8, 0, eot=tokens.eot, shuffle=False)
    serving.WORTH = 0
    base, count = loss(model, batches)
    print(f"{run}: {count} tokens\nas it is  {base:.5f} nats")
    for name in serving.KINDS:
        with serving.serving(model, name):
            found, _ = loss(model, batches)
        print(f"{name:9} {found:.5f} nats, {found - base:+.5f}")


if __name__ == "__main__":
    main()
