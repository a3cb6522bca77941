"""Memorisation: an overfitted model is caught and a fresh one is not; planted secrets rank as the paper defines."""

import json
import math
import random

import pytest
import torch

from minigpt import GPT, GPTConfig
from minigpt.corpus import load_tokens, prepare
from minigpt.corpus.split import hash_of
from minigpt.errors import Error
from minigpt.generation.scoring import score
from minigpt.privacy import __main__ as command
from minigpt.privacy import canaries, memorised, plant
from minigpt.privacy.canaries import Canary
from minigpt.privacy.overlap import LONGEST, Index, longest_plain, suffixes
from minigpt.tokenizer import Tokenizer
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import OptimizerConfig
from tests.runs import train, without_pictures, write_lines

WORDS = "cough fever chest pain denies allergies nausea three days mild severe left right onset 咳嗽 发热 三天".split()


MANY = [f"{a}{b}" for a in WORDS for b in ("al", "itis", "oma", "aemia", "病", "痛", "炎", "症", "热", "os")]


def notes(count, seed=0, length=40, words=WORDS):
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=length)) for _ in range(count)]


def fit(tokens, steps):
    """A small model that has read the beginning of each document so many times."""
    torch.manual_seed(0)
    sizes = {"n_layers": 2, "n_heads": 2, "d_model": 64, "vocab_size": tokens.vocab_size, "context": 48}
    model = GPT(GPTConfig(**sizes, positions="rotary"))
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="muon", weight_decay=0.0).decided(new=True))
    rows = [[tokens.eot, *d][:49] for d in memorised.documents(tokens.train, tokens.eot)]
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokens.eot] * (length - len(row)) for row in rows])
    goal = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-2 * group.get("lr_scale", 1.0)
        loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), goal[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def prepared(folder, texts, tokenizer=None):
    source = write_lines(folder / "notes.jsonl", [{"text": text} for text in texts])
    prepare(source, folder / "tokens", "text", tokenizer, 400, 0.4, progress=False)
    return load_tokens(folder / "tokens")


# Overlaps


@pytest.mark.parametrize("alphabet", ["ab", "abcdefgh", "ab咳😀"])
def test_overlaps_are_those_of_brute_force(alphabet):
    draw = random.Random(1)
    for _ in range(150):
        texts = ["".join(draw.choices(alphabet, k=draw.randint(0, 40))) for _ in range(draw.randint(1, 4))]
        query = "".join(draw.choices(alphabet + "?", k=draw.randint(0, 25)))
        assert Index(texts).longest(query) == longest_plain(texts, query), (texts, query)


def test_suffixes_are_sorted():
    draw = random.Random(2)
    for letters in ("ab", "a", "咳嗽ab"):
        text = "".join(draw.choices(letters, k=300))
        assert suffixes(text).tolist() == sorted(range(300), key=lambda i: text[i:])


def test_no_passage_goes_over_a_border_and_long_ones_are_cut():
    assert Index(["abc", "def"]).longest("abcdef").length == 3
    assert Index(["x" * 3000]).longest("x" * 2000).length == LONGEST


def test_documents_of_tokens(tmp_path):
    texts = notes(12)
    tokens = prepared(tmp_path, texts)
    found = [tokens.tokenizer().decode(d) for split in (tokens.train, tokens.val)
             for d in memorised.documents(split, tokens.eot)]  # fmt: skip
    assert sorted(found) == sorted(texts)
    some = memorised.documents(tokens.train, tokens.eot, most=50)
    assert sum(map(len, some)) == 50


# What a model repeats


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Tokens, a model that knows them by heart, and one that knows nothing."""
    tokens = prepared(tmp_path_factory.mktemp("runs"), notes(40, words=MANY))
    return tokens, fit(tokens, 70), fit(tokens, 0)


TRIAL = memorised.Trial(samples=16, new_tokens=30, prompt_tokens=8, seconds=600)


def test_by_heart_is_caught_and_fresh_is_not(runs):
    tokens, learned, fresh = runs
    found = memorised.summary(memorised.measure(learned, tokens, TRIAL, progress=False))
    assert "repeats its training text" in memorised.warning(found)
    asked = {row: [r["above_chance"] for r in found if r["row"] == row] for row in memorised.ROWS}
    assert min(asked["training"]) > 0.4 and max(asked["unseen notes"]) < 0.2, asked
    found = memorised.summary(memorised.measure(fresh, tokens, TRIAL, progress=False))
    assert not memorised.warning(found) and {r["row"] for r in found} == set(memorised.ROWS)


def test_shared_phrases_are_no_memory():
    """Boilerplate in all notes, seen and unseen, is chance; a share needs enough unseen notes to be known."""

    def written(row, lengths, language="en"):
        return [memorised.Written(row, language, n, n // 4, "") for n in lengths]

    chance = written("unseen notes", range(81, 101))
    assert not memorised.warning(memorised.summary(chance + written("nothing", [95] * 20)))
    assert memorised.warning(memorised.summary(chance + written("nothing", [95] * 14 + [300] * 6)))
    assert not memorised.warning(memorised.summary(chance[:5] + written("nothing", [300] * 20)))
    asked = written("training", [95] * 9 + [300] * 3) + written("validation", [95] * 12)
    assert not memorised.warning(memorised.summary(chance + asked))  # an eighth of both together
    chinese = written("unseen notes", [10] * 20, "zh") + written("nothing", [40] * 20, "zh")
    assert memorised.warning(memorised.summary(chance + chinese))  # each language by its own chance
    assert {r["language"]: r["chance"] for r in memorised.summary(chance + chinese)}["zh"] == 10


def test_the_prompt_is_not_counted_and_time_ends(runs):
    tokens, learned, _ = runs
    written = memorised.measure(learned, tokens, TRIAL, progress=False)
    assert all(each.tokens <= TRIAL.new_tokens for each in written)
    seen = memorised.Seen(memorised.documents(tokens.train, tokens.eot), tokens.tokenizer())
    apart = [seen.judge("", d[8:38]).tokens for d in memorised.documents(tokens.val, tokens.eot)]
    assert sorted(each.tokens for each in written if each.row == "unseen notes") == sorted(apart)
    long = memorised.Trial(samples=2, new_tokens=100, prompt_tokens=100, seconds=600)  # more than the context of 48
    assert {each.row for each in memorised.measure(learned, tokens, long, progress=False)} >= {"nothing", "training"}
    hurried = memorised.measure(learned, tokens, memorised.Trial(samples=16, new_tokens=5, seconds=0), progress=False)
    assert 0 < sum(each.row != "unseen notes" for each in hurried) <= 16


# Secrets


def test_exposure_of_ranks_known_by_hand():
    assert [canaries.exposure(rank, 8) for rank in (1, 2, 4, 8)] == [3, 2, 1, 0]
    mean = sum(canaries.exposure(rank, 10_000) for rank in range(1, 10_001)) / 10_000
    assert abs(mean - 1 / math.log(2)) < 0.01  # of a secret never read
    for bad in (0, 9):
        with pytest.raises(Error, match="expected 1 to 8"):
            canaries.exposure(bad, 8)


def test_ranks_are_those_of_the_likelihoods(runs):
    """Against scores taken one at a time, in both ways of ranking."""
    tokens, learned, _ = runs
    tokenizer, mine = tokens.tokenizer(), Canary("pain {37}", 1)
    every = [f"pain {n:02}" for n in range(100)]
    value = {t: score(learned, [[tokenizer.eot, *tokenizer.encode(t)]])[0].total for t in every}
    rank = 1 + sum(value[t] > value["pain 37"] + 1e-4 for t in every)
    (found,) = canaries.measure(learned, tokenizer, [mine], progress=False)
    assert (found.rank, found.size, found.exact) == (rank, 100, True)
    (found,) = canaries.measure(learned, tokenizer, [mine], most=40, progress=False)
    assert not found.exact and found.size in (40, 41) and 1 <= found.rank <= rank
    two = canaries.measure(learned, tokenizer, [mine, Canary("pain {62}", 1)], progress=False)
    assert [each.size for each in two] == [99, 99]  # a fellow is no chance filling


def test_a_secret_read_often_is_more_exposed_than_one_read_once(tmp_path):
    records = [{"text": text} for text in notes(60, length=6)]
    mine = [Canary(text, times) for text, times in zip(canaries.draw("box {000}", 4, 3), (1, 1, 20, 20), strict=True)]
    for canary in mine:
        plant.plant(records, "text", canary.planted, canary.times, canary.text)
    texts = [record["text"] for record in records]
    assert [sum(c.planted in text.split("\n") for text in texts) for c in mine] == [1, 1, 20, 20]
    changed = [text for text in texts if "box" in text]
    assert all(hash_of(text)[1] >= 2**63 for text in changed)
    # Not learned from the planted text: a number met often becomes a token, and is known without a model.
    tokens = prepared(tmp_path, texts, Tokenizer.train(notes(60, length=6), 400))
    model = fit(tokens, 15)
    found = canaries.measure(model, tokens.tokenizer(), mine, progress=False)
    assert min(f.bits for f in found[2:]) > max(f.bits for f in found[:2]) and all(f.high for f in found[2:])
    assert "canaries are exposed" in canaries.warning(found)
    fresh = canaries.measure(fit(tokens, 0), tokens.tokenizer(), mine, progress=False)
    assert not canaries.warning(fresh)


def test_formats():
    assert canaries.space("{0aA}") == 10 * 26 * 26
    assert len(set(canaries.draw("x {0}", 10))) == 10
    for bad in ("no braces", "{}", "{1} and {2}", "{é}"):
        with pytest.raises(Error, match="one pair of braces"):
            canaries.secret(bad)
    with pytest.raises(Error, match="11 canaries of a format with 10 fillings"):
        canaries.draw("x {0}", 11)


# Command lines


def call(monkeypatch, main, *words):
    monkeypatch.setattr("sys.argv", ["it", *map(str, words)])
    return main()


def test_plant_and_measure_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    without_pictures(monkeypatch)
    write_lines(tmp_path / "notes.jsonl", [{"text": text, "kind": "x"} for text in notes(60, length=6)])
    call(monkeypatch, plant.main, "notes.jsonl", "planted.jsonl", "--plant", 1, "--times", "2,9", "--format", "b {000}")
    secrets = [json.loads(line) for line in (tmp_path / "planted.secrets.jsonl").read_text().splitlines()]
    assert [s["times"] for s in secrets] == [2, 9]
    texts = [json.loads(line) for line in (tmp_path / "planted.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(texts) == 60 and all(t["kind"] == "x" for t in texts)
    for s in secrets:
        assert sum(Canary(**s).planted in t["text"] for t in texts) == s["times"]
    shape = "--n-layers 1 --n-heads 2 --d-model 32 --vocab-size 300 --context 32 --batch-size 4 --threads 1".split()
    few = "--steps 2 --eval-every 0 --sample-every 0 --save-every 0 --precision fp32 --validation 0.3".split()
    code, _ = train("--data", "planted.jsonl", "--field", "text", "--out", "run", *shape, *few)
    capsys.readouterr()
    code = call(monkeypatch, command.main, "run", "--secrets", "planted.secrets.jsonl", "--samples", 4, "--json")
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert code in (0, 1) and [c["times"] for c in found["canaries"]] == [2, 9] and found["overlap"]
    again = call(monkeypatch, command.main, "run", "--data", "planted.jsonl", "--field", "text", "--validation", 0.3,
                 "--samples", 4, "--json")  # fmt: skip
    out, more = capsys.readouterr()
    assert again in (0, 1) and json.loads(out)["overlap"] == found["overlap"]
    told = json.dumps(found) + err + more
    assert not any(word in told for word in ["cough", "咳嗽", *(Canary(**s).planted for s in secrets)])


def test_show_prints_excerpts_and_nothing_else_does(runs, tmp_path, monkeypatch, capsys):
    tokens, learned, _ = runs
    learned.save_pretrained(tmp_path / "run")
    tokens.tokenizer().save(tmp_path / "run")
    words = ["run", "--data", tokens.directory, "--samples", 16, "--new-tokens", 30, "--prompt-tokens", 8]
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, command.main, *words) == 1
    out, err = capsys.readouterr()
    assert "warning: this model repeats its training text" in err
    assert not any(word in out + err for word in WORDS)
    assert call(monkeypatch, command.main, *words, "--show") == 1
    shown = capsys.readouterr().err
    assert any(word in shown for word in WORDS)


def test_after_training(tmp_path, monkeypatch, capsys):
    """On one's own text there is a table; switched off, or of our own notes, there is none."""
    from minigpt.training import compose, memorising
    from minigpt.training.compute import Compute

    monkeypatch.setattr(Compute, "measure", lambda self, context: None)
    tables = []
    monkeypatch.setattr(compose, "report", lambda options, run, found, job, memorised: tables.append(memorised))
    monkeypatch.setattr(memorising.memorised, "warning", lambda records: "it repeats")
    source = write_lines(tmp_path / "notes.jsonl", [{"text": text} for text in notes(40)])
    words = "--n-layers 1 --n-heads 2 --d-model 32 --vocab-size 300 --context 32 --batch-size 4 --threads 1".split()
    words += "--steps 1 --eval-every 0 --sample-every 0 --save-every 0 --precision fp32 --validation 0.3".split()
    for i, more in enumerate(([], ["--memorised", "off"])):
        code, said = train("--data", source, "--field", "text", "--out", tmp_path / str(i), *words, *more)
        assert code == 0, said
    assert tables[1] == {} and tables[0]["What it repeats of its training text"]["in a word"] == "it repeats"
    assert train("--memorised", "perhaps", "--data", source, "--field", "text")[1] == (
        "--memorised is 'perhaps': give on, off or auto"
    )


@pytest.mark.parametrize(("words", "said"), [
    (["notes.jsonl", "notes.jsonl"], "is the file of the notes itself"),
    (["notes.jsonl", "out.jsonl", "--times", "0"], "--times is 0: give whole numbers from 1"),
    (["notes.jsonl", "out.jsonl", "--times", "900"], "--times is 900, the notes have room for"),
    (["notes.jsonl", "out.jsonl", "--field", "note"], "notes.jsonl:1: no JSON object with the text field 'note'"),
    (["nothing.jsonl", "out.jsonl"], "nothing.jsonl: cannot read it"),
])  # fmt: skip
def test_bad_requests_leave_nothing(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "notes.jsonl", [{"text": text} for text in notes(9)])
    with pytest.raises(Error, match=said):
        call(monkeypatch, plant.main, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.jsonl"]


@pytest.mark.parametrize("line", ["", "secret 4711", '{"text": "secret 4711", "times": 1}', '{"text": "{1}"}'])
def test_a_bad_file_of_secrets_is_told_by_line(tmp_path, line):
    (tmp_path / "s.jsonl").write_text(line + "\n")
    with pytest.raises(Error) as problem:
        canaries.read(tmp_path / "s.jsonl")
    assert "s.jsonl:1" in str(problem.value) and "4711" not in str(problem.value)
