"""Perplexity by position and stride is what a loop over tokens says; a needle is found by who looks for it."""

import copy
import json
import math
import sys

import pytest
import torch
from helpers import model

from minigpt import GPT, Error, hub
from minigpt.context import __main__ as cli
from minigpt.context import needle, show
from minigpt.context.lengths import Bucket, by_position, by_stride, edges_of, rows_of
from minigpt.context.needle import CHINESE, Fact, cell, logprobs, plant
from minigpt.generation.scoring import score
from minigpt.tokenizer import Tokenizer

CONTEXT = 24


def alone(gpt: GPT, text: list[int], start: int, at: int) -> float:
    """-log p of the token at `at`, given those from `start` on: by itself, in float64."""
    wide = copy.deepcopy(gpt).double()
    with torch.no_grad():
        return -wide(torch.tensor([text[start:at]]))[0, -1].log_softmax(-1)[text[at]].item()


@pytest.fixture(params=["gpt2", "llama"])
def gpt(request):
    return model(request.param, std=0.2)


@pytest.fixture
def texts():
    return [torch.randint(61, (length,)).tolist() for length in (60, 10, 49, 25)]


def test_by_position_is_a_loop_over_tokens(gpt, texts):
    rows, edges = rows_of(texts, CONTEXT), [1, 2, 7, 24]
    assert [len(row) for row in rows] == [25] * 5 and rows[1] == texts[0][24:49] and rows[4] == texts[3]
    for bucket in by_position(gpt, rows, edges):
        nats = [alone(gpt, row, 0, n) for row in rows for n in range(bucket.start, bucket.end)]
        assert bucket.tokens == len(nats)
        assert bucket.nats == pytest.approx(sum(nats), rel=1e-5)
        assert bucket.perplexity == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


@pytest.mark.parametrize("stride", [24, 10, 5])
def test_by_stride_scores_each_token_once_with_as_much_before_it_as_promised(gpt, texts, stride):
    nats = []
    for text in texts:
        start, scored = 0, 1
        while scored < len(text):
            end = min(start + CONTEXT, len(text) - 1)  # the last token read
            for at in range(max(scored, start + 1), end + 1):
                assert start == 0 or at - start >= CONTEXT - stride
                nats.append(alone(gpt, text, start, at))
            scored, start = end + 1, start + stride
    found = by_stride(gpt, texts, stride)
    assert found.tokens == len(nats) == sum(map(len, texts)) - len(texts)
    assert found.nats == pytest.approx(sum(nats), rel=1e-5)


def test_rows_are_spread_over_the_texts(texts):
    assert rows_of(texts, CONTEXT, most=2) == [rows_of(texts, CONTEXT)[0], rows_of(texts, CONTEXT)[2]]
    assert rows_of(texts, CONTEXT, most=99) == rows_of(texts, CONTEXT)
    with pytest.raises(Error, match="no text has 61 tokens, the longest 60: give longer ones, or .* 59 or less"):
        rows_of(texts, 60)


def test_edges_double():
    assert edges_of(1024) == [1, 32, 64, 128, 256, 512, 1024] and edges_of(24) == [1, 24] and edges_of(1) == [1, 2]
    assert edges_of(8192) == [1, 256, 512, 1024, 2048, 4096, 8192]


# Needle


def test_a_needle_is_planted_where_it_should_be():
    filler = list(range(100))
    for depth, place in ((0.0, 0), (0.25, 25), (1.0, 100)):
        text = plant(filler, [-1, -2], [-3], depth)
        assert text.index(-1) == place and text[-1] == -3 and [t for t in text if t >= 0] == filler


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt3"])
def test_candidates_have_the_probabilities_of_score(kind):
    gpt = model(kind, std=0.2)
    prompt, candidates = [5, 9, 2, 7], [[3], [4, 8, 1], [4, 2], [60, 60, 60]]
    texts = [prompt + candidate for candidate in candidates]
    expected = [each.total for each in score(gpt, texts, [4] * 4)]
    assert logprobs(gpt, prompt, candidates) == pytest.approx(expected, abs=1e-4)


def encode(text: str) -> list[int]:
    return [ord(char) % 61 for char in text]


FACT = Fact("allergy:{}.", ("abc", "xyz", "mno"))
FILLERS = [[0] + [1, 2, 3] * 40, [0] + [5, 7] * 60]


class Reader:
    """Answers as `logprobs` would if the model found the fact in what it sees: the last `sees` tokens."""

    def __init__(self, sees: int):
        self.sees, self.prompts = sees, []

    def __call__(self, gpt, prompt, candidates):
        self.prompts.append(prompt)
        visible, question = prompt[-self.sees :], encode(FACT.question)
        found = [
            any(visible[i : i + len(question) + len(c)] == question + c for i in range(len(visible)))
            for c in candidates
        ]
        return [0.0 if hit else -5.0 for hit in found] if any(found) else [0.0, -1.0, -2.0]  # else what it likes best


def test_who_looks_back_finds_it_and_who_does_not_is_right_by_chance(monkeypatch):
    gpt = model("gpt2", context=200)
    for sees, depth, hits in ((10**6, 0.0, 6), (10**6, 0.5, 6), (10**6, 1.0, 6), (30, 0.0, 2), (40, 1.0, 6)):
        monkeypatch.setattr(needle, "logprobs", reader := Reader(sees))
        found = cell(gpt, encode, FILLERS, FACT, length=90, depth=depth)
        assert (found.hits, found.trials) == (hits, 6)
        assert {len(prompt) for prompt in reader.prompts} == {90}
        assert all(prompt[0] == 0 and prompt[-8:] == encode("allergy:") for prompt in reader.prompts)
        if hits == 6:
            assert found.share == pytest.approx(1 / (1 + 2 * math.exp(-5)), rel=1e-6)
        else:
            assert found.share == pytest.approx(1 / 3, rel=1e-6)  # each value is the right one once


def test_a_value_is_asked_for_as_it_follows_the_question():
    tokenizer = Tokenizer.train(["Allergies: penicillin. Allergies: latex. 过敏史：青霉素。"] * 3, 320)
    for fact in (Fact(), CHINESE):
        question = tokenizer.encode(fact.question)
        for value, ids in zip(fact.values, needle._values(tokenizer.encode, fact), strict=True):
            assert tokenizer.decode(question + ids) == fact.question + value


def test_facts_that_are_none():
    for statement in ("no place", "{} first", "{} and {}"):
        with pytest.raises(Error, match="write {} once, where the value stands, after some words"):
            Fact(statement)
    with pytest.raises(Error, match="1 values: give two or more"):
        Fact("a{}", ("x", "x"))
    gpt = model("gpt2")
    with pytest.raises(Error, match="the value 'ab' begins another one"):
        cell(gpt, encode, FILLERS, Fact("fact:{}", ("ab", "abc")), 20, 0.5)
    with pytest.raises(Error, match="40 tokens and the value do not fit the model's context: give up to 22"):
        cell(gpt, encode, FILLERS, FACT, 40, 0.5)
    with pytest.raises(Error, match="a note of 22 tokens from a text of 1: give at least 22, and a longer text"):
        cell(gpt, encode, [[0]], FACT, 22, 0.5)


def test_pictures_and_tables():
    curves = {"before": [Bucket(1, 64, 10.0, 5), Bucket(64, 128, 30.0, 5)], "after": [Bucket(1, 64, 9.0, 5)] * 2}
    grid = [needle.Cell(n, depth, 3, 4, 0.7) for n in (64, 128) for depth in (0.0, 1.0)]
    assert show.draw_positions(curves, trained=64).startswith("<svg") and "before" in show.draw_positions(curves)
    picture = show.draw_needle({"one": grid, "two": grid})
    assert picture == show.draw_needle({"one": grid, "two": grid}) and picture.count("0.70") == 8
    assert show.needle_table(grid).splitlines()[-1] == "| 128 | 3/4 | 3/4 |"
    assert show.position_table(curves).splitlines()[2] == "| before | 7.39 | 403.43 |"


@pytest.fixture
def run(tmp_path):
    """A run with a tokenizer of its own, and long notes."""
    notes = [f"Patient {n} has no cough. Allergies: latex. Sleep is good, appetite fair. " * 12 for n in range(4)]
    tokenizer = Tokenizer.train(notes, 300)
    gpt = model("llama", vocab_size=tokenizer.vocab_size, context=64)
    hub.save(gpt, tmp_path / "run", eos_token_id=tokenizer.eot)
    tokenizer.save(tmp_path / "run")
    with (tmp_path / "notes.jsonl").open("w") as file:
        file.writelines(json.dumps({"note": note}) + "\n" for note in notes)
    return tmp_path


def call(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["context", *map(str, words)])
    return cli.main()


def test_the_command(run, monkeypatch, capsys):
    data = ("--data", run / "notes.jsonl", "--field", "note", "--most", 3, "--fillers", 1, "--depths", "0,1")
    assert call(monkeypatch, run / "run", *data, "--out", run / "pictures") == 0
    text = capsys.readouterr().out
    assert "perplexity by position" in text and "| 64 |" in text and "depth 100%" in text
    found = json.loads((run / "pictures" / "context.json").read_text())
    assert [each["start"] for each in found["positions"]] == [1, 32] and set(found["strides"]) == {"64", "32", "16"}
    assert (run / "pictures" / "needle.svg").read_text().startswith("<svg")
    assert call(monkeypatch, run / "run", *data, "--extend", "2x", "--json", "--no-needle", "--stride", "50") == 0
    longer = json.loads(capsys.readouterr().out)
    assert longer["positions"][-1]["end"] == 128 and set(longer["strides"]) == {"50"} and longer["needle"] == []


def test_the_command_writes_an_extended_model(run, monkeypatch, capsys):
    assert call(monkeypatch, run / "run", "--extend", "100", "--rope", "linear", "--save", run / "long") == 0
    assert "reads 100 tokens" in capsys.readouterr().err
    longer, data = GPT.from_pretrained(run / "long"), ("--data", run / "notes.jsonl", "--field", "note")
    assert longer.config.context == 100 and longer.config.rope_scaling.factor == 100 / 64
    assert Tokenizer.load(run / "long").eot == Tokenizer.load(run / "run").eot
    for words, message in (
        ((run / "run", "--extend", "100", "--save", run / "long"), "is not empty"),
        ((run / "run",), "nothing to do: give texts"),
        ((run / "run", "--save", run / "x"), "say how far with --extend"),
        ((run / "run", "--rope", "yarm"), "did you mean 'yarn'"),
        ((run / "run", *data, "--length", "5000"), "no text has 5001 tokens"),
        ((run / "run", *data, "--depths", "2"), "give numbers from 0 to 1"),
    ):
        with pytest.raises(Error, match=message):
            call(monkeypatch, *words)
