"""Task heads against transformers' on the same weights; metrics against counting."""

import pytest
import torch
import torch.nn.functional as F
from helpers import SIZES, model, randomize
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2ForSequenceClassification, OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel

from minigpt import Error, heads, metrics
from minigpt.heads import Example, Task, TaskConfig, collate
from minigpt.loss import IGNORE
from minigpt.training.optimizer import make_groups
from minigpt.training.options import OptimizerConfig
from minigpt.tuning import adapter, freeze

V = SIZES["vocab_size"]
START, DELIMITER, EXTRACT = V, V + 1, V + 2
TEXTS = {
    "classification": [[[1, 2, 3, 4]], [[5]], [[6, 7, 8, 9, 10, 11]]],
    "entailment": [[[1, 2], [3]], [[4], [5, 6, 7, 8]], [[9, 10, 11], [12, 13]]],
    "similarity": [[[1, 2], [3]], [[4], [5, 6, 7, 8]], [[9, 10, 11], [12, 13]]],
    "choice": [[[1, 2], [3], [4, 5, 6]], [[7], [8, 9], [10], [11, 12, 13]], [[14, 15], [16], [17, 18, 19, 20]]],
}
LABELS = [1, 0, 1]


def made(task="classification", kind="gpt1", **changes):
    gpt = model(kind, std=0.2)
    return randomize(Task(gpt, TaskConfig(task=task, **changes)), 0.2).eval()


def batch(task, side="right", rows=slice(None)):
    examples = [Example(texts, label) for texts, label in zip(TEXTS[task], LABELS, strict=True)]
    return collate(task, examples[rows], V, side)


def in_transformers(task, kind):
    """Our weights in their model: the embedding has three more rows, and one for padding, which nothing reads."""
    d, sizes = SIZES["d_model"], {"n_positions": SIZES["context"], "n_layer": 2, "n_head": 4}
    sizes |= {"bos_token_id": None, "eos_token_id": None}
    rows = torch.cat((task.gpt.token_embedding.weight, task.words.weight, torch.full((1, d), 9.0)))
    if kind == "gpt1":
        shape = OpenAIGPTConfig(vocab_size=V + 3, n_embd=d, afn="gelu", **sizes)
        theirs, rows = OpenAIGPTDoubleHeadsModel(shape).eval(), rows[:-1]
        head = theirs.multiple_choice_head.summary
        head.bias.data = task.head.bias.data
    else:
        shape = GPT2Config(vocab_size=V + 4, n_embd=d, num_labels=len(task.head.weight), pad_token_id=V + 3, **sizes)
        theirs = GPT2ForSequenceClassification(shape).eval()
        head, task.head.bias.data[:] = theirs.score, 0.0
    head.weight.data = task.head.weight.data
    weights = {}
    for entry in task.gpt.checkpoint_layout():
        parts = [task.gpt.get_parameter(name) for name in entry.ours]
        whole = torch.cat(parts)
        weights[entry.name] = whole.T if entry.transposed else whole
    name = "tokens_embed.weight" if kind == "gpt1" else "wte.weight"
    weights = {key.removeprefix("transformer."): tensor.detach().contiguous() for key, tensor in weights.items()}
    weights.pop("lm_head.weight", None)
    theirs.transformer.load_state_dict(weights | {name: rows.detach()}, strict=True)
    theirs.tie_weights()
    return theirs


def test_choice_is_transformers_double_heads():
    """Logits, both losses and the gradients of their sum, on rows of unequal length."""
    task, given = made("choice"), batch("choice", rows=slice(0, 3, 2))
    theirs = in_transformers(task, "gpt1")
    targets = given.tokens.masked_fill(~given.keep, IGNORE)
    truth = theirs(
        given.tokens, mc_token_ids=given.keep.sum(-1) - 1, labels=targets, mc_labels=given.labels
    )  # right padding needs no mask in a causal model
    torch.testing.assert_close(task(given), truth.mc_logits, atol=1e-5, rtol=0)
    l2, l1 = task.losses(given)
    torch.testing.assert_close(l2, truth.mc_loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(l1, truth.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(task.loss(given), l2 + 0.5 * l1)
    task.loss(given).backward()
    (truth.mc_loss + 0.5 * truth.loss).backward()
    rows = torch.cat((task.gpt.token_embedding.weight.grad, task.words.weight.grad))
    torch.testing.assert_close(rows, theirs.transformer.tokens_embed.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        task.head.weight.grad, theirs.multiple_choice_head.summary.weight.grad, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["classification", "entailment"])
def test_classes_are_transformers_sequence_classification(name):
    task, given = made(name, "gpt2", classes=3), batch(name)
    theirs = in_transformers(task, "gpt2")
    tokens = given.tokens[:, 0].masked_fill(~given.keep[:, 0], V + 3)
    truth = theirs(tokens, labels=given.labels)
    torch.testing.assert_close(task(given), truth.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(task.losses(given)[0], truth.loss, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lm_mean", ["token", "sequence"])
@pytest.mark.parametrize("name", list(TEXTS))
def test_every_task_is_its_formula(name, lm_mean):
    """One sequence at a time, without padding, with a model whose vocabulary is really three larger."""
    task, given = made(name, classes=3, lm_mean=lm_mean), batch(name)
    larger = model("gpt1", vocab_size=V + 3)
    weights = task.gpt.state_dict()
    rows = torch.cat((weights["token_embedding.weight"], task.words.weight.detach()))
    larger.load_state_dict(weights | {"token_embedding.weight": rows, "head.weight": rows})
    l1, scores = [], []
    for texts in TEXTS[name]:
        first, rest = texts[0], texts[1:]
        read = [[START, *first, DELIMITER, *other, EXTRACT] for other in rest] or [[START, *first, EXTRACT]]
        read += [[START, *rest[0], DELIMITER, *first, EXTRACT]] if name == "similarity" else []
        h = [larger.hidden(torch.tensor([row]))[0] for row in read]
        for x, row in zip(h, read, strict=True):
            l1.append(F.cross_entropy(larger.head(x[:-1]), torch.tensor(row[1:]), reduction="none"))
        if name == "choice":
            scores.append(torch.stack([(task.head.weight @ x[-1] + task.head.bias)[0] for x in h]))
        else:
            scores.append(task.head.weight @ sum(x[-1] for x in h) + task.head.bias)
    found, truth = task(given), scores
    for row, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)
        assert (row[len(expected) :] == -torch.inf).all()
    l2 = torch.stack([-expected.log_softmax(-1)[label] for expected, label in zip(truth, LABELS, strict=True)]).mean()
    means = torch.cat(l1).mean() if lm_mean == "token" else torch.stack([each.mean() for each in l1]).mean()
    torch.testing.assert_close(task.losses(given), (l2, means), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["gpt1", "gpt2", "gpt3", "llama"])
@pytest.mark.parametrize("name", list(TEXTS))
def test_padding_on_either_side_is_none(name, kind):
    """Whatever the pads hold, an extract token included."""
    task = made(name, kind)
    alone = [task(batch(name, rows=slice(i, i + 1)))[0] for i in range(3)]
    lm = {}
    for side in ("left", "right"):
        given = batch(name, side)
        given.tokens.masked_fill_(~given.keep, EXTRACT)
        for row, expected in zip(task(given), alone, strict=True):
            torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=0)
        lm[side] = task.loss(given)
    torch.testing.assert_close(lm["left"], lm["right"], atol=1e-5, rtol=0)


def test_similarity_does_not_ask_who_came_first():
    task = made("similarity")
    one, other = (collate("similarity", [Example(t[::o]) for t in TEXTS["similarity"]], V) for o in (1, -1))
    torch.testing.assert_close(task(one), task(other), atol=1e-6, rtol=0)


def test_answers_permuted_are_probabilities_permuted():
    task, texts = made("choice"), [[1, 2], [3], [4, 5, 6], [7, 8]]
    p = task(collate("choice", [Example(texts)], V)).softmax(-1)
    order = [2, 0, 1]
    again = task(collate("choice", [Example([texts[0], *(texts[1 + i] for i in order)])], V)).softmax(-1)
    torch.testing.assert_close(again, p[:, order], atol=1e-6, rtol=0)


def test_lambda_zero_is_the_task_alone():
    given = batch("classification")
    task = made(lm_weight=0.0)
    loss = task.loss(given)
    assert torch.equal(loss, F.cross_entropy(task(given), given.labels)) and task.losses(given)[1] is None
    loss.backward()
    assert not task.words.weight.grad[1].any(), "no delimiter is read"


def test_new_numbers_are_k_c_and_k_and_3_c(tmp_path):
    """With the GPT frozen only they learn, its bits stay; only they are stored."""
    task, given = made(classes=3).train(), batch("classification")
    freeze.freeze(task.gpt, "none")
    report = heads.report(task)
    assert report.parameters == 3 * 32 + 3 + 3 * 32 and report.stored == 4 * report.parameters
    before = {name: weight.detach().clone() for name, weight in task.gpt.named_parameters()}
    groups = make_groups(task, OptimizerConfig())
    assert {g["name"]: sum(p.numel() for p in g["params"]) for g in groups} == {"embeddings": 192, "vectors": 3}
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.05, weight_decay=0.1)
    first = task.eval().loss(given).item()
    for _ in range(10):
        task.train().loss(given).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.eval().loss(given) < 0.8 * first
    assert all(torch.equal(before[name], weight) for name, weight in task.gpt.named_parameters())
    heads.save(task, tmp_path)
    assert sum(t.nbytes for t in load_file(tmp_path / "task_model.safetensors").values()) == report.stored
    again = heads.load(task.gpt, tmp_path, lm_weight=0.1)
    assert torch.equal(again(given), task(given)) and again.config.lm_weight == 0.1
    with pytest.raises(Error, match="head.weight is \\(3, 32\\) float32, expected \\(3, 16\\)"):
        heads.load(model(d_model=16), tmp_path)


def test_with_adapters_only_they_and_the_head_learn():
    task, given = made(), batch("classification")
    without = task(given)
    adapter.attach(task.gpt, adapter.AdapterConfig(bottleneck=4))
    task.loss(given).backward()
    assert {name.split(".")[0] for name, p in task.named_parameters() if p.grad is None} == {"gpt"}
    assert all(p.grad is not None for name, p in task.named_parameters() if ".adapters." in name)
    adapter.use(task.gpt, None)
    assert torch.equal(task(given), without)


def test_evaluate_counts_the_answers():
    for name in ("classification", "choice"):
        task, given = made(name).train(), batch(name)
        answers = task.eval()(given).argmax(-1).tolist()
        scores = heads.evaluate(task.train(), [batch(name, rows=slice(0, 2)), batch(name, rows=slice(2, 3))])
        assert task.training
        assert scores.accuracy == pytest.approx(sum(a == b for a, b in zip(answers, LABELS, strict=True)) / 3)


def test_metrics_are_counts():
    """Against counting by definition, with a class that never occurs and one that is never right."""
    g = torch.Generator().manual_seed(1)
    labels, answers = (torch.randint(0, 4, (60,), generator=g) for _ in range(2))
    labels[labels == 3], answers = 0, answers.where(torch.rand(60, generator=g) > 0.4, labels)
    labels[0], answers[answers == 2] = 2, 1
    pairs = list(zip(labels.tolist(), answers.tolist(), strict=True))
    scores = metrics.Scores(metrics.confusion(labels, answers, 6))
    for t in range(6):
        for p in range(6):
            assert scores.matrix[t, p] == pairs.count((t, p))
    f1 = []
    for k in range(6):
        hits, named, real = pairs.count((k, k)), sum(p == k for _, p in pairs), sum(t == k for t, _ in pairs)
        precision, recall = hits / named if named else 0.0, hits / real if real else 0.0
        value = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        f1.append(value if named or real else None)
    assert scores.f1 == [None if v is None else pytest.approx(v) for v in f1]
    assert None in f1 and 0.0 in f1
    found = [v for v in f1 if v is not None]
    assert scores.macro_f1 == pytest.approx(sum(found) / len(found))
    assert scores.accuracy == pytest.approx(sum(t == p for t, p in pairs) / 60)
    assert "of 60 examples" in str(scores)


def test_the_picture_shows_counts_and_names_as_they_are():
    svg = metrics.draw(torch.tensor([[12345, 1], [0, 2]]), ["<b>$x", "good"])
    assert (
        "12,345" in svg
        and "&lt;b&gt;$x" in svg
        and svg == metrics.draw(torch.tensor([[12345, 1], [0, 2]]), ["<b>$x", "good"])
    )


@pytest.mark.parametrize("wrong, message", [
    (lambda: TaskConfig(task="choise"), "did you mean 'choice'"),
    (lambda: TaskConfig(classes=1), "at least 2"),
    (lambda: TaskConfig(lm_mean="example"), "'token' or 'sequence'"),
    (lambda: TaskConfig(lm_weight=-1), "from 0"),
    (lambda: collate("entailment", [Example([[1]])], V), "has 1 texts: give 2"),
    (lambda: collate("choice", [Example([[1], [2]])], V), "two or more answers"),
    (lambda: collate("classification", [Example([[V]])], V), "outside of 0 to 60"),
    (lambda: collate("classification", [Example([[1]])], V, "top"), "'left' or 'right'"),
    (lambda: made()(collate("classification", [Example([[1] * 23])], V)), "shorten the input"),
    (lambda: made()(collate("classification", [Example([[1]])], V - 1)), "no extract token"),
    (lambda: metrics.confusion([0, 2], [0, 1], 2), "a label is 2: classes are 0 to 1"),
    (lambda: metrics.confusion([0, 2], [0], 2), "N of each"),
    (lambda: metrics.draw(torch.eye(2), ["a"]), "one for each"),
])  # fmt: skip
def test_wrong_use_is_an_error_that_says_what_is_right(wrong, message):
    with pytest.raises(Error, match=message):
        wrong()
