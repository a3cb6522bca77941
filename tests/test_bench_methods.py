"""The pure parts of bench/methods.py: the baseline by its formula, the sets, the counts of the papers."""

import json
import math
from collections import Counter
from itertools import pairwise

import pytest

from bench import bayes, clinical, counts, methods, methods_plan, methods_report
from minigpt.tuning import options

TEXTS = ["chest pain and more pain", "rash on the skin", "itchy skin, 皮疹瘙痒", "pain in the chest at rest"]
LABELS = ["heart", "skin", "skin", "heart"]


def scores_by_the_formula(texts, labels, alpha, asked):
    """ln P(c) + sum of x_w ln P(w | c) of every label, one number at a time."""

    def split(text):
        found = []
        for word in text.replace(",", " ").lower().split():
            found += [word] if word.isascii() else [a + b for a, b in pairwise(word)]
        return found

    known = {word for text in texts for word in split(text)}

    def x(text):
        count = Counter(word for word in split(text) if word in known)
        idf = {w: math.log((1 + len(texts)) / (1 + sum(w in split(t) for t in texts))) + 1 for w in count}
        length = math.sqrt(sum((count[w] * idf[w]) ** 2 for w in count))
        return {w: count[w] * idf[w] / length for w in count}

    found = {}
    for c in sorted(set(labels)):
        own = [x(t) for t, label in zip(texts, labels, strict=True) if label == c]
        total = {w: alpha + sum(each.get(w, 0) for each in own) for w in known}
        found[c] = math.log(len(own) / len(texts))
        found[c] += sum(v * math.log(total[w] / sum(total.values())) for w, v in x(asked).items())
    return found


@pytest.mark.parametrize("alpha", bayes.ALPHAS)
@pytest.mark.parametrize("asked", ["pain in the skin", "瘙痒 and an unknown word", "nothing known"])
def test_naive_bayes_is_its_formula(alpha, asked):
    model = bayes.NaiveBayes(TEXTS, LABELS, alpha)
    truth = scores_by_the_formula(TEXTS, LABELS, alpha, asked) if asked != "nothing known" else None
    found = dict(zip(model.labels, model.scores(asked), strict=True))
    if truth is None:  # the classes' shares decide
        assert found == pytest.approx(dict.fromkeys(("heart", "skin"), math.log(0.5)))
    else:
        assert found == pytest.approx(truth)
        assert model.answers([asked]) == [max(truth, key=truth.get)]


def test_alpha_is_chosen_by_the_inner_part():
    train = [(f"cough and fever, day {i}", "common") for i in range(9)] + [("rash after penicillin", "rare")]
    inner = [("a rash", "rare"), ("cough", "common")]

    def right(alpha):
        return sum(bayes.NaiveBayes(*zip(*train, strict=True), alpha).answers([t]) == [c] for t, c in inner)

    assert right(bayes.best_alpha(train, inner)) == 2 and min(map(right, bayes.ALPHAS)) == 1


def test_a_text_with_two_labels_has_the_first(tmp_path):
    folder = tmp_path / "medical_abstracts"
    folder.mkdir()
    lines = [{"text": "an infarct", "label_name": "heart"}, {"text": "an infarct", "label_name": "general"}]
    (folder / "medical_abstracts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert clinical.derive("abstracts", tmp_path) == {"an infarct": "heart"}
    assert clinical.available(tmp_path) == ["abstracts", "notes"]


@pytest.mark.parametrize("name", clinical.SETS)
def test_a_set_and_its_split(name, tmp_path):
    if name not in clinical.available():
        pytest.skip(f"{clinical.SETS[name]} is not beside this checkout")
    examples = clinical.derive(name)
    clinical.write(tmp_path / "set.jsonl", examples)
    split = clinical.split(tmp_path / "set.jsonl")
    assert dict(split.train) | dict(split.validation) == examples
    assert not dict(split.train).keys() & dict(split.validation).keys()
    assert {label for _, label in split.validation} <= {label for _, label in split.train}
    assert 0.07 < len(split.validation) / len(examples) < 0.13


def test_our_notes_have_one_of_each_patient():
    patients = Counter(clinical.derive("notes").values())
    assert sum(patients.values()) == 731 and len(patients) == 15


def test_no_validation_text_is_in_the_base():
    if len(clinical.available()) < len(clinical.SETS):
        pytest.skip("the clinical sets are not beside this checkout")
    first = {name: list(clinical.derive(name).items())[:300] for name in clinical.SETS}
    splits = {name: clinical.Split(found[30:], found[:30]) for name, found in first.items()}  # any thirty
    base = "\n".join(clinical.base_texts(splits))
    kept = {text for split in splits.values() for text, _ in split.validation}
    assert len(kept) == 150
    assert not [text for text in kept if len(text) > 60 and text in base]  # "Penicillin." says more than one
    assert all(text in base for text, _ in splits["abstracts"].train)


@pytest.mark.parametrize(
    ("section", "role"),
    [
        ("MATERIALS AND METHODS", "methods"),
        ("Aims", "objective"),
        ("BACKGROUND AND OBJECTIVE", None),
        ("METHODS AND RESULTS", None),
        ("UNLABELLED", None),
        ("MAIN OUTCOME MEASURES", "methods"),
    ],
)
def test_roles(section, role):
    assert clinical.role(section) == role


@pytest.mark.parametrize(
    ("setting", "model", "learned", "stored"),
    [
        ("LoRA, q and v, r=4", "GPT-2 medium", 24 * 2 * 2 * 1024 * 4, 393_216),
        ("prompt, P=20", "GPT-2 small", 15_360, 15_360),
        ("prompt, P=5", "width of T5-XXL", 20_480, 20_480),
        ("P-tuning, P=9", "GPT-2 small", 9 * 768 + 14 * 768**2 + 18 * 768, 6_912),
        ("prefix, P=5, m=512", "GPT-2 medium", 25_744_896, 2 * 24 * 5 * 1024),
        ("prefix, P=10", "GPT-2 medium", 491_520, 491_520),
        ("P-tuning v2, P=8", "GPT-2 small", 2 * 12 * 8 * 768, 147_456),
        ("adapters, m=64", "GPT-2 small", 2 * 12 * (2 * 768 * 64 + 64 + 768), 2_379_264),
        ("adapters, m=8", "GPT-2 small", 313_536, 313_536),
        ("AdapterL, m=224", "GPT-2 medium", 11_089_152, 24 * (2 * 1024 * 224 + 224 + 1024) + 2 * 24 * 1024),
        ("top:2", "GPT-2 medium", 2 * (12 * 1024**2 + 13 * 1024) + 2 * 1024, 25_194_496),
    ],
)
def test_counts_of_the_papers(setting, model, learned, stored):
    (case,) = [case for case in counts.CASES if (case.setting, case.model) == (setting, model)]
    found = counts.count(case)
    assert (found.learned, found.stored) == (learned, stored)


def test_lora_on_gpt3_learns_18_million():
    case = counts.CASES[0]
    found = counts.count(case)
    assert found.learned == 18_874_368 and found.base == 174_604_259_328


def test_tables_are_means_and_deviations_of_the_runs(tmp_path):
    found = {0: (0.5, 0.25, 10.0), 1: (0.6, 0.5, 12.0), 2: (0.7, 0.75, 29.0)}
    for seed, (accuracy, f1, seconds) in found.items():
        folder = tmp_path / "runs" / "headers" / f"lora-{seed}"
        folder.mkdir(parents=True)
        result = {"asked": {"steps": 11}, "accuracy": accuracy, "macro_f1": f1, "seconds": seconds, "mib": 500.0 + seed}
        (folder / "result.json").write_text(json.dumps(result | {"trains": 29012, "stored": 116048}))
    start = tmp_path / "start" / "headers" / "lora-0"
    start.mkdir(parents=True)
    (start / "result.json").write_text(json.dumps({"seconds": 2.0}))
    scores = {"accuracy": 0.4, "macro_f1": 0.125}
    baselines = {"headers": {"train": 9, "validation": 1, "classes": 2} | dict.fromkeys(methods_report.GUESSES, scores)}
    cells = methods_report.read(tmp_path)
    assert "| lora | 60.0 ± 10.0; 50.0 |" in methods_report.quality(cells, baselines, ["full", "lora"])
    assert "full" not in methods_report.quality(cells, baselines, ["full", "lora"])
    costs = methods_report.costs("headers", cells, ["lora"], tmp_path)
    assert costs.endswith("| lora | 29,012 | 116,048 | 502 | 17 | 1000 |")  # (12 - 2) / 10 steps


def test_the_plan_has_every_method_and_set_and_rates_that_were_tried():
    assert methods_plan.RATES.keys() == methods_plan.TRIED.keys() == options.RATES.keys()
    assert all(rate in methods_plan.TRIED[method] for method, rate in methods_plan.RATES.items())
    assert methods_plan.BUDGETS.keys() == clinical.SETS.keys()
    assert all(name in clinical.SETS and method in methods_plan.RATES for name, method in methods_plan.OWN_RATES)
    assert [methods_plan.rate(name, "full") for name in ("abstracts", "roles")] == [5e-4, 3e-4]


@pytest.fixture
def commands(monkeypatch):
    """What train.py is asked for: words of a command by name; its log is made up."""
    asked = []

    def run(words, out):
        asked.append({word.partition("=")[0]: word.partition("=")[2] for word in words} | {"--out": out})
        out.mkdir(parents=True, exist_ok=True)
        final = {"kind": "final", "accuracy": 0.75, "macro_f1": 0.5, "task_loss": float(asked[-1]["--lr"])}
        lines = [{"kind": "method", "trains": 7, "stored": 28}, final]
        (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {"seconds": 1.0, "mib": 2.0}

    monkeypatch.setattr(methods, "run", run)
    return asked


def test_a_run_is_its_plan_and_is_not_made_twice(commands, tmp_path, monkeypatch):
    found = methods.tune("headers", "lora", 2, tmp_path)
    (words,) = commands
    assert words["--validation"] == "0.1" and words["--data"] == str(tmp_path / "sets" / "headers.jsonl")
    assert (words["--lr"], words["--seed"], words["--lora-targets"]) == ("0.002", "2", "all-linear")
    assert words["--out"] == tmp_path / "runs" / "headers" / "lora-2"
    assert methods.tune("headers", "lora", 2, tmp_path) == found and len(commands) == 1
    monkeypatch.setitem(methods_plan.RATES, "lora", 6e-3)  # another plan: made anew
    assert methods.tune("headers", "lora", 2, tmp_path)["task_loss"] == 6e-3 and len(commands) == 2


def test_nothing_is_chosen_by_the_texts_that_judge(commands, tmp_path, capsys):
    methods.choose(["abstracts"], ["full"], [0, 1], [1e-3, 3e-3], ["--dropout=0.1"], tmp_path)
    assert {words["--data"] for words in commands} == {str(tmp_path / "inner" / "abstracts.jsonl")}
    assert [(words["--lr"], words["--seed"]) for words in commands] == [
        (r, s) for r in ("0.001", "0.003") for s in "01"
    ]
    assert len({words["--out"] for words in commands}) == 4 and commands[0]["--dropout"] == "0.1"
    assert capsys.readouterr().out.splitlines()[1] == "abstracts full 0.003: 75.0 %, loss 0.003 --dropout=0.1"
