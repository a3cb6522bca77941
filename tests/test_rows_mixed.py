"""Eight rows, eight methods, one pass: each row is what it would be alone with its method."""

from pathlib import Path

import pytest
import torch
from helpers import model, randomize
from mixing import NAMES, TEXTS, alone, tuned
from torch import nn

import lora
from minigpt import Error
from minigpt.cache import Cache
from minigpt.generation import beam_search, generate
from minigpt.generation.reader import flush_right
from minigpt.tuning import adapter, bottleneck, mixed, prefix, prompt


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt3"])
def test_logits_are_those_of_single_runs_padding_and_cache_included(kind, shift):
    gpt = tuned(kind, shift)
    texts = mixed.begin(gpt, NAMES, TEXTS)
    tokens, keep = flush_right(texts)
    with torch.no_grad(), mixed.rows(gpt, NAMES, lora):
        whole = gpt(tokens, keep=keep)
        cache = Cache(gpt.config, len(texts))
        cached = gpt(tokens, keep=keep, cache=cache), gpt(torch.full((8, 1), 33), cache=cache)
    with torch.no_grad():
        singles = [
            alone(gpt, names, place, text, lambda rows, _: gpt(torch.tensor([rows[0] + [33]])))
            for place, (names, text) in enumerate(zip(NAMES, texts, strict=True))
        ]
    for place, single in enumerate(singles):
        length = len(texts[place])
        torch.testing.assert_close(whole[place, -length:], single[0, :-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(cached[0][place, -length:], single[0, :-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(cached[1][place, -1], single[0, -1], atol=1e-5, rtol=0)
    last = [single[0, -1] for single in singles]
    assert all((a - b).abs().max() > 1e-2 for i, a in enumerate(last) for b in last[:i])


@pytest.mark.parametrize("kind, shift", [("gpt2", True), ("gpt2", False), ("mixture", True)])
def test_texts_are_those_of_single_runs_greedy_seeded_and_beams(kind, shift):
    gpt = tuned(kind, shift)
    texts = mixed.begin(gpt, NAMES, TEXTS)
    ways = {
        "greedy": lambda rows, place: generate(gpt, rows, 6, temperature=0),
        "uncached": lambda rows, place: generate(gpt, rows, 6, temperature=0, use_cache=False),
        "seeded": lambda rows, place: generate(gpt, rows, 6, temperature=1.5, seed=3, row=place),
        "ending": lambda rows, place: generate(gpt, rows, 9, temperature=1.5, seed=4, row=place, eos=range(0, 61, 5)),
        "beams": lambda rows, place: [
            [beam.tokens for beam in each] for each in beam_search(gpt, rows, num_beams=3, max_new_tokens=4)
        ],
    }
    with mixed.rows(gpt, NAMES, lora):
        together = {way: read(texts, 0) for way, read in ways.items()}
    for place, (names, text) in enumerate(zip(NAMES, texts, strict=True)):
        for way, read in ways.items():
            assert alone(gpt, names, place, text, read)[0] == together[way][place], (way, names)
    assert together["greedy"] == together["uncached"] and len({tuple(row) for row in together["seeded"]}) == 8
    assert len({len(row) for row in together["ending"]}) > 2  # rows leave the batch one by one


def test_the_base_row_is_the_base_untouched():
    """Bit for bit as a model that never held anything, in a batch of bases; near it in a mixed one."""
    gpt, x = tuned("gpt2", True), torch.randint(61, (4, 9))
    with mixed.rows(gpt, [None, "prefix", "houlsby", None], lora):
        inside = gpt(x)
    with mixed.rows(gpt, [None] * 4, lora):
        base = gpt(x)
    for method in (prefix, lora, adapter, prompt):
        method.detach(gpt)
    assert torch.equal(gpt(x), base)
    torch.testing.assert_close(inside[[0, 3]], gpt(x)[[0, 3]], atol=1e-5, rtol=0)
    assert (inside - gpt(x)).abs().amax((1, 2))[1:3].min() > 0.1


def adapters():
    configs = {"a": {"bottleneck": 3}, "b": {"bottleneck": 5, "activation": "relu"}, "c": {"norm": True}}
    held = nn.ModuleDict({n: bottleneck.Adapter(adapter.Config(**config), 8) for n, config in configs.items()})
    return randomize(held, 0.5).double()


@pytest.mark.parametrize(
    "rows",
    [("a", "b", None, "a", "c"), ("c",) * 5, (None,) * 5, ("b", None, None, None, "b"), ("d", "a", "b", "c", "a")],
)
def test_grouped_rows_are_the_rows_one_by_one(rows):
    """Values and gradients, float64; a name that this place does not hold is the base."""
    held, found = adapters(), []
    h = torch.randn(5, 4, 8, dtype=torch.float64)
    for each in (bottleneck.plain, bottleneck.fast):
        x = h.clone().requires_grad_()
        out = each(x, rows, held)
        used = [weight for name in set(rows) & held.keys() for weight in held[name].parameters()]
        found.append((out, *torch.autograd.grad(out.sin().sum(), [x, *used])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    untouched = [row for row, name in enumerate(rows) if name not in held]
    assert torch.equal(found[1][0][untouched], h[untouched])


def test_rows_learn_what_their_row_says():
    """A mixed batch of training: the gradients are the sums of those of each row alone."""
    gpt, x = tuned("gpt2", True).double(), torch.randint(61, (3, 6))
    held = dict(gpt.named_parameters())
    for weight in held.values():
        weight.requires_grad_(True)
    names = ["houlsby", "lora", "prefix"]
    with mixed.rows(gpt, names, lora):
        gpt(x).square().sum().backward()
    together = {name: weight.grad.clone() for name, weight in held.items() if weight.grad is not None}
    gpt.zero_grad()
    for row, name in enumerate(names):
        mixed.use(gpt, name, lora)
        gpt(x[row : row + 1]).square().sum().backward()
    for name, gradient in together.items():
        if held[name].grad is not None:
            torch.testing.assert_close(held[name].grad, gradient, atol=1e-8, rtol=1e-8)
    assert sum(bool(gradient.any()) for name, gradient in together.items() if "adapters" in name or "held" in name) > 9


def test_what_rows_cannot_be_is_said_and_leaves_nothing_behind():
    gpt, x = tuned("gpt2", False), torch.randint(61, (2, 6))
    lora.attach(gpt, lora.Config(dora=True, targets=["o_proj"]), "dora")
    lora.attach(gpt, lora.Config(), "prompt")
    mixed.use(gpt, "houlsby", lora)
    before, places = gpt(x), gpt.position_embedding
    for names, message in {
        ("houlsbi", None): "did you mean 'houlsby'",
        (("lora", "rslora"), None): "are of one method: a row has one of each",
        ("prompt", None): "is held by prompt and by lora: give them different names",
        ("dora", "lora"): "'dora' has dora",
    }.items():
        with pytest.raises((Error, lora.Error), match=message), mixed.rows(gpt, names, lora):
            pass
    with (
        pytest.raises(Error, match="adapter.rows names 3 rows, the batch has 2"),
        mixed.rows(gpt, ["houlsby"] * 3, lora),
    ):
        gpt(x)
    assert torch.equal(gpt(x), before) and gpt.position_embedding is places


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parent.parent / "docs" / "rows.md").read_text()
    gpt = model(std=0.2, context=40)
    gpt.save_pretrained(tmp_path / "runs" / "notes")
    makers = {
        "letters": (lora, lora.Config()),
        "triage": (adapter, adapter.Config()),
        "short": (prompt, prompt.Config(length=3)),
        "style": (prefix, prefix.Config(length=2)),
    }
    for name, (method, config) in makers.items():
        method.attach(gpt, config)
        method.save(gpt, tmp_path / "runs" / name, "default")
        method.detach(gpt)
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})  # the text is ours
    assert capsys.readouterr().out.count("]") == 6
