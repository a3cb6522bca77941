"""Tokens on the disk are the documents, each on its side, once; and damage is noticed."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.corpus import load_tokens, preparation, prepare
from minigpt.errors import Error
from minigpt.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["patient", "cough", "fever", "denies", "pain", "咳嗽", "患者", "，", "。", "\n", "12.5 mg", "<|endoftext|>"]


def notes(n, seed=0):
    randomly = random.Random(seed)
    return [f"{i} " + " ".join(randomly.choices(WORDS, k=randomly.randint(1, 30))) for i in range(n)]


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"note": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def made(source, out, **options):
    return prepare(source, out, **{"field": "note", "vocab_size": 300, "progress": False, **options})


def documents(tokens, split):
    """The documents in a split, from the layout alone: EOT doc EOT doc EOT."""
    ids, tokenizer = np.asarray(getattr(tokens, split)).tolist(), tokens.tokenizer()
    assert ids[0] == ids[-1] == tokens.eot
    found, start = [], 1
    for i in range(1, len(ids)):
        if ids[i] == tokens.eot:
            found.append(tokenizer.decode(ids[start:i]))
            start = i + 1
    return found


def test_documents_come_back_once_each_in_order(tmp_path):
    texts = notes(200)
    manifest = made(jsonl(tmp_path / "n.jsonl", texts + texts[:30]), tmp_path / "t")
    tokens = load_tokens(tmp_path / "t", verify=True)
    train, val = documents(tokens, "train"), documents(tokens, "val")
    assert sorted(train + val) == sorted(texts) and not set(train) & set(val)
    assert train == [text for text in texts if text in set(train)]
    assert 5 < len(val) < 45
    assert manifest["duplicates"] == 30 and manifest == tokens.manifest
    for split, found in (("train", train), ("val", val)):
        counts = manifest[split]
        assert counts["documents"] == len(found) and counts["bytes"] == sum(len(text.encode()) for text in found)
        assert counts["tokens"] == len(getattr(tokens, split)) == (tmp_path / f"t/{split}.bin").stat().st_size // 2
        assert tokens.tokenizer().token_lengths()[getattr(tokens, split)].sum() == counts["bytes"]
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == sorted(preparation._NAMES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.jsonl", "t"]


def test_the_split_does_not_move_when_documents_come_go_or_change_places(tmp_path):
    texts = notes(120)
    made(jsonl(tmp_path / "a.jsonl", texts), tmp_path / "a")
    before = set(documents(load_tokens(tmp_path / "a"), "val"))
    more = notes(60, seed=1) + texts[::-1]
    made(jsonl(tmp_path / "b.jsonl", more), tmp_path / "b")
    assert {text for text in documents(load_tokens(tmp_path / "b"), "val") if text in set(texts)} == before
    made(jsonl(tmp_path / "c.jsonl", texts), tmp_path / "c", validation=0.3)
    assert set(documents(load_tokens(tmp_path / "c"), "val")) > before


def test_the_tokenizer_never_sees_the_validation_split(tmp_path, monkeypatch):
    seen, train = [], Tokenizer.train
    spy = classmethod(lambda cls, texts, *a, **k: train([seen.append(t) or t for t in texts], *a, **k))
    monkeypatch.setattr(Tokenizer, "train", spy)
    made(jsonl(tmp_path / "n.jsonl", notes(100)), tmp_path / "t")
    tokens = load_tokens(tmp_path / "t")
    assert seen == documents(tokens, "train") and documents(tokens, "val")


@pytest.mark.parametrize("joined", [False, True])
def test_the_tokenizer_sample_is_bounded_and_even(tmp_path, monkeypatch, joined):
    monkeypatch.setattr(preparation, "_TRAINING_BYTES", 3000)
    monkeypatch.setattr(preparation, "_PIECE_CHARACTERS", 200)
    seen, train = [], Tokenizer.train
    spy = classmethod(lambda cls, texts, *a, **k: train([seen.append(t) or t for t in texts], *a, **k))
    monkeypatch.setattr(Tokenizer, "train", spy)
    texts = [f"{i:03} cough\n" * 8 for i in range(300)]
    made(jsonl(tmp_path / "n.jsonl", ["".join(texts)] if joined else texts), tmp_path / "t")
    assert 2800 < sum(len(text.encode()) for text in seen) < 3300
    places = [int(i) for text in seen for i in re.findall(r"\b(\d{3}) cough", text)]
    assert min(places) < 30 and max(places) > 230 and 100 < sum(places) / len(places) < 200


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 6), seed=st.integers(0, 10**6), validation=st.sampled_from([0.001, 0.1, 0.5, 0.999]))
def test_neither_side_is_empty(tmp_path_factory, n, seed, validation):
    folder = tmp_path_factory.mktemp("n")
    texts = notes(n, seed)
    manifest = made(jsonl(folder / "n.jsonl", texts), folder / "t", validation=validation)
    assert manifest["train"]["documents"] >= 1 and manifest["val"]["documents"] >= 1
    tokens = load_tokens(folder / "t")
    assert sorted(documents(tokens, "train") + documents(tokens, "val")) == sorted(texts)


def test_a_single_document_is_cut_at_a_line(tmp_path):
    text = "".join(f"line {i} 咳嗽\n" for i in range(100))
    (tmp_path / "book.txt").write_text(text, encoding="utf-8")
    made(tmp_path / "book.txt", tmp_path / "t", field=None, validation=0.2)
    tokens = load_tokens(tmp_path / "t")
    (train,), (val,) = documents(tokens, "train"), documents(tokens, "val")
    assert train + val == text and train.endswith("\n") and 0.15 < len(val) / len(text) < 0.25
    made(tmp_path / "book.txt", tmp_path / "all", field=None, validation=0)
    tokens = load_tokens(tmp_path / "all")
    assert documents(tokens, "train") == [text] and tokens.val.tolist() == [tokens.eot]
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(Error, match="cannot be split"):
        made(tmp_path / "x.txt", tmp_path / "x", field=None)


def tokenizer_for(name, monkeypatch):
    if name == "own":
        return Tokenizer.train(notes(300), 400)
    cache = ROOT.parent / "shared" / "tokenizers" / "tiktoken-cache"
    if not cache.is_dir():
        pytest.skip("needs OpenAI's vocabularies in ../shared/tokenizers/tiktoken-cache")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    return Tokenizer.named(name)


@pytest.mark.parametrize("name", ["own", "gpt2", "cl100k_base", "o200k_base"])
def test_a_long_document_in_parts_gives_the_same_ids(monkeypatch, name):
    text = "\n".join(notes(150)) + "\n\n\n!\n/x\n  y\r\n'sé\n_z\n" + "\n".join(notes(150, 1))
    tokenizer = tokenizer_for(name, monkeypatch)
    monkeypatch.setattr(preparation, "_PART_CHARACTERS", 5)
    parts = [part for part, _ in preparation._parts(text)]
    assert len(parts) > 100 and "".join(parts) == text
    assert [i for part in parts for i in tokenizer.encode(part)] == tokenizer.encode(text)


@pytest.mark.parametrize("name", ["own", "cl100k_base"])
def test_parts_and_width_on_the_disk(tmp_path, monkeypatch, name):
    text, tokenizer = "\n".join(notes(150)), tokenizer_for(name, monkeypatch)
    monkeypatch.setattr(preparation, "_PART_CHARACTERS", 5)
    monkeypatch.setattr(preparation, "_BATCH_CHARACTERS", 100)
    manifest = made(jsonl(tmp_path / "n.jsonl", [text, "cough"]), tmp_path / "t", tokenizer=tokenizer)
    tokens = load_tokens(tmp_path / "t", verify=True)
    assert sorted(documents(tokens, "train") + documents(tokens, "val")) == sorted([text, "cough"])
    assert manifest["dtype"] == ("uint32" if tokenizer.vocab_size > 2**16 else "uint16")


def test_the_same_request_is_not_done_again(tmp_path, monkeypatch):
    source = jsonl(tmp_path / "n.jsonl", notes(20))
    first = made(source, tmp_path / "t")
    stamp = (tmp_path / "t/train.bin").stat().st_mtime_ns
    assert made(source, tmp_path / "t") == first and (tmp_path / "t/train.bin").stat().st_mtime_ns == stamp
    assert made(source, tmp_path / "t", vocab_size=310)["vocab_size"] == 310
    jsonl(source, notes(21))
    assert sum(made(source, tmp_path / "t", vocab_size=310)[s]["documents"] for s in ("train", "val")) == 21
    tokenizer = Tokenizer.load(tmp_path / "t")
    tokenizer.save(tmp_path / "saved")
    by_object = made(source, tmp_path / "t", tokenizer=tokenizer)
    assert by_object["request"]["tokenizer"] != "trained"
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_encode", None)
        assert made(source, tmp_path / "t", tokenizer=tmp_path / "saved") == by_object
    same_size = Tokenizer.train(["quite another text, " * 99, *notes(30, 7)], tokenizer.vocab_size)
    assert same_size.vocab_size == tokenizer.vocab_size
    assert made(source, tmp_path / "t", tokenizer=same_size)["train"]["sha256"] != by_object["train"]["sha256"]


def test_damage_is_made_good_by_preparing_again(tmp_path):
    source = jsonl(tmp_path / "n.jsonl", notes(20))
    first = made(source, tmp_path / "t")
    (tmp_path / "t/val.bin").write_bytes(b"")
    assert made(source, tmp_path / "t") == first
    load_tokens(tmp_path / "t", verify=True)


def test_other_directories_are_left_alone(tmp_path):
    source = jsonl(tmp_path / "n.jsonl", notes(20))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/manifest.json").write_text("{}")
    (tmp_path / "thesis/chapter1.txt").write_text("years of work")
    with pytest.raises(Error, match="not tokens"):
        made(source, tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter1.txt").read_text() == "years of work"
    with pytest.raises(Error, match="not tokens"):
        made(source, source)


def test_files_that_change_meanwhile_are_noticed(tmp_path, monkeypatch):
    source, encode = jsonl(tmp_path / "n.jsonl", notes(20)), preparation._encode

    def slow(*arguments):
        result = encode(*arguments)
        jsonl(source, notes(25))
        return result

    monkeypatch.setattr(preparation, "_encode", slow)
    with pytest.raises(Error, match="changed while"):
        made(source, tmp_path / "t")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.jsonl"]


def test_no_usable_document(tmp_path):
    (tmp_path / "n.jsonl").write_text('{"note": ""}\n{"note": 3}\n')
    with pytest.raises(Error, match=r"no usable document: 2 bad, first .*n.jsonl:1: empty"):
        made(tmp_path / "n.jsonl", tmp_path / "t")
    with pytest.raises(Error, match="validation is 1"):
        made(tmp_path / "n.jsonl", tmp_path / "t", validation=1)
    assert not (tmp_path / "t").exists()


# ---- opening


def test_damage_is_noticed_on_opening(tmp_path):
    made(jsonl(tmp_path / "n.jsonl", notes(20)), tmp_path / "t")
    manifest, train = tmp_path / "t/manifest.json", tmp_path / "t/train.bin"
    good_manifest, good = manifest.read_text(), train.read_bytes()
    train.write_bytes(good[:-2])
    with pytest.raises(Error, match=f"train.bin: expected {len(good)} bytes, found {len(good) - 2}"):
        load_tokens(tmp_path / "t")
    train.write_bytes(good[:-2] + b"\x01\x00")
    load_tokens(tmp_path / "t")
    with pytest.raises(Error, match="sha256"):
        load_tokens(tmp_path / "t", verify=True)
    train.write_bytes(good[:-2] + b"\xff\xff")
    with pytest.raises(Error, match=r"token \d+ is 65535, expected an id below 300"):
        load_tokens(tmp_path / "t", verify=True)
    train.write_bytes(good)
    for old, new, reason in [
        ('"uint16"', '"float8"', "not a manifest"),
        ('"format": 1', '"format": 9', "format 9"),
        ('"vocab_size": 300', '"vocab_size": 70000', "do not fit"),
        ("{", "[", "not a manifest"),
    ]:
        manifest.write_text(good_manifest.replace(old, new, 1))
        with pytest.raises(Error, match=reason):
            load_tokens(tmp_path / "t")
    manifest.write_text(good_manifest)
    Tokenizer.train(["x"], 300).save(tmp_path / "t")
    with pytest.raises(Error, match=r"has 257 ids and EOT 256, the tokens were made with 300"):
        load_tokens(tmp_path / "t").tokenizer()
    with pytest.raises(Error, match="holds no tokens"):
        load_tokens(tmp_path)


# ---- the command line


def run(*arguments):
    command = [sys.executable, str(ROOT / "data/prepare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)


def test_command_line(tmp_path):
    source = jsonl(tmp_path / "n.jsonl", [*notes(30), "", "SECRET SECRET"[:0]])
    done = run(source, tmp_path / "t", "--field", "note", "--vocab-size=300", "--on_bad", "skip")
    assert done.returncode == 0, done.stderr
    assert "train: " in done.stdout and f"left out: 2 bad (2 empty), the first:\n  {source}:31: empty" in done.stdout
    assert load_tokens(tmp_path / "t").vocab_size == 300


@pytest.mark.parametrize("arguments", ["--field nota", "--field note --vocab_size 9", "--feild note"])
def test_command_line_errors(tmp_path, arguments):
    done = run(jsonl(tmp_path / "n.jsonl", notes(5)), tmp_path / "t", *arguments.split())
    assert done.returncode == 2 and "prepare.py: " in done.stderr and "Traceback" not in done.stderr and not done.stdout
    assert not (tmp_path / "t").exists()
