"""Eight requests at once beside one after another: 64 sampled tokens each after 16 to 51, inside `serving(model)`.

    ours                 the engine of sample.py --serve: requests join as their prompts are read
    one after another    `generate` of each alone, its adapter by `use`
    one batch            `generate` of all eight, which knows them from the start: what the engine's freedom costs

The demo's shape is 4 layers, 256 wide, vocabulary 2048. Adapters: LoRA, r 8, all linear layers, one for each request.
The texts are the same each way; where they are not, a line says so (rounding decides near ties of what is drawn).
"""

from contextlib import ExitStack
from dataclasses import dataclass

UNIT, REFERENCE = "tokens/s", "ours"
REQUESTS, NEW = 8, 64


@dataclass(frozen=True)
class Work:
    """Sizes of the model, and whether each request has an adapter of its own."""

    name: str
    layers: int = 12
    heads: int = 12
    width: int = 768
    vocabulary: int = 50257
    adapters: bool = False
    same: bool = True

    @property
    def units(self) -> int:
        return REQUESTS * NEW

    @property
    def names(self) -> list[str | None]:
        return list("abcdefgh") if self.adapters else [None] * REQUESTS

    def prompts(self) -> list[list[int]]:
        return [[(7 * row + 3 * place) % 1000 for place in range(16 + 5 * row)] for row in range(REQUESTS)]


DEMO = {"layers": 4, "heads": 4, "width": 256, "vocabulary": 2048}
WORKS = [
    Work("demo", **DEMO),
    Work("demo, 8 adapters", **DEMO, adapters=True),
    Work("124M"),
    Work("124M, 8 adapters", adapters=True),
]


def prepared(work: Work):
    """The model, with its adapters, as a server holds it."""
    import torch

    import lora
    from minigpt import GPT, GPTConfig
    from minigpt.serving import serving

    torch.manual_seed(0)
    sizes = {"n_layers": work.layers, "n_heads": work.heads, "d_model": work.width, "vocab_size": work.vocabulary}
    model = GPT(GPTConfig(context=256, **sizes)).eval()
    for name in filter(None, work.names):
        lora.attach(model, lora.Config(r=8, targets="all-linear"), name)
    for parameter in lora.parameters(model) if work.adapters else ():
        torch.nn.init.normal_(parameter, std=0.01)
    stack = ExitStack()
    stack.enter_context(serving(model))
    stack.enter_context(lora.serving(model))
    return model, stack


def ours(work: Work):
    import lora
    from minigpt.generation.engine import Ask, Engine
    from minigpt.generation.sampling import Sampler

    model, stack = prepared(work)
    names = {name: name for name in filter(None, work.names)}
    engine, sampler = Engine(model, REQUESTS, names, (lora,)), Sampler(max_new_tokens=NEW)
    given = list(zip(work.prompts(), work.names, strict=True))
    asks = [Ask(prompt, sampler, row=row, adapter=name) for row, (prompt, name) in enumerate(given)]

    def turn(stack=stack):  # which holds the contexts open
        texts = {engine.submit(ask): [] for ask in asks}
        while not engine.idle:
            for ticket, events in engine.step().items():
                texts[ticket] += [event.token for event in events]
        return list(texts.values())

    return turn


def one_after_another(work: Work):
    import lora
    from minigpt.generation import generate

    model, stack = prepared(work)

    def turn(stack=stack):
        texts = []
        for row, (prompt, name) in enumerate(zip(work.prompts(), work.names, strict=True)):
            if work.adapters:
                lora.use(model, name)
            texts += generate(model, [prompt], NEW, row=row)
        return texts

    return turn


def one_batch(work: Work):
    import lora
    from minigpt.generation import generate

    model, stack = prepared(work)
    if work.adapters:
        stack.enter_context(lora.rows(model, work.names))
    return lambda stack=stack: generate(model, work.prompts(), NEW)


PEERS = {"ours": ours, "one after another": one_after_another, "one batch": one_batch}
