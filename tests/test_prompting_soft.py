"""A soft prompt before instruction and examples: the batch by hand, prompt tuning as k = 0, and mixtures in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from minigpt import Error
from minigpt.corpus.batches import Batch
from minigpt.generation.scoring import score
from minigpt.loss import IGNORE, cross_entropy
from minigpt.prompting import Builder, Example, Template
from minigpt.prompting.retrieval import TfIdf, demonstrated
from minigpt.prompting.soft import answer_batch, mixture, tuning_batch
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import prompt
from tests import helpers

TOKENIZER = Tokenizer.train(["cough", "咳嗽"], 300)
POOL = [
    Example("dry cough", "lung"),
    Example("night cough, fever", "lung"),
    Example("chest pain", "heart"),
    Example("pain in the chest on stairs", "heart"),
    Example("咳嗽三天", "lung"),
]
BUILDER = Builder(TOKENIZER, Template(task="Which organ?", question="{text} ->"), ["heart", "lung"])


def a_model(length: int = 3, **changes):
    sizes = {"vocab_size": TOKENIZER.vocab_size, "context": 128} | changes
    model = helpers.model(std=0.2, **sizes)
    prompt.attach(model, prompt.PromptConfig(length=length, start="uniform"))
    return model


def rows(k: int):
    return list(demonstrated(POOL, POOL, TfIdf([each.text for each in POOL]), k))


def loss_of(model, batch):
    hidden = model.hidden(batch.tokens, positions=batch.positions)
    return cross_entropy(hidden, model.head, batch.targets)


def trained(model, batch, steps: int = 5):
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    return model


def test_the_nearest_example_stands_last_and_none_is_the_query():
    for asked, shown in rows(3):
        assert len(shown) == 3 and asked not in shown
    assert [each.text for each in rows(2)[0][1]] == ["chest pain", "night cough, fever"]


@pytest.mark.parametrize("shift", [True, False])
def test_the_batch_is_prompt_instruction_examples_question_and_answer(shift):
    model = a_model()
    found = tuning_batch(model, BUILDER, rows(2), shift=shift)
    for row, (asked, shown) in enumerate(rows(2)):
        words = ["Which organ?", "\n\n"]
        for each in shown:
            words += [f"{each.text} ->", f" {each.answer}", "\n\n"]
        text = [TOKENIZER.eot] + [i for word in [*words, f"{asked.text} ->"] for i in TOKENIZER.encode(word)]
        answer = TOKENIZER.encode(f" {asked.answer}")
        whole = [*prompt.ids(model), *text, *answer]
        assert found.tokens[row, : len(whole) - 1].tolist() == whole[:-1]
        targets = [IGNORE] * (3 + len(text) - 1) + answer
        assert found.targets[row].tolist() == targets + [IGNORE] * (found.targets.shape[1] - len(targets))
        if not shift:
            assert found.positions[row, : len(whole) - 1].tolist() == [0, 1, 2, *range(len(whole) - 4)]
    assert (found.positions is None) == shift
    assert found.n_targets == sum(len(TOKENIZER.encode(f" {each.answer}")) for each in POOL)


def test_the_loss_is_that_of_the_answers():
    model = a_model()
    given, texts = [], []
    for asked, shown in rows(2):
        ids = [*prompt.ids(model), *BUILDER.build(asked.text, shown).ids]
        given.append(len(ids))
        texts.append(ids + TOKENIZER.encode(f" {asked.answer}"))
    found = score(model, texts, given)
    expected = -sum(each.total for each in found) / sum(len(each.logprobs) for each in found)
    assert loss_of(model, tuning_batch(model, BUILDER, rows(2))).item() == pytest.approx(expected, abs=1e-5)


def test_without_examples_it_is_prompt_tuning():
    """The same batch as by hand, and after five steps the same bits."""
    model = a_model()
    texts = [
        ([TOKENIZER.eot] + [i for word in ("Which organ?", "\n\n", f"{each.text} ->") for i in TOKENIZER.encode(word)],
         TOKENIZER.encode(f" {each.answer}"))
        for each in POOL
    ]  # fmt: skip
    width = max(len(text) + len(answer) for text, answer in texts)
    tokens, targets = torch.zeros(5, width, dtype=torch.int64), torch.full((5, width), IGNORE)
    for row, (text, answer) in enumerate(texts):
        tokens[row, : len(text) + len(answer) - 1] = torch.tensor(text + answer[:-1])  # the last is never read
        targets[row, len(text) : len(text) + len(answer)] = torch.tensor(answer)
    plain = Batch(tokens[:, :-1], targets[:, 1:], None, None, int((targets != IGNORE).sum()))
    plain = prompt.prepend(model, plain)
    found = tuning_batch(model, BUILDER, rows(0))
    assert torch.equal(found.tokens, plain.tokens) and torch.equal(found.targets, plain.targets)
    assert found.n_targets == plain.n_targets
    one, other = trained(copy.deepcopy(model), found), trained(copy.deepcopy(model), plain)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_table_is_the_only_tensor_that_changes():
    model = a_model()
    before = copy.deepcopy(model.state_dict())
    batch = tuning_batch(model, BUILDER, rows(2))
    first = loss_of(model, batch).item()
    trained(model, batch, steps=10)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"token_embedding.prompts.default.table"}
    assert loss_of(model, batch).item() < first


def test_examples_are_dropped_until_prompt_and_answer_fit():
    fit = len(BUILDER.build("pain in the chest on stairs").ids) + 3 + len(TOKENIZER.encode(" heart")) - 1
    model = a_model(context=fit)
    found = tuning_batch(model, BUILDER, rows(4))
    assert found.tokens.shape[1] == fit  # the longest question, alone
    loss_of(model, found)
    with pytest.raises(Error, match="the prompt may have"):
        tuning_batch(a_model(context=fit - 1), BUILDER, rows(4))
    assert answer_batch(BUILDER, rows(4)).tokens.shape[1] > fit  # no room given, none kept
    with pytest.raises(Error, match="no rows"):
        answer_batch(BUILDER, [])


@pytest.mark.parametrize("weights", [None, [0.7, 0.2, 0.1]])
def test_a_mixture_is_the_weighted_mean_of_probabilities(weights):
    model, text, answers = a_model(), [5, 9, 3], [[7], [8, 1], [2, 2, 2]]
    prompt.attach(model, prompt.PromptConfig(length=1, start="uniform", scale=3.0, seed=1), name="b")
    prompt.attach(model, prompt.PromptConfig(length=5, start="uniform", scale=3.0, seed=2), name="c")
    names, expected = ["default", "b", "c"], torch.zeros(3, dtype=torch.float64)
    wide = copy.deepcopy(model).double()
    for name, weight in zip(names, weights or [1 / 3] * 3, strict=True):
        for place, answer in enumerate(answers):
            ids = torch.tensor([prompt.ids(model, name) + text + answer])
            logits = wide(ids[:, :-1])[0, -len(answer) :]
            logp = -F.cross_entropy(logits, torch.tensor(answer), reduction="sum")
            expected[place] += weight * logp.exp().item()
    found = mixture(model, text, answers, names, weights)
    assert torch.tensor(found).exp().tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_mixture_of_one_is_that_one():
    model = a_model()
    alone = score(model, [[*prompt.ids(model), 5, 9, 7, 7]], [5])[0].total
    assert mixture(model, [5, 9], [[7, 7]], ["default"]) == pytest.approx([alone], abs=1e-5)


@pytest.mark.parametrize("names, weights", [([], None), (["default"], [0.5]), (["default"], [1, 0]), (["x"], None)])
def test_mixtures_that_cannot_be(names, weights):
    with pytest.raises(Error):
        mixture(a_model(), [5], [[7]], names, weights)
