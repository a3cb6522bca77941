"""train.py --task: records with an answer, the loss that is asked of them, and how it is judged."""

import csv
import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import model, randomize
from hypothesis import given
from hypothesis import strategies as st
from runs import RARELY, SHAPE, SMALL, labelled_notes, records, train, without_pictures, write_lines

from minigpt import Error, heads
from minigpt.corpus import labelled
from minigpt.corpus.documents import Documents
from minigpt.corpus.labelled import Labels, TaskBatches
from minigpt.corpus.split import plan_split, unique
from minigpt.heads import Example, Task, TaskConfig, collate
from minigpt.inputs import sequences
from minigpt.training.checkpoint import Progress
from minigpt.training.compute import Compute
from minigpt.training.loop import Hooks, fit, train_step
from minigpt.training.objective import TaskLoss
from minigpt.training.options import LoopConfig
from minigpt.training.tasks import Tasks, judge
from minigpt.tuning import prompt, ptuning

V = 61
TASKS = ("classification", "entailment", "similarity", "choice")


def examples(task: str, count: int = 11) -> list[Example]:
    """Texts of very unequal lengths: a mean of means would be far off."""
    draw, made = torch.Generator().manual_seed(0), []

    def text(most: int) -> list[int]:
        length = int(torch.randint(1, most, (1,), generator=draw))
        return torch.randint(V, (length,), generator=draw).tolist()

    for i in range(count):
        n = {"classification": 1, "entailment": 2, "similarity": 2, "choice": 3 + i % 2}[task]
        made.append(Example([text(8) for _ in range(n)], i % 2))
    return made


def task_of(name: str, kind: str = "gpt2", **changes) -> Task:
    torch.manual_seed(0)
    return randomize(Task(model(kind), TaskConfig(task=name, dropout=0.0, **changes)), 0.2)


def gradients(task: Task, batches, accumulate: int, ranks=None) -> dict[str, torch.Tensor]:
    """What one step adds up, seen through an optimizer that changes nothing; and its loss."""
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self):
            seen.update({name: w.grad.clone() for name, w in task.named_parameters() if w.grad is not None})

    compute = Compute(task.gpt, objective=TaskLoss(task))
    loop = LoopConfig(steps=1, accumulate=accumulate)
    loss, *_ = train_step(task, Spy(task.parameters(), lr=0.0), batches, loop, 0, 0.0, 0.0, compute)
    return seen | {"loss": torch.tensor(loss)}


def by_formula(task: Task, rows: list[Example]) -> torch.Tensor:
    """L2 + lambda L1 in plain steps, one sequence at a time: means over examples and over tokens."""
    answers, nats, tokens = [], [], 0
    for row in rows:
        vectors = []
        for ids in sequences(task.config.task, row.texts, V):
            read = torch.cat((task.gpt.token_embedding.weight, task.words.weight))[torch.tensor([ids])]
            hidden = task.gpt.hidden(embeds=read)
            logits = F.linear(hidden[0, :-1], torch.cat((task.gpt.head.weight, task.words.weight)))
            nats.append(F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum"))
            tokens += len(ids) - 1
            vectors.append(hidden[0, -1])
        stacked = torch.stack(vectors)
        choice = task.config.task == "choice"
        scores = task.head(stacked)[:, 0] if choice else task.head(stacked.sum(0))
        answers.append(F.cross_entropy(scores[None], torch.tensor([row.label])))
    return torch.stack(answers).mean() + task.config.lm_weight * sum(nats) / tokens


@pytest.mark.parametrize("name", TASKS)
def test_a_step_of_2_by_4_examples_is_one_of_8_and_that_of_the_formula(name):
    task, rows = task_of(name), examples(name, 8)
    rows[7:] = []  # seven: the second micro-batch is shorter
    whole, parts = (
        gradients(task, TaskBatches(name, rows, size, 0, V, shuffle=False), accumulate)
        for size, accumulate in ((8, 1), (4, 2))
    )
    task.zero_grad()
    loss = by_formula(task, rows)
    loss.backward()
    wanted = {name: w.grad for name, w in task.named_parameters()} | {"loss": loss.detach()}
    for key, gradient in wanted.items():
        torch.testing.assert_close(whole[key], gradient, atol=2e-6, rtol=1e-5, msg=key)
        torch.testing.assert_close(parts[key], whole[key], atol=1e-6, rtol=1e-5, msg=key)


def test_without_lm_weight_the_next_token_is_not_asked_and_a_blank_counts_nowhere():
    task = task_of("classification", lm_weight=0.0)
    given = collate("classification", examples("classification", 4), V)
    assert task.counts(given) == (4,) and len(task.sums(given)) == 1
    task = task_of("classification")
    assert task.counts(given.blank()) == (0, 0)
    assert [part.item() for part in task.sums(given.blank())] == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", [prompt, ptuning])
def test_virtual_tokens_stand_before_the_start_and_nothing_is_asked_of_them(kind, method):
    """Against vectors put together by hand: the prompt's rows, then the words and the text."""
    gpt = model(kind, std=0.2)
    config = prompt.PromptConfig(length=3) if method is prompt else ptuning.PTuningConfig(length=3, hidden=4)
    method.attach(gpt, config)
    task = randomize(Task(gpt, TaskConfig(dropout=0.0)), 0.2).eval()
    row = Example([[5, 6, 7]], 1)
    given = collate("classification", [row, Example([[1, 2, 3, 4, 5]], 0)], V)
    given = given.prepended([token + 3 for token in prompt.ids(gpt)])
    rows = gpt.token_embedding.learned()
    words = torch.cat((gpt.token_embedding.weight, task.words.weight))[torch.tensor([V, 5, 6, 7, V + 2])]
    hidden = gpt.hidden(embeds=torch.cat((rows, words))[None])[0]
    torch.testing.assert_close(task(given)[0], task.head(hidden[-1]), atol=1e-5, rtol=1e-5)
    logits = F.linear(hidden[3:7], torch.cat((gpt.head.weight, task.words.weight)))
    lm = F.cross_entropy(logits, torch.tensor([5, 6, 7, V + 2]), reduction="sum")
    alone = collate("classification", [row], V).prepended([token + 3 for token in prompt.ids(gpt)])
    assert task.counts(alone) == (1, 4)
    torch.testing.assert_close(task.sums(alone)[1], lm, atol=1e-4, rtol=1e-5)


# --- records -----------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".jsonl":
        return write_lines(path, rows)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


FIELDS = {
    "classification": ("kind", ()),
    "entailment": ("kind", ("other",)),
    "choice": ("right", ("answers",)),
}


@pytest.mark.parametrize("task", FIELDS)
def test_the_same_records_of_every_kind_of_file(task, tmp_path):
    label, others = FIELDS[task]
    found = [
        labelled.read(Labels(write(tmp_path / f"n.{kind}", labelled_notes()), task, "text", label, others), 0.3)
        for kind in ("jsonl", "csv", "parquet")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].names == (() if task == "choice" else ("a", "b", "c"))
    assert len(found[0].training) + len(found[0].validation) == 40


def test_a_record_stays_where_its_text_stays_as_a_note(tmp_path):
    """As split.py decides for notes, by a hash of the first text: whatever the label, the pair, or the neighbours."""
    rows = labelled_notes(60)
    rows += [row | {"other": "another hypothesis", "kind": "a"} for row in rows[:20]]
    path = write_lines(tmp_path / "n.jsonl", rows)
    found = labelled.read(Labels(path, "entailment", "text", "kind", ("other",)), 0.3)
    held = {record.texts[0] for record in found.validation}
    assert held and not held & {record.texts[0] for record in found.training}
    digests = {text: hashlib.blake2b(text.encode(), digest_size=16).digest() for text in {row["text"] for row in rows}}
    assert held == {text for text, digest in digests.items() if int.from_bytes(digest[:8], "big") < 0.3 * 2**64}
    documents = Documents(path, "text")
    notes = unique(documents, plan_split(documents, 0.3, False), "", False)
    assert held == {text for side, text in notes if side == "val"}
    fewer = labelled.read(Labels(write_lines(path, rows[::2]), "entailment", "text", "kind", ("other",)), 0.3)
    assert {record.texts[0] for record in fewer.validation} <= held


def test_bad_records_are_counted_with_their_lines_or_refused(tmp_path):
    good = labelled_notes(12)
    bad = [good[0] | {"kind": None}, good[0] | {"kind": " "}, good[0] | {"kind": [1]}, {"text": "no kind"}]
    path = write_lines(tmp_path / "n.jsonl", [*good, *bad, good[0]])
    reader = Labels(path, "classification", "text", "kind", ())
    found = labelled.read(reader, 0.3)
    assert len(found.training) + len(found.validation) == 12 and found.duplicates == 1
    reasons = {"no field 'kind'": 2, "the label is empty": 1, "the label is list": 1}
    assert dict(reader.bad.counts) == reasons and reader.bad.first[0] == f"{path}:13: no field 'kind'"
    with pytest.raises(Error, match="13: no field 'kind': mend it"):
        labelled.read(Labels(path, "classification", "text", "kind", (), on_bad="refuse"), 0.3)


@pytest.mark.parametrize(
    ("value", "answers", "right"),
    [(1, ["x", "y"], "1"), ("y", ["x", "y"], "1"), ("1", ["x", "y"], "1"), (1, ["1", "0"], "1"), ("1", ["1", "0"], "0"),
     (2, ["x", "y"], None), ("z", ["x", "y"], None), (0, ["x"], None), (0, "x", None), (0, ["x", ""], None)],
)  # fmt: skip
def test_the_right_answer_is_its_number_or_itself(value, answers, right, tmp_path):
    path = write_lines(tmp_path / "n.jsonl", [{"text": "t", "right": value, "answers": answers}])
    found = [document.text for document in Labels(path, "choice", "text", "right", ("answers",))]
    assert [record.answer for record in found] == ([] if right is None else [right])


def test_classes_are_in_the_order_of_numbers_where_they_are_numbers(tmp_path):
    rows = [{"text": f"note {i}", "n": i % 11, "one": "x"} for i in range(33)]
    path = write_lines(tmp_path / "n.jsonl", rows)
    found = labelled.read(Labels(path, "classification", "text", "n", ()), 0.3)
    assert found.names == tuple(map(str, range(11)))
    with pytest.raises(Error, match="'one' is 'x' everywhere: there is nothing to tell apart"):
        labelled.read(Labels(path, "classification", "text", "one", ()), 0.3)


@given(data=st.data(), task=st.sampled_from(TASKS), room=st.integers(8, 40))
def test_what_is_cut_fits_and_what_fits_is_not_cut(data, task, room):
    n = {"classification": 1, "entailment": 2, "similarity": 2, "choice": 3}[task]
    whole = [list(range(data.draw(st.integers(1, 30)))) for _ in range(n)]
    found = labelled.cut(task, whole, room)
    rows, before = sequences(task, found, V), sequences(task, whole, V)
    assert all(len(row) <= room and row[0] == V and row[-1] == V + 2 for row in rows)
    assert all(text and text == longer[: len(text)] for text, longer in zip(found, whole, strict=True))
    if max(map(len, before)) <= room:
        assert found == whole
    elif task != "choice":
        assert max(map(len, rows)) == room, "no more is cut than must be"


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classification", "choice"])
def test_the_judge_counts_what_a_plain_count_finds(name):
    task, rows = task_of(name), examples(name)
    batches = TaskBatches(name, rows, 4, 0, V, shuffle=False)
    compute = Compute(task.gpt, objective=TaskLoss(task))
    matrix, means = judge(compute, batches, list(range(len(batches))), n_classes=3)
    found = heads.evaluate(task, [collate(name, [row], V) for row in rows]).matrix
    assert torch.equal(matrix[: len(found), : len(found)], found) and matrix.sum() == len(rows)
    with torch.no_grad():
        total = by_formula(task.eval(), rows).item()
    assert means[0] + 0.5 * means[1] == pytest.approx(total, abs=1e-5)


class Remembering:
    """A log in memory."""

    def __init__(self):
        self.evaluations = []

    def record(self, kind, step, **values):
        if kind == "eval":
            self.evaluations.append(values)

    def best(self, score):
        return min(map(score, self.evaluations), default=(math.inf,))

    def advance(self, loss, speed): ...

    def say(self, text): ...


@pytest.mark.parametrize(("every", "kept"), [(1, [1, 2, 4, 5]), (0, [6])])
def test_the_best_is_kept_by_accuracy_and_then_by_loss_or_else_the_last(every, kept):
    task, seen, log = task_of("classification"), [], Remembering()
    if not every:
        log.record("eval", 0, accuracy=0.9, loss=0.0)  # of where the run was stopped the first time
    found = iter([(0.5, 1.0), (0.6, 2.0), (0.6, 2.5), (0.6, 1.5), (0.7, 3.0), (0.6, 0.1)])
    step = [0]

    def evaluate():
        accuracy, loss = next(found)
        return {"accuracy": accuracy, "loss": loss}

    def count(number):
        step[0] = number + 1
        return 1e-9

    hooks = Hooks(count, evaluate, lambda n: "", lambda: seen.append(step[0]), lambda progress: None,
                  score=Tasks.score, say=str)  # fmt: skip
    batches = TaskBatches("classification", examples("classification"), 4, 0, V)
    compute = Compute(task.gpt, objective=TaskLoss(task))
    optimizer, loop = torch.optim.SGD(task.parameters(), lr=0.0), LoopConfig(steps=6, eval_every=every)
    fit(task, optimizer, batches, loop, hooks, log, Progress(), compute=compute)
    assert seen == kept


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "notes.jsonl", labelled_notes(90))


def test_a_new_model_learns_a_rule_and_its_page_shows_who_was_taken_for_whom(notes, tmp_path):
    run = tmp_path / "run"
    words = ["--data", notes, "--field", "text", "--task", "classify", "--label", "kind", "--out", run, *SHAPE, *SMALL]
    code, said = train(*words, "--steps", 60, "--eval-every", 20, "--save-every", 0, "--batch-size", 16, "--lr", 0.01)
    assert code == 0 and "classes     3: a " in said and "to beat     the commonest class" in said, said
    (final,) = records(run, "final")
    assert final["accuracy"] == final["macro_f1"] == 1.0 and final["examples"] == sum(map(sum, final["confusion"]))
    assert final["loss"] == pytest.approx(final["task_loss"] + 0.5 * final["lm_loss"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "rows are the truth" in page and "macro-F1" in page and "commonest class" in page and "Samples" not in page
    config = json.loads((run / "task_config.json").read_text())
    assert config["names"] == ["a", "b", "c"] and config["task"] == "classification"


@pytest.mark.parametrize(
    ("task", "words", "method"),
    [
        ("entail", ["--label", "kind", "--pair", "other"], "prompt"),
        ("similar", ["--label", "kind", "--pair", "other"], "prefix"),
        ("choice", ["--label", "right", "--choices", "answers"], "lora"),
        ("choice", ["--label", "right", "--choices", "answers"], "prompt"),
        ("instruct", ["--instruction", "text", "--output", "other"], "prompt"),
        ("instruct", ["--instruction", "text", "--output", "other", "--pack"], "lora"),
    ],
)
def test_every_task_meets_every_opening_of_the_model(task, words, method, notes, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    base, run, rest = tmp_path / "base", tmp_path / "run", [*SMALL, "--context", "64", *RARELY]
    assert train("--data", notes, "--field", "text", "--out", base, *SHAPE, *rest, "--steps", 1)[0] == 0
    field = [] if task == "instruct" else ["--field", "text"]
    rest = [*rest, "--steps", 2, "--context", "48", "--method", method]
    code, said = train("--data", notes, *field, "--task", task, *words, "--init", base, "--out", run, *rest)
    assert code == 0, said
    (final,) = records(run, "final")
    assert math.isfinite(final["loss"]) and final.get("examples", 1) and records(run, "method")[0]["method"] == method
    assert ("accuracy" in final) == (task != "instruct") == (run / "task_config.json").is_file()


def test_long_records_are_cut_and_that_is_said(notes, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    words = ["--data", notes, "--field", "text", "--task", "classify", "--label", "kind", "--out", tmp_path / "run"]
    code, said = train(*words, *SHAPE, *SMALL, *RARELY, "--context", 8, "--steps", 1, "--vocab-size", 270)
    assert code == 0 and "records were longer than 8 tokens: their ends are cut" in said, said
