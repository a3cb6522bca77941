"""The tokenizer is lossless, agrees with tiktoken and transformers id by id, and refuses what it would get wrong."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import bpe_named
from minigpt.errors import Error
from minigpt.tokenizer import PATTERN, Tokenizer

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT.parent / "shared" / "tokenizers" / "tiktoken-cache"
CLINICAL = ROOT.parent / "shared" / "clinical"
ENGLISH = "The patient is a 76-year-old woman with hypertension, she's on 12.5 mg hydrochlorothiazide daily.\n"
CHINESE = "患者：喉咙紧，鼻塞，痰是黄色。已经两天了，没吃药。\n医生：您好，有没有发烧呢？\n"
TRICKY = [
    "", " ", "<|endoftext|>", "a<|endoftext|>b <|endoftext|>", "'S 'ſ 'LL we'll", "1234567 ½Ⅻ٣", "e\u0301 ệ\u0323",
    "👩‍👩‍👧 🏳️‍🌈", " \u3000\u3000病 \u00a0x", "\r\n\r\n \n\t x", " " * 70 + "x", "-" * 70 + "\r\n" * 12, "病" * 100,
    "x" * 100, "\x00\x1c\x85\u2028\ufeff\ufffd\U0010ffff", "𠮷野家", "".join(map(chr, range(0x2100))),
]  # fmt: skip
PIECES = ["a", "B", "7", "½", " ", "  ", "\n", "\r", "\t", "-", "/", "'s", "é", "e\u0301", "病", "\u3000", "😀", "\x00"]
unicode_text = st.text(st.characters(codec="utf-8"), max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join)


@pytest.fixture(scope="module")
def own():
    return Tokenizer.train([ENGLISH * 3, CHINESE * 3, ENGLISH.upper()], vocab_size=400)


@pytest.fixture
def cache(monkeypatch):
    if not CACHE.is_dir():
        pytest.skip("needs OpenAI's vocabularies in ../shared/tokenizers/tiktoken-cache")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(CACHE))


@settings(deadline=None, max_examples=300)
@given(text=unicode_text)
def test_any_unicode_round_trips(own, text):
    ids = own.encode(text)
    assert own.decode(ids) == text and own.decode_bytes(ids) == text.encode()
    assert own.eot not in ids


def test_every_character_round_trips(own):
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    assert own.decode(own.encode(everything)) == everything


@pytest.mark.parametrize("unit", [" ", "\n", "病", "a", "-", "\u3000", "1", "\r\n\t"])
def test_a_long_run_is_no_trouble(own, unit):
    text = "x" + unit * (1_500_000 // len(unit)) + "y"
    assert own.decode(own.encode(text)) == text


@pytest.mark.parametrize("bad", ["\ud800", "cough \udfff", "\ude00\ud83d"])
def test_lone_surrogates_are_refused(own, bad):
    for call in (own.encode, lambda text: own.encode_batch(["fine", text]), lambda text: Tokenizer.train([text], 300)):
        with pytest.raises(Error, match=r"lone surrogate \(U\+D"):
            call(bad)


def test_batch_equals_one_by_one(own):
    texts = [*TRICKY, ENGLISH, CHINESE]
    assert own.encode_batch(texts) == [own.encode(text) for text in texts]


@pytest.mark.parametrize("bad", [-1, 10**6, 2**70])
def test_ids_out_of_range_are_refused(own, bad):
    with pytest.raises(Error, match=f"token id {bad} is not in the vocabulary of {own.vocab_size} ids"):
        own.decode([1, bad, 2])
    with pytest.raises(Error, match="is not in the vocabulary"):
        own.stream().push(bad)


def test_token_lengths(own):
    lengths, ids = own.token_lengths(), own.encode(ENGLISH + CHINESE)
    assert lengths.shape == (own.vocab_size,) and lengths[own.eot] == 0
    assert lengths[ids].sum() == len((ENGLISH + CHINESE).encode())


def test_vocabulary_is_bounded_by_the_text(own):
    assert own.vocab_size == 400
    small = Tokenizer.train(["abab"], vocab_size=50_000)
    assert small.vocab_size == 256 + 1 + 1 and small.decode([256]) == "ab"
    two = Tokenizer.train(["x"], 258, specials=("<|user|>", "<|endoftext|>"))
    assert two.specials == {"<|user|>": 256, "<|endoftext|>": 257} and two.eot == 257
    with pytest.raises(Error, match="at least 257"):
        Tokenizer.train(["abab"], vocab_size=256)
    with pytest.raises(Error, match="no end-of-text token"):
        Tokenizer.train(["abab"], 300, specials=())


# ---- streaming


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=40) | unicode_text.map(str.encode), cut=st.integers(0, 40))
def test_stream_joins_to_decode(own, data, cut):
    ids = [own.vocabulary.ranks[data[i : i + 1]] for i in range(len(data))]
    ids[cut:cut] = own.encode(" 痰🤧") + [own.eot]
    stream = own.stream()
    assert "".join(map(stream.push, ids)) + stream.flush() == own.decode(ids)


def test_stream_emits_a_character_as_soon_as_it_is_whole(own):
    for text in ("あ", "😷", "é", "a", "𠮷"):
        data, stream = text.encode(), own.stream()
        outputs = [stream.push(own.vocabulary.ranks[data[i : i + 1]]) for i in range(len(data))]
        assert outputs == [""] * (len(data) - 1) + [text] and stream.flush() == ""


def test_stream_holds_bytes_that_may_become_valid(own):
    byte, stream = own.vocabulary.ranks, own.stream()
    assert stream.push(byte[b"\xe7"]) == "" and stream.push(byte[b"!"]) == "\ufffd!"
    assert stream.push(byte[b"\xff"]) == "\ufffd"
    assert stream.push(byte[b"\xf0"]) == "" and stream.flush() == "\ufffd" and stream.push(byte[b"a"]) == "a"


# ---- against tiktoken and transformers


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base", "o200k_base"])
def test_named_equal_tiktoken(cache, name):
    import tiktoken

    ours, theirs = Tokenizer.named(name), tiktoken.get_encoding(name)
    randomly = random.Random(0)
    texts = TRICKY + ["".join(randomly.choices(PIECES, k=200)) for _ in range(100)] + [ENGLISH, CHINESE]
    assert [ours.encode(text) for text in texts] == [theirs.encode_ordinary(text) for text in texts]
    assert (ours.vocab_size, ours.eot) == (theirs.n_vocab, theirs.eot_token)


@pytest.mark.parametrize("name", ["gpt2", "cl100k_base"])
def test_a_million_blanks_do_not_overflow_named_ones(cache, name):
    tokenizer, text = Tokenizer.named(name), "x" + " " * 1_200_000 + "y"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_batch(["a", text]) == [tokenizer.encode("a"), tokenizer.encode(text)]


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
@pytest.mark.parametrize("name", ["own", "gpt2", "cl100k_base"])
def test_transformers_gives_the_same_ids_and_text(request, own, tmp_path, name, model_type):
    from transformers import AutoTokenizer

    ours = own if name == "own" else request.getfixturevalue("cache") or Tokenizer.named(name)
    ours.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    randomly = random.Random(1)
    texts = TRICKY + ["".join(randomly.choices(PIECES, k=200)) for _ in range(60)] + [ENGLISH, CHINESE]
    for text in texts:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids, text[:40]
        assert theirs.decode(ids) == ours.decode(ids) == text
    half_characters = [randomly.choice(list(ours.vocabulary.ranks.values())) for _ in range(500)] + [ours.eot]
    assert theirs.decode(half_characters) == ours.decode(half_characters)
    assert theirs.bos_token_id == theirs.eos_token_id == ours.eot
    again = Tokenizer.load(tmp_path)
    assert again.vocabulary == ours.vocabulary and again.eot == ours.eot


def test_clinical_text_in_transformers(tmp_path):
    from transformers import AutoTokenizer

    if not CLINICAL.is_dir():
        pytest.skip("needs the clinical sets in ../shared/clinical")
    fields = {"clinical_dialogue_notes": "note", "toyhom_zh_qa": "answer"}
    texts = []
    for name, field in fields.items():
        with (CLINICAL / name / f"{name}.jsonl").open(encoding="utf-8") as lines:
            texts += [json.loads(line)[field] for line, _ in zip(lines, range(600), strict=False)]
    ours = Tokenizer.train(texts[::2], 2048)
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"] == ours.encode_batch(texts)
    tokens, size = sum(map(len, ours.encode_batch(texts))), sum(len(text.encode()) for text in texts)
    assert ours.vocab_size == 2048 and tokens < size / 2.5


def test_training_and_saving_do_not_depend_on_the_hash_seed(tmp_path):
    program = (
        "import sys; from minigpt.tokenizer import Tokenizer\n"
        f"Tokenizer.train([{ENGLISH!r}, {CHINESE!r}] * 3, 380).save(sys.argv[1])"
    )
    digests = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True, env=environment)
        names = ("tokenizer.json", "tokenizer_config.json")
        digests.add(tuple(hashlib.sha256((tmp_path / seed / name).read_bytes()).hexdigest() for name in names))
    assert len(digests) == 1


# ---- files


def test_gpt2_files_without_tokenizer_json(cache, tmp_path):
    bpe, encoder = (
        CACHE / hashlib.sha1(f"{bpe_named._BLOBS}gpt-2/encodings/main/{name}".encode()).hexdigest()
        for name in ("vocab.bpe", "encoder.json")
    )
    (tmp_path / "vocab.json").write_bytes(encoder.read_bytes())
    (tmp_path / "merges.txt").write_bytes(bpe.read_bytes())
    assert Tokenizer.load(tmp_path).vocabulary == Tokenizer.named("gpt2").vocabulary


def test_missing_and_damaged_cache_files_say_so_and_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(Error, match=r"6d1cbeee.* is not there, and nothing is downloaded.*TIKTOKEN_CACHE_DIR"):
        Tokenizer.named("gpt2")
    damaged = tmp_path / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"
    damaged.write_bytes(b"half a download")
    with pytest.raises(Error, match="damaged"):
        Tokenizer.named("gpt2")
    assert damaged.read_bytes() == b"half a download"
    with pytest.raises(Error, match="did you mean 'gpt2'"):
        Tokenizer.named("gpt-2")


def edit(content, path, value):
    *parents, last = path
    for key in parents:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    "path, value, reason",
    [
        (["model", "type"], "WordPiece", "the model is 'WordPiece'"),
        (["normalizer"], {"type": "NFC"}, "'NFC' changes text"),
        (["model", "byte_fallback"], True, "byte_fallback"),
        (["model", "end_of_word_suffix"], "</w>", "end_of_word_suffix"),
        (["decoder"], {"type": "Metaspace"}, "decoder"),
        (["pre_tokenizer"], {"type": "Metaspace"}, "pre-tokenizer must be"),
        (["pre_tokenizer", "pretokenizers", 1, "add_prefix_space"], True, "prefix space"),
        (["pre_tokenizer", "pretokenizers", 0, "behavior"], "Removed", "pre-tokenizer must be"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"Regex": r"\p{N}{1,3}+|\s+$"}, "engines disagree"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"Regex": r"\p{L}+"}, "text would be lost"),
        (["pre_tokenizer", "pretokenizers", 0, "pattern"], {"Regex": "("}, "pattern"),
        (["added_tokens", 0, "special"], False, "would cut ordinary text"),
        (["added_tokens", 0, "content"], "</s>", "no merge of tokens"),
        (["model", "vocab", "a"], 999, "single bytes|id"),
        (["model", "merges"], [], "is missing"),
        (["model"], None, "the model is None"),
        (["model", "vocab"], {"a": "x"}, "damaged|single bytes"),
    ],
)  # fmt: skip
def test_other_tokenizers_are_refused_with_the_reason(own, tmp_path, path, value, reason):
    own.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    edit(content, path, value)
    if path == ["model", "vocab", "a"]:
        del content["model"]["vocab"]["b"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(Error, match=reason) as problem:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(problem.value) and "\n" not in str(problem.value)


def test_merge_order_that_is_not_id_order_is_refused(own, tmp_path):
    own.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    merges = content["model"]["merges"]
    merges[3], merges[40] = merges[40], merges[3]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(Error, match="out of order"):
        Tokenizer.load(tmp_path)


def test_nothing_to_load(tmp_path):
    with pytest.raises(Error, match="has no tokenizer"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_bytes(b'{"model": \xff')
    with pytest.raises(Error, match="not valid JSON"):
        Tokenizer.load(tmp_path)


def test_the_pattern_is_the_one_in_the_file(own, tmp_path):
    own.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == PATTERN == own.pattern
