"""A decoding step as the text grows: a token of each beam, GPT-2 124M, float32, beside transformers.

Both do what their beam search does at each step: ours says which beam goes on from which, theirs brings the copies
of its cache into order. A turn is one step; the text is an entry (a beam) longer after it.
"""

from dataclasses import dataclass

from bench import generation

UNIT, REFERENCE, ROUNDS = "steps/s", "ours", 15


@dataclass(frozen=True)
class Work:
    """`at` tokens have been read."""

    name: str
    at: int
    beams: int
    units: int = 1

    @property
    def axis(self) -> str:
        return f"entries in the cache, {'8 beams' if self.beams > 1 else 'greedy'}"


LENGTHS = (16, 128, 256, 512, 768, 960)
WORKS = [
    Work(f"{'8 beams' if beams > 1 else 'greedy'}, {length} tokens", length, beams)
    for beams in (8, 1)
    for length in LENGTHS
]


def ours(work: Work):
    from minigpt.generation.reader import Reader
    from minigpt.serving import serving

    model = generation.our_model()
    held, parents = serving(model), list(range(work.beams))[::-1]  # a search seldom keeps the order
    held.__enter__()
    reader = Reader(model, [0], room=work.beams * (1024 - work.at))
    reader.start([[1] * work.at])
    reader.step([[5] * work.beams], [[0] * work.beams])

    def turn(held=held):  # which keeps the weights laid out
        reader.step([[5] * work.beams], [parents])

    return turn


def transformers(work: Work):
    model = generation.their_model()
    import torch
    from transformers import DynamicCache

    tokens, order = torch.full((work.beams, 1), 5), torch.arange(work.beams).flip(0)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones(1, work.at, dtype=int), past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(work.beams)

    def turn():
        with torch.inference_mode():
            if work.beams > 1:
                cache.reorder_cache(order)
            model(tokens, past_key_values=cache)

    return turn


PEERS = {"ours": ours, "transformers": transformers}
