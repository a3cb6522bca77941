"""CompiledReader against Reader: the same tokens, and one compilation a bucket.

Compiling is counted, not done, by a backend that runs the traced graph as it is: the shapes are what is tested here.
"""

import pytest
import torch
from helpers import model

import lora
from minigpt import Error
from minigpt.generation import beam_search, compiled, generate
from minigpt.generation.compiled import Compiled, CompiledReader
from minigpt.generation.reader import Reader

PROMPTS = [[5, 9, 2], [7], list(range(20)), [5, 9, 2]]


@pytest.fixture
def graphs(monkeypatch):
    """The number of entries (the bucket) of each graph, as they are compiled."""
    torch._dynamo.reset()
    sizes = []

    def backend(graph, inputs):
        sizes.append(max(each.shape[2] for each in inputs if isinstance(each, torch.Tensor) and each.ndim == 4))
        return graph.forward

    step = Compiled(compiled.read, backend=backend)
    monkeypatch.setattr(compiled, "_step", lambda on_gpu: step)
    yield sizes
    assert step.usable


def large(kind: str = "gpt2", **changes):
    torch.manual_seed(3)
    return model(kind, std=0.2, **{"context": 200} | changes)


@pytest.mark.parametrize("kind", ["mixture"])
def test_tokens_are_the_same_with_one_graph_a_bucket(kind, graphs):
    gpt = large(kind)
    for options in ({"temperature": 0}, {"seed": 3}):
        assert generate(gpt, [PROMPTS[2]], 120, compile=True, **options) == generate(gpt, [PROMPTS[2]], 120, **options)
    assert graphs == [64, 128, 256]  # and none for the second text


def test_rows_that_end_leave_the_shapes_as_they_are(graphs):
    gpt, prompts = large(context=60), [*PROMPTS, [3] * 58]  # the last one's next positions are soon past the context
    options = {"eos": list(range(4)), "seed": 1}
    written = generate(gpt, prompts, 70, compile=True, **options)
    assert written == generate(gpt, prompts, 70, **options)
    assert len({len(text) for text in written}) > 2
    assert len(graphs) == len(set(graphs))


def test_beams_are_the_same(graphs):
    gpt = large(context=80)
    options = {"num_beams": 3, "max_new_tokens": 50, "eos": [1, 2], "early_stopping": "never"}
    ours, plain = (beam_search(gpt, PROMPTS, compile=each, **options) for each in (True, False))
    for row, other in zip(ours, plain, strict=True):
        assert [beam.tokens for beam in row] == [beam.tokens for beam in other]
        assert [beam.score for beam in row] == pytest.approx([beam.score for beam in other], abs=1e-5)
    assert len(graphs) == len(set(graphs))


def test_logits_of_branches_as_prompts_leave(graphs):
    gpt, random = large("gpt3"), torch.Generator().manual_seed(0)
    readers = Reader(gpt, [0, 1, 2], room=500), CompiledReader(gpt, [0, 1, 2], room=0)
    first, second = (reader.start(PROMPTS[:3]) for reader in readers)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    rows, width = 3, 1
    for step in range(40):
        parents = torch.randint(width, (rows, (4, 4, 2)[step // 14]), generator=random)
        width, new = parents.shape[1], torch.randint(61, parents.shape, generator=random).tolist()
        first, second = (reader.step(new, parents.tolist()) for reader in readers)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
        if step == 20:
            rows = 2
            for reader in readers:
                reader.select([2, 0])
    assert len(graphs) == len(set(graphs)) <= 2  # dead entries leave before the bucket doubles


def test_adapters_of_rows(graphs):
    gpt = large(context=60)
    lora.attach(gpt, lora.Config(r=2, alpha=16, targets=["q_proj"]), name="a")
    with torch.no_grad():
        for name, weight in gpt.named_parameters():
            if "adapters" in name:
                weight.normal_()
    with lora.rows(gpt, ["a", None, "a", None]):
        options = {"max_new_tokens": 20, "temperature": 0}
        written = generate(gpt, PROMPTS, compile=True, **options)
        assert written == generate(gpt, PROMPTS, **options)
    assert written[0] != written[3]


def test_without_a_compiler_one_warning_and_the_same_tokens(monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no C++ compiler")

    torch._dynamo.reset()
    step = Compiled(compiled.read, backend=backend)
    monkeypatch.setattr(compiled, "_step", lambda on_gpu: step)
    gpt = large()
    with pytest.warns(UserWarning, match="torch.compile does not work here, going on without") as warned:
        written = generate(gpt, PROMPTS, 10, temperature=0, compile=True)
    assert len(warned) == 1 and written == generate(gpt, PROMPTS, 10, temperature=0)


def test_compiling_needs_a_cache():
    with pytest.raises(Error, match="leave use_cache at True"):
        generate(large(), [[1]], 2, use_cache=False, compile=True)
