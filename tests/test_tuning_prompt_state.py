"""Soft prompts as part of a model: what learns, what is kept, what is refused."""

import copy

import pytest
import torch

from minigpt import Error, hub
from minigpt.corpus.batches import Batch
from minigpt.generation import beam_search, generate, penalties, score, speculate
from minigpt.generation.search import Running
from minigpt.loss import IGNORE, cross_entropy
from minigpt.tuning import extended, prompt, ptuning
from tests import helpers

V = helpers.SIZES["vocab_size"]


def hold(model, *lengths) -> list[str]:
    for n, length in enumerate(lengths):
        prompt.attach(model, prompt.PromptConfig(length=length, start="uniform", scale=2.0, seed=n), name=f"task{n}")
    return prompt.names(model)


def test_the_model_is_as_before_when_the_last_prompt_is_gone(tmp_path):
    model = helpers.model(std=0.3)
    model.save_pretrained(tmp_path / "before")
    embedding, before = model.token_embedding, copy.deepcopy(model.state_dict())
    hold(model, 3, 2)
    assert model.head.weight is model.token_embedding.weight and model.head.weight.shape == (V, 32)
    assert model.state_dict().keys() - before.keys() == {f"token_embedding.prompts.task{n}.table" for n in (0, 1)}
    with pytest.raises(Error, match="prompts.task0.table is not as GPT makes it: merge or detach"):
        hub.save(model, tmp_path / "held")
    assert not (tmp_path / "held").exists()
    twin = copy.deepcopy(model)
    prompt.detach(model)
    assert model.token_embedding is embedding and model.head.weight is embedding.weight
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    model.save_pretrained(tmp_path / "after")
    file = "model.safetensors"
    assert (tmp_path / "after" / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
    assert prompt.names(twin) == ["task0", "task1"]
    twin.double()
    prompt.detach(twin)
    assert twin.token_embedding.weight.dtype == torch.float64 and twin.head.weight is twin.token_embedding.weight


def test_ids_stay_with_their_prompt():
    model = helpers.model(std=0.3)
    hold(model, 3, 2, 4)
    ids = prompt.ids(model, "task2")
    assert prompt.ids(model, "task0") == [V, V + 1, V + 2] and ids == [V + 5, V + 6, V + 7, V + 8]
    logits = model(torch.tensor([[*ids, 1]]))
    prompt.detach(model, "task1")
    assert prompt.ids(model, "task2") == ids and torch.equal(model(torch.tensor([[*ids, 1]])), logits)
    assert model(torch.tensor([[V + 3, 1]])).isnan().all()
    for gone in (V + 3, V + 9, -1):
        with pytest.raises(Error, match=f"prompt 0: token {gone} is not in the model's vocabulary"):
            generate(model, [[gone, 1]], 2)
    with pytest.raises(Error, match="did you mean 'task2'"):
        prompt.ids(model, "task3")
    prompt.detach(model, "task2")
    assert prompt.attach(model, prompt.PromptConfig(length=1), "new") and prompt.ids(model, "new") == [V + 3]
    with pytest.raises(Error, match="eos: token 61"):
        generate(model, [[1]], 2, eos=V)


def test_only_the_newest_prompt_learns_unless_told_otherwise():
    model = helpers.model(std=0.3)
    hold(model, 3, 2)

    def learning():
        return {name for name, weight in model.named_parameters() if weight.requires_grad}

    assert learning() == {"token_embedding.prompts.task1.table"}
    prompt.learn(model, "task0", "task1")
    assert learning() == {f"token_embedding.prompts.task{n}.table" for n in (0, 1)}
    mixed = torch.tensor([prompt.ids(model, "task0")[:2] + [4], prompt.ids(model, "task1") + [5]])
    model(mixed).sum().backward()
    grads = [extended.rows_of(model, f"task{n}").table.grad for n in (0, 1)]
    assert grads[0][:2].any(1).all() and not grads[0][2].any() and grads[1].any(1).all()
    assert model.token_embedding.weight.grad is None


def test_numbers_that_learn_are_those_of_the_papers():
    with torch.device("meta"):
        encoder = ptuning.Encoder(ptuning.PTuningConfig(length=9), 768)
    assert sum(p.numel() for p in encoder.parameters()) == 9 * 768 + 14 * 768**2 + 18 * 768 == 8_278_272
    model = helpers.model()
    base = sum(p.numel() for p in model.parameters())
    found = ptuning.attach(model, ptuning.PTuningConfig(length=5, encoder="mlp", hidden=24))
    assert (found.parameters, found.stored, found.base) == (5 * 32 + 2 * 32 * 24 + 24**2 + 2 * 24 + 32, 640, base)
    found = prompt.attach(model, prompt.PromptConfig(length=7), name="plain")
    assert (found.parameters, found.stored) == (224, 896)


def test_what_a_prompt_starts_from():
    weight = torch.randn(V, 8)

    def start(**fields):
        return prompt.start(weight, prompt.PromptConfig(**fields))

    state = torch.get_rng_state()
    drawn = start(length=20, among=30)
    found = [int((weight == row).all(1).nonzero()) for row in drawn]
    assert len(set(found)) == 20 and max(found) < 30
    assert torch.equal(drawn, start(length=20, among=30)) and not torch.equal(drawn, start(length=20, among=30, seed=1))
    uniform = start(length=500, start="uniform", scale=0.25)
    assert -0.25 <= uniform.min() < -0.24 and 0.24 < uniform.max() < 0.25
    labels = start(length=4, start="labels", labels=((3,), (4, 5)))
    assert torch.equal(labels[0], weight[3]) and torch.allclose(labels[1], (weight[4] + weight[5]) / 2)
    assert torch.equal(labels[2:], start(length=2))
    ptuning.attach(helpers.model(), ptuning.PTuningConfig(length=2))
    torch.set_rng_state(state)
    helpers.model()
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    ptuning.attach(helpers.model(), ptuning.PTuningConfig(length=2))
    assert torch.equal(torch.get_rng_state(), after)


def test_a_bfloat16_base_has_float32_prompts():
    model = helpers.model(dtype=torch.bfloat16)
    prompt.attach(model, prompt.PromptConfig(length=3))
    assert extended.rows_of(model, "default").table.dtype == torch.float32
    logits = model(torch.tensor([prompt.with_prompt(model, [1, 2])]))
    logits.sum().backward()
    assert logits.dtype == torch.bfloat16 and extended.rows_of(model, "default").table.grad.any()


def test_a_mixed_training_batch_is_the_sum_of_its_rows():
    model = helpers.model(std=0.3)
    hold(model, 3, 5)
    tokens, targets = helpers.tokens(3, 6), helpers.tokens(3, 6)
    batch = Batch(tokens, targets, None, None, 18)
    rows = [Batch(tokens[n : n + 1], targets[n : n + 1], None, None, 6) for n in range(3)]

    def total(read):
        return cross_entropy(model.hidden(read.tokens, positions=read.positions), model.head, read.targets, "sum")

    for shift in (True, False):
        names = ["task0", "task1", None]
        read = prompt.prepend(model, batch, names, shift)
        assert read.tokens.shape == (3, 11) and (read.targets != IGNORE).sum() == 18 == read.n_targets
        alone = sum(total(prompt.prepend(model, row, name, shift)) for row, name in zip(rows, names, strict=True))
        assert torch.allclose(total(read), alone, rtol=1e-5)
    with pytest.raises(Error, match="2 prompts are named for a batch of 3 rows"):
        prompt.prepend(model, batch, ["task0", "task1"])
    packed = Batch(tokens, targets, None, torch.zeros_like(tokens), 18)
    with pytest.raises(Error, match="put the prompt into each before packing"):
        prompt.prepend(model, packed, "task0")


def test_a_prompt_and_a_text_must_fit_the_context():
    model = helpers.model()
    hold(model, 4)
    assert len(prompt.with_prompt(model, [1] * 20, "task0")) == 24
    with pytest.raises(Error, match=r"4 virtual tokens and a text of 21 are 25.* shorten the text to 20 tokens"):
        prompt.with_prompt(model, [1] * 21, "task0")
    batch = Batch(helpers.tokens(1, 21), helpers.tokens(1, 21), None, None, 21)
    with pytest.raises(Error, match="shorten the text to 20 tokens"):
        prompt.prepend(model, batch, "task0")
    with pytest.raises(Error, match="24 virtual tokens leave no room in the context of 24"):
        prompt.attach(model, prompt.PromptConfig(length=24))


def test_virtual_tokens_are_read_and_never_written_punished_or_scored():
    model = helpers.model(std=0.3)
    hold(model, 3)
    row, z = prompt.with_prompt(model, [7, 8, 7], "task0"), torch.randn(1, V)
    seen, virtual = Running([7, 8, 7], 3), Running([V, V + 1, V, V + 1, 7, 8, 7], 7)
    assert torch.equal(penalties.repetition(z, [virtual], 2.0), penalties.repetition(z, [seen], 2.0))
    for n in (1, 2):
        assert torch.equal(penalties.no_repeat_ngram(z, [virtual], n), penalties.no_repeat_ngram(z, [seen], n))
    assert torch.equal(penalties.no_repeat_ngram(z, [Running([5, V, 5], 3)], 2), z)
    options = {"repetition_penalty": 1.5, "no_repeat_ngram": 1, "frequency_penalty": 0.5, "presence_penalty": 0.5}
    (new,) = generate(model, [row], 8, temperature=0, **options)
    (beam,) = beam_search(model, [row], 1, max_new_tokens=8, **options)[0]
    assert len({*new, 7, 8}) == 10 and max(new) < V and max(beam.tokens) < V
    wanted = model(torch.tensor([row])).log_softmax(-1)
    (found,) = score(model, [row], [4])
    assert found.logprobs == pytest.approx([wanted[0, 3, 8].item(), wanted[0, 4, 7].item()], abs=1e-5)
    with pytest.raises(Error, match="62 is a virtual token|63 is a virtual token"):
        score(model, [row], [1])
    assert speculate(model, model, row, 8, temperature=0).tokens == generate(model, [row], 8, temperature=0)[0]
    with pytest.raises(Error, match="prompt 0, for the draft: token 61"):
        speculate(model, helpers.model(), row, 8)
