"""Processors, penalties and the whole Sampler against transformers' classes, written-out loops and chi-square."""

import math
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as hf

from minigpt import Error
from minigpt.generation import penalties, processors
from minigpt.generation.sampling import Sampler, row_generator

V = 97


@dataclass
class Text:
    tokens: list[int]
    prompt: int


def logits_of_all_kinds():
    torch.manual_seed(0)
    flat, sharp = torch.randn(4, V), 8 * torch.randn(4, V)
    tied = torch.randint(-3, 4, (4, V)).float()
    masked = torch.randn(4, V).masked_fill(torch.rand(4, V) < 0.5, -math.inf)
    quarters = torch.full((1, V), -math.inf).index_fill(1, torch.tensor([3, 40, 41, 90]), 0.0)
    return torch.cat([flat, sharp, tied, masked, flat + 1000, flat.log_softmax(-1), quarters])


def texts(n: int, seed: int = 0, few: int = 6) -> list[Text]:
    """Unequal lengths, few different tokens, so that n-grams and banned sequences do come back."""
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 25, (n,), generator=stream).tolist()
    tokens = [torch.randint(few, (length,), generator=stream).tolist() for length in lengths]
    return [Text(row, 1 + i % len(row)) for i, row in enumerate(tokens)]


def by_row(process, z, histories):
    """transformers' processors take histories of one length: a row at a time."""
    rows = zip(z, histories, strict=True)
    return torch.cat([process(torch.tensor([text.tokens]), row[None].clone()) for row, text in rows])


def filtered(process, z):
    """transformers' probabilities, and the rows where its choice does not hang on the order of equal tokens."""
    expected, firm = process(None, z).softmax(-1), torch.ones(len(z), dtype=torch.bool)
    for _ in range(4):
        order = torch.randperm(V)
        shuffled = process(None, z[:, order]).softmax(-1)[:, order.argsort()]
        firm &= ((shuffled > 0) == (expected > 0)).all(-1)
    return expected, firm


def same(ours, expected, firm, least):
    assert firm.sum() >= least
    assert torch.equal((ours > 0)[firm], (expected > 0)[firm])
    assert torch.allclose(ours[firm], expected[firm], atol=5e-6)


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.05, 0.3, 0.999, 1.0])
def test_min_p_equals_transformers(share):
    z = logits_of_all_kinds()
    assert torch.equal(processors.min_p(z, share), hf.MinPLogitsWarper(share)(None, z))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.3, 0.5, 0.75, 0.9, 0.999])
def test_typical_equals_transformers_ties_included(p):
    z = logits_of_all_kinds()
    expected, firm = filtered(hf.TypicalLogitsWarper(p), z)
    same(processors.typical(z, p).softmax(-1), expected, firm, least=22)
    assert processors.typical(z, 1.0) is z


def test_typical_by_its_definition():
    z = logits_of_all_kinds().double()
    for p in (0.2, 0.6, 0.95):
        for row, ours in zip(z, processors.typical(z, p), strict=True):
            mass = {v: row.softmax(-1)[v].item() for v in range(V) if row[v] > -math.inf}
            entropy = -sum(m * math.log(m) for m in mass.values() if m)
            distance = {v: abs(-math.log(m) - entropy) if m else math.inf for v, m in mass.items()}
            held, border = 0.0, 0.0
            for v in sorted(mass, key=distance.get):
                if held < p:
                    border = distance[v]
                held += mass[v]
            assert {v for v in range(V) if ours[v] > -math.inf} == {v for v in mass if distance[v] <= border + 1e-9}


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.5, 0.9, 0.9999, 1 - 1e-12])
def test_ranking_the_head_equals_ranking_all(p, monkeypatch):
    size = 3000
    sharp = 3 * torch.randn(2, 3, size)
    tied = torch.randint(0, 12, (2, 3, size)).float()
    masked = sharp.masked_fill(torch.rand(2, 3, size) < 0.9, -math.inf)
    for head in (2, 50, 700, 2999):
        monkeypatch.setattr(processors, "HEAD", head)
        for key in (sharp, tied, masked, torch.zeros(2, 3, size), sharp * 3):
            mass = key.double().softmax(-1)
            real = mass > 0
            assert torch.equal(processors.leading_fast(key, mass, p) & real, processors.leading(key, mass, p) & real)


@pytest.mark.parametrize("r", [0.7, 1.0, 1.3, 5.0])
def test_repetition_equals_transformers(r):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    expected = by_row(hf.RepetitionPenaltyLogitsProcessor(r), z, histories)
    assert torch.equal(penalties.repetition(z, histories, r), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 30])
def test_no_repeat_ngram_equals_transformers_and_brute_force(n):
    z = logits_of_all_kinds()
    histories = texts(len(z), few=3)
    ours = penalties.no_repeat_ngram(z, histories, n)
    assert torch.equal(ours, by_row(hf.NoRepeatNGramLogitsProcessor(n), z, histories))
    for row, before, text in zip(ours, z, histories, strict=True):
        grams = {tuple(text.tokens[i : i + n]) for i in range(len(text.tokens) - n + 1)}
        repeats = [(*text.tokens[len(text.tokens) - n + 1 :], v) in grams for v in range(V)]
        assert torch.equal(row, before.masked_fill(torch.tensor(repeats), -math.inf))


def test_banned_equals_transformers():
    z = logits_of_all_kinds()
    histories = texts(len(z), few=3)
    words = [[7], [0, 1], [1, 1], [2, 0, 5], [0, 0, 1, 2], [1, 90], [0] * 40, [9, 8]]
    ours = Sampler(banned=words).adjust(z, histories)
    assert torch.equal(ours, by_row(hf.NoBadWordsLogitsProcessor(words), z, histories))
    assert len({tuple(row.isinf().tolist()) for row in ours[:8]}) > 2  # not the same for every text
    assert torch.equal(Sampler(banned=[7, 9]).adjust(z, histories), z.index_fill(1, torch.tensor([7, 9]), -math.inf))


@pytest.mark.parametrize("n", [1, 2, 10])
def test_end_tokens_equal_transformers(n):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    for row, text in zip(z, histories, strict=True):
        ids, scores, ends = torch.tensor([text.tokens]), row[None], [4, 90]
        expected = hf.MinNewTokensLengthLogitsProcessor(text.prompt, n, ends)(ids, scores)
        assert torch.equal(penalties.min_new_tokens(scores, [text], n, frozenset(ends)), expected)
        expected = hf.ForcedEOSTokenLogitsProcessor(text.prompt + n, ends)(ids, scores)
        if len(text.tokens) < text.prompt + n:  # where there is a place left to write
            assert torch.equal(penalties.force_end(scores, [text], n, frozenset(ends)), expected)
    whole = penalties.min_new_tokens(z, histories, n, {4, 90})
    alone = [penalties.min_new_tokens(row[None], [text], n, {4, 90}) for row, text in zip(z, histories, strict=True)]
    assert torch.equal(whole, torch.cat(alone))


def test_forced_first_equals_transformers():
    z = logits_of_all_kinds()[:3]
    histories = [Text([8], 1), Text([8, 5], 1), Text([8, 5], 2)]
    ours = penalties.forced_first(z, histories, 6)
    assert torch.equal(ours[:2], by_row(hf.ForcedBOSTokenLogitsProcessor(6), z[:2], histories[:2]))
    assert torch.equal(ours[2], ours[0])  # transformers has it for decoders that begin with one token


@pytest.mark.parametrize("frequency, presence", [(0.5, 0.0), (0.0, 1.5), (0.7, 0.3), (-1.0, -2.0), (-0.2, 0.9)])
def test_frequency_and_presence_by_a_loop(frequency, presence):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    expected = z.double().clone()
    for row, text in zip(expected, histories, strict=True):
        for v, count in Counter(text.tokens[text.prompt :]).items():
            row[v] = row[v] - count * frequency - (1 if count > 0 else 0) * presence
    ours = Sampler(frequency_penalty=frequency, presence_penalty=presence).adjust(z, histories)
    assert torch.allclose(ours.double(), expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(ours, z)


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


def their_adjusters(options, text, ends):
    if options["repetition_penalty"]:
        yield hf.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    if options["no_repeat_ngram"]:
        yield hf.NoRepeatNGramLogitsProcessor(options["no_repeat_ngram"])
    if options["banned"]:
        yield hf.NoBadWordsLogitsProcessor(options["banned"])
    yield hf.MinNewTokensLengthLogitsProcessor(text.prompt, options["min_new_tokens"], ends)
    if options["force_end"]:
        yield hf.ForcedEOSTokenLogitsProcessor(text.prompt + options["max_new_tokens"], ends)


def their_filters(options):
    yield hf.TemperatureLogitsWarper(options["temperature"])
    kinds = {"top_k": hf.TopKLogitsWarper, "top_p": hf.TopPLogitsWarper, "min_p": hf.MinPLogitsWarper}
    for name, kind in (kinds | {"typical_p": hf.TypicalLogitsWarper}).items():
        if options[name]:
            yield kind(options[name])


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
    for seed in range(3):
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


def chi_square_p(counts, expected):
    """Upper tail of the chi-square test; cells with an expectation under 5 are pooled."""
    small = expected < 5
    counts = torch.cat([counts[~small], counts[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    keep = expected > 0
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    return torch.special.gammaincc((keep.sum() - 1) / 2, statistic / 2).item()


@pytest.mark.parametrize("kind", range(2))
def test_draws_follow_transformers_probabilities(kind):
    n, text = 20_000, Text([1, 2, 3, 1, 2], 2)
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


small_logits = st.lists(st.floats(-50, 50, width=32), min_size=8, max_size=8)
written = st.lists(st.integers(0, 7), max_size=12)


@settings(max_examples=200, deadline=None)
@given(small_logits, written, st.floats(1, 10))
def test_repetition_takes_from_seen_tokens_as_a_whole(z, tokens, r):
    """Odds of a seen token against an unseen one never rise, whatever the signs; nor does what all seen tokens hold, so
    one seen token alone never gains. Seen tokens keep their order, though one may gain from another."""
    z = torch.tensor([z], dtype=torch.float64)
    after = penalties.repetition(z, [Text([0, *tokens], 1)], r)
    seen = torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor([0, *tokens]), True)
    change = (after - z)[0]
    assert (change[seen] <= 0).all() and (change[~seen] == 0).all()
    assert after.softmax(-1)[0, seen].sum() <= z.softmax(-1)[0, seen].sum() + 1e-12
    by_z = after[0, seen][z[0, seen].argsort()]
    assert (by_z.diff() >= 0).all()


@settings(max_examples=200, deadline=None)
@given(small_logits, written, st.floats(0, 3), st.floats(0, 3))
def test_counted_penalties_take_from_what_was_written_oftener(z, tokens, frequency, presence):
    """Odds of u against v never rise where u was written at least as often; the oftenest written never gains."""
    z = torch.tensor([z], dtype=torch.float64)
    after = penalties.frequency_and_presence(z, [Text([7, *tokens], 1)], frequency, presence)
    count = torch.tensor([tokens.count(v) for v in range(8)])
    change = (after - z)[0]
    oftener = count[:, None] >= count
    assert ((change[:, None] - change)[oftener] <= 1e-12).all()
    p, q = z.softmax(-1)[0], after.softmax(-1)[0]
    assert q[count.argmax()] <= p[count.argmax()] + 1e-12
    shifted = penalties.frequency_and_presence(z - 100, [Text([7, *tokens], 1)], frequency, presence)
    assert torch.allclose(shifted.softmax(-1), after.softmax(-1), atol=1e-9)


def test_seen_tokens_may_gain_from_each_other():
    z = torch.tensor([[4.0, 3.0, -9.0]])
    after = penalties.repetition(z, [Text([0, 1], 1)], 2.0)
    assert after.softmax(-1)[0, 1] > z.softmax(-1)[0, 1]


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
