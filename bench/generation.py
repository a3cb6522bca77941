"""Writing 64 tokens with GPT-2 124M, random weights, float32, prefill included, beside transformers.

Both have the same weights, so greedy texts and beams should be the same: where they are not, a line says so (rounding
decides near ties). Ours runs inside `serving(model)`, as sample.py does. The floor is one pass over the weights
for each token, all rows and beams at once, by the quickest product at hand: attention and the prompt are extra.
"""

import random
from dataclasses import dataclass

from bench import peers

UNIT, REFERENCE = "tokens/s", "ours"
NEW, VOCABULARY = 64, 50257


@dataclass(frozen=True)
class Work:
    """`samples` of one prompt, or `rows` different ones. `same`: the peers should write the same."""

    name: str
    rows: int = 1
    samples: int = 1
    beams: int = 1
    prompt: int = 64
    weights: str = "float32"

    @property
    def units(self) -> int:
        """New tokens; of beams, those of the best."""
        return NEW * self.rows * self.samples

    @property
    def same(self) -> bool:
        return self.samples == 1 and self.weights == "float32"

    def prompts(self) -> list[list[int]]:
        draw = random.Random(self.prompt)
        return [[draw.randrange(VOCABULARY) for _ in range(self.prompt)] for _ in range(self.rows)]


WORKS = [
    Work("greedy, 1 row"),
    Work("greedy, 8 rows", rows=8),
    Work("greedy, int8", weights="int8"),
    Work("4 beams", beams=4),
    Work("8 beams", beams=8),
    Work("4 beams, prompt 512", beams=4, prompt=512),
    Work("8 beams, prompt 512", beams=8, prompt=512),
    Work("8 samples, prompt 512", samples=8, prompt=512),
]


def ours(work: Work):
    from minigpt.generation import beam_search, generate
    from minigpt.serving import serving

    model = our_model()
    held = serving(model, weights=work.weights)
    held.__enter__()
    options = {"max_new_tokens": NEW}

    def turn(held=held) -> list[int]:  # which keeps the weights laid out
        if work.beams > 1:
            return beam_search(model, work.prompts(), num_beams=work.beams, **options)[0][0].tokens
        return generate(model, work.prompts() * work.samples, temperature=float(work.samples > 1), **options)[0]

    return turn


def transformers(work: Work):
    import torch

    model, ids = their_model(), torch.tensor(work.prompts())
    options = {"max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0, "num_beams": work.beams, "top_k": 0}
    options |= {"do_sample": work.samples > 1, "num_return_sequences": work.samples}

    def turn() -> list[int]:
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return out[0, ids.shape[1] :].tolist()

    return turn


def floor(work: Work):
    """NEW passes over the weights."""
    import torch

    from bench import few_rows

    one_pass = few_rows.passing(few_rows.Work("", work.rows * work.samples * work.beams), f"serving, {work.weights}")

    def turn():
        with torch.inference_mode():
            for _ in range(NEW):
                one_pass()

    return turn


def our_model():
    """GPT-2 124M with random weights, always the same."""
    import torch

    from minigpt import GPT, presets

    torch.manual_seed(0)
    return GPT(presets.gpt2("small")).eval()


def their_model():
    """The same weights as transformers names and joins them."""
    peers.need("transformers")
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    from minigpt import hub

    logging.set_verbosity_error()
    mine, theirs = our_model(), GPT2LMHeadModel(GPT2Config()).eval()
    ours, state = dict(mine.named_parameters(remove_duplicate=False)), theirs.state_dict()
    for entry in hub.layout(mine.config):
        whole = torch.cat([ours[name].detach() for name in entry.ours])
        name = entry.name if entry.name in state else f"transformer.{entry.name}"
        state[name].copy_(whole.T if entry.transposed else whole)
    return theirs


PEERS = {"ours": ours, "transformers": transformers, "floor": floor}
