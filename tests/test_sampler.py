"""The whole Sampler: combinations and written texts against transformers, draws by chi-square, what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from processing import (
    Text,
    V,
    chi_square_p,
    filtered,
    logits_of_all_kinds,
    same,
    texts,
    their_adjusters,
    their_filters,
)
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as hf

from minigpt import Error
from minigpt.generation.sampling import Sampler, row_generator

ADJUSTED = {
    "repetition_penalty": (1.3, 0.8, None),
    "no_repeat_ngram": (1, 2, 3, None),
    "banned": ([[7], [0, 1], [2, 0, 5]], ()),
    "min_new_tokens": (0, 3, 12),
    "force_end": (False, True),
}


FILTERED = {
    "temperature": (1.0, 0.6, 1.7),
    "top_k": (1, 5, 30, None),
    "top_p": (0.3, 0.9, None),
    "min_p": (0.02, 0.2, None),
    "typical_p": (0.4, 0.95, None),
}


@pytest.mark.parametrize("seed", range(60))
def test_combinations_equal_transformers(seed):
    z = logits_of_all_kinds()
    stream = torch.Generator().manual_seed(seed)
    pick = {name: v[torch.randint(len(v), (), generator=stream)] for name, v in (ADJUSTED | FILTERED).items()}
    ends, histories = [4, 90], texts(len(z), seed, few=4)
    longest = max(len(text.tokens) - text.prompt for text in histories)
    options = pick | {"max_new_tokens": longest + 1}
    adjusted = torch.cat(
        [
            hf.LogitsProcessorList(their_adjusters(options, text, ends))(torch.tensor([text.tokens]), row[None])
            for row, text in zip(z, histories, strict=True)
        ]
    )
    alive = adjusted.amax(-1).isfinite()  # not the quarters, of which all may be banned
    z, adjusted = z[alive], adjusted[alive]
    histories = [text for text, lives in zip(histories, alive, strict=True) if lives]
    sampler = Sampler(ends=frozenset(ends), **options)
    assert torch.equal(sampler.adjust(z, histories), adjusted)
    expected, firm = filtered(hf.LogitsProcessorList(their_filters(options)), adjusted)
    same(sampler.probabilities(z, histories), expected, firm, least=len(z) // 2)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(2)
    config = GPT2Config(n_positions=32, n_embd=32, n_layer=2, n_head=4, vocab_size=V, initializer_range=0.3)
    return GPT2LMHeadModel(config).eval()


GENERATED = {
    "penalty": {"repetition_penalty": 1.4},
    "filters": {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9},
    "ngrams": {"no_repeat_ngram": 1, "temperature": 0.5},
    "bans": {"banned": [[i] for i in range(5, 60)], "repetition_penalty": 0.8},
    "ends": {"min_new_tokens": 8, "ends": range(40), "force_end": True},
    "all": {"repetition_penalty": 1.2, "no_repeat_ngram": 2, "banned": [[1], [2, 3]], "min_new_tokens": 3}
    | {"ends": [50], "force_end": True, "temperature": 0.8, "top_k": 60, "top_p": 0.95},
}


NAMES = {"no_repeat_ngram": "no_repeat_ngram_size", "banned": "bad_words_ids", "ends": "eos_token_id"}


@pytest.mark.parametrize("temperature", [0, None])
@pytest.mark.parametrize("name", GENERATED)
def test_a_seed_writes_what_transformers_writes(theirs, name, temperature):
    ours = GENERATED[name] | ({} if temperature is None else {"temperature": 0}) | {"max_new_tokens": 15}
    ours["ends"] = frozenset(ours.get("ends", ()))
    options = {NAMES.get(k, k): v for k, v in GENERATED[name].items() if k != "force_end"}
    options["eos_token_id"] = sorted(ours["ends"]) or None
    if "force_end" in ours:
        options["forced_eos_token_id"] = sorted(ours["ends"])
    prompt = [5, 17, 3, 17]
    for seed in range(3 if temperature is None else 1):  # greedy asks no seed
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "top_k": 0} if temperature is None else {"do_sample": False}
        ids = torch.tensor([prompt])
        written = theirs.generate(ids, max_new_tokens=15, pad_token_id=0, **drawn | options)[0, 4:].tolist()
        text, generator = Text(list(prompt), len(prompt)), row_generator(seed, 0)
        while len(text.tokens) == 4 or (len(text.tokens) < 19 and text.tokens[-1] not in ours["ends"]):
            with torch.no_grad():
                logits = theirs(torch.tensor([text.tokens])).logits[:, -1]
            text.tokens.append(int(Sampler(**ours).choose(logits, [generator], [text])[0]))
        assert text.tokens[4:] == written


@pytest.mark.parametrize("kind", range(2))
def test_draws_follow_transformers_probabilities(kind):
    n, text = 6000, Text([1, 2, 3, 1, 2], 2)
    z = logits_of_all_kinds()[[0, 4][kind]][None] * (1.0, 0.2)[kind]
    options = {"repetition_penalty": 1.2, "no_repeat_ngram": 3, "banned": [[7], [2, 9]], "min_new_tokens": 9}
    options |= {"force_end": False, "temperature": 1.2, "top_k": 60, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9}
    sampler = Sampler(ends={4}, **options)
    adjust = hf.LogitsProcessorList(their_adjusters(options, text, [4]))
    exact = hf.LogitsProcessorList(their_filters(options))(None, adjust(torch.tensor([text.tokens]), z))
    exact = exact.softmax(-1)[0].double()
    drawn = sampler.choose(z.expand(n, V), [row_generator(3, row) for row in range(n)], [text] * n)
    counts = drawn.bincount(minlength=V).double()
    assert 20 < (exact > 0).sum() < 60
    assert counts[exact == 0].sum() == 0
    assert chi_square_p(counts, n * exact) > 1e-4
    assert chi_square_p(counts, n * torch.roll(exact, 1).clamp(min=1e-9)) < 1e-9


EVERYTHING = {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2, "no_repeat_ngram": 2} | {
    "banned": ((7,), (0, 1)), "min_new_tokens": 4, "ends": frozenset({4}), "force_end": True, "max_new_tokens": 30
} | {"forced_first": 5, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9}  # fmt: skip


def test_a_row_alone_equals_the_row_among_others():
    z = logits_of_all_kinds()[:-1]
    histories = texts(len(z))
    whole = Sampler(**EVERYTHING).probabilities(z, histories)
    for row, text, expected in zip(z, histories, whole, strict=True):
        assert torch.equal(Sampler(**EVERYTHING).probabilities(row[None], [text])[0], expected)


@pytest.mark.parametrize("name", ["repetition_penalty", "frequency_penalty", "no_repeat_ngram", "banned", "force_end"])
def test_arguments_are_left_as_they_are(name):
    z, histories = logits_of_all_kinds(), texts(25)
    before = z.clone(), [list(text.tokens) for text in histories]
    kept = {name: EVERYTHING[name], "ends": {4}, "max_new_tokens": 2}
    Sampler(**kept).adjust(z, histories)
    assert torch.equal(z, before[0]) and [text.tokens for text in histories] == before[1]


def test_nothing_to_do_returns_the_same_scores():
    z, fresh = logits_of_all_kinds()[:2], [Text([1, 2], 2), Text([3], 1)]
    assert Sampler(temperature=0.3, top_k=3).adjust(z, None) is z
    idle = {"frequency_penalty": 1.0, "no_repeat_ngram": 3, "banned": [[5, 6]], "force_end": True}
    assert Sampler(ends={4}, max_new_tokens=9, **idle).adjust(z, fresh) is z


def test_greedy_takes_the_adjusted_best():
    z = torch.tensor([[3.0, 2.0, 1.0]])
    assert Sampler(temperature=0, banned=[0]).choose(z, [], [Text([1], 1)]).tolist() == [1]
    assert Sampler(temperature=0, banned=[0]).probabilities(z, [Text([1], 1)]).tolist() == [[0.0, 1.0, 0.0]]
    assert Sampler(temperature=0, presence_penalty=1.5).choose(z.bfloat16(), [], [Text([1, 0], 1)]).tolist() == [1]


def test_the_later_of_two_that_disagree_wins():
    z = torch.zeros(1, 5)
    forced = Sampler(banned=[3], forced_first=3, ends={3}, min_new_tokens=1)
    assert forced.adjust(z, [Text([0], 1)]).tolist() == [[-math.inf] * 3 + [0.0, -math.inf]]
    last = Sampler(banned=[4], ends={4}, min_new_tokens=2, max_new_tokens=2, force_end=True, temperature=0)
    assert last.choose(z, [], [Text([0, 1], 1)]).tolist() == [4]


def test_extra_comes_last_and_sees_the_texts():
    def even_only(scores, histories):
        assert [text.tokens for text in histories] == [[1, 2]]
        assert scores[0, 0] == -math.inf
        return scores.index_fill(1, torch.tensor([1, 3]), -math.inf)

    sampler = Sampler(banned=[0], extra=[even_only], temperature=0)
    assert sampler.choose(torch.tensor([[9.0, 8.0, 1.0, 7.0, 0.0]]), [], [Text([1, 2], 1)]).tolist() == [2]


def no_tensor(scores, histories):
    return None


def no_number(scores, histories):
    return scores * math.nan


@pytest.mark.parametrize(
    "options, words",
    [
        ({"banned": range(1, 5)}, ["every token of row 1", "banned"]),
        ({"no_repeat_ngram": 1}, ["every token of row 1", "no_repeat_ngram"]),
        ({"banned": [0, 1, 2], "ends": {3, 4}, "min_new_tokens": 9}, ["row 0", "banned or min_new_tokens"]),
        ({"extra": (no_tensor,)}, ["no_tensor", "NoneType", "(2, 5)"]),
        ({"extra": (no_number,)}, ["row 0", "NaN", "extra"]),
        ({"banned": [[1, 2], [5]]}, ["banned", "token 5", "vocabulary of 5"]),
        ({"forced_first": 5}, ["forced_first", "token 5"]),
        ({"min_new_tokens": 1, "ends": {77}}, ["ends", "token 77"]),
    ],
)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_what_cannot_be_drawn_is_named(options, words, temperature):
    z = torch.zeros(2, 5)
    z[1, 0] = -math.inf
    histories = [Text([0, 1, 2], 1), Text([0, 1, 2, 3, 4], 5)]
    with pytest.raises(Error) as caught:
        Sampler(temperature=temperature, **options).choose(z, [row_generator(0, 0)] * 2, histories)
    assert all(word in str(caught.value) for word in words), caught.value


def test_histories_must_fit():
    for histories, words in ((None, "none"), ([Text([1], 1)], "those of 1")):
        with pytest.raises(Error, match=f"no_repeat_ngram looks at the text.*2 rows, not {words}"):
            Sampler(no_repeat_ngram=2).probabilities(torch.zeros(2, 5), histories)


@pytest.mark.parametrize(
    "field, value",
    [
        *(("temperature", x) for x in (1e-9, True, "hot", math.inf)),
        *((name, x) for name in ("top_p", "min_p", "typical_p") for x in (0, 1.5, -1, math.nan, "x")),
        *(("repetition_penalty", x) for x in (0, -1.0, math.inf, "x")),
        *((name, x) for name in ("frequency_penalty", "presence_penalty") for x in (None, math.nan, "x")),
        *(("no_repeat_ngram", x) for x in (0, 1.5, True)),
        *(("banned", x) for x in (5, "ab", [[]], [-1], [[1, -2]], [1.5], None)),
        *(("min_new_tokens", x) for x in (-1, None, 1.0)),
        *(("forced_first", x) for x in (-1, "a")),
        *(("force_end", x) for x in (1, None)),
        *(("max_new_tokens", x) for x in (0, 2.5)),
        *(("ends", x) for x in (5, [-1], ["a"])),
        *(("extra", x) for x in (print, [3])),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(Error) as caught:
        Sampler(**{field: value})
    assert str(caught.value).startswith(f"{field} is {value!r}: give")


def test_settings_that_contradict_each_other():
    with pytest.raises(Error, match="give `ends` and `max_new_tokens`"):
        Sampler(force_end=True, ends={4})
    with pytest.raises(Error, match="min_new_tokens is 5, max_new_tokens is 4"):
        Sampler(min_new_tokens=5, max_new_tokens=4)
    sampler = Sampler(**EVERYTHING)
    assert replace(sampler, top_k=3).banned == sampler.banned == ((7,), (0, 1))
    assert hash(sampler) == hash(Sampler(**EVERYTHING))
