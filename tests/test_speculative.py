"""Speculative decoding against exact probabilities of every text, and against greedy decoding token for token."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from helpers import KINDS, model
from processing import chi_square_p

from minigpt import Error
from minigpt.generation import generate
from minigpt.generation.sampling import Sampler, draw, row_generator
from minigpt.generation.speculative import accept, rounds, speculate

V = 5
PROMPT = [3, 1]


def fit(drawn, exact):
    """How likely are counts as far from the exact probabilities as those of the drawn texts? 0 if one cannot be."""
    counts = dict.fromkeys(exact, 0)
    for text in drawn:
        counts[tuple(text)] += 1
    if any(counts[text] for text, p in exact.items() if p == 0):
        return 0.0
    counts, p = torch.tensor([*counts.values()]).double(), torch.tensor([*exact.values()]).double()
    return chi_square_p(counts, len(drawn) * p)


def pair(kind="gpt2", std=0.3, disturbed=0.1, **changes):
    """A model, and as draft the same with disturbed weights: often right, often wrong."""
    large, small = model(kind, std=std, **changes), model(kind, **changes)
    with torch.no_grad():
        for weight, same in zip(small.parameters(), large.parameters(), strict=True):
            weight.copy_(same + disturbed * std * torch.randn_like(same))
    return large, small


class TestAccept:
    """One round by tables, which hold the probabilities of the next token after every text of up to two tokens."""

    @staticmethod
    def tables(seed, keep):
        generator, sampler = torch.Generator().manual_seed(seed), Sampler(top_k=keep)
        return [sampler.probabilities(torch.randn(V**n, V, generator=generator)) for n in range(3)]

    @staticmethod
    def one_round(p, q, a, b, stream):
        taken, more = accept(
            torch.stack([p[0][0], p[1][a], p[2][V * a + b]]), torch.stack([q[0][0], q[1][a]]), [a, b], stream
        )
        return [a, b][:taken] + [more]

    @pytest.mark.parametrize("n, keep", [(20_000, V), (5000, 3)], ids=["all tokens", "the top 3 of each"])
    def test_the_law_of_three_tokens(self, n, keep):
        p, q, stream = self.tables(1, keep), self.tables(2, keep), row_generator(0, 0)
        first = q[0].expand(n, V).multinomial(1)[:, 0]
        second = q[1][first].multinomial(1)[:, 0]
        drawn = [self.one_round(p, q, a, b, stream) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
        for text in drawn:  # where a token was refused, the model goes on alone
            while len(text) < 3:
                place = sum(V**i * token for i, token in enumerate(reversed(text)))
                text += draw(p[len(text)][place][None], [stream]).tolist()
        exact, of_draft = {}, {}
        for a, b, c in itertools.product(range(V), repeat=3):
            after = float(p[1][a, b]) * float(p[2][V * a + b, c])
            exact[a, b, c], of_draft[a, b, c] = float(p[0][0, a]) * after, float(q[0][0, a]) * after
        assert fit(drawn, exact) > 1e-4
        assert fit(drawn, of_draft) < 1e-9

    def test_share_taken_is_what_p_and_q_have_in_common(self):
        """P(taken) = sum min(p, q): Leviathan et al., corollary 3.6."""
        p, q, n, stream = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.1, 0.3, 0.6]]), 5000, row_generator(0, 0)
        proposed = q.expand(n, 3).multinomial(1).tolist()
        taken = sum(accept(p, q, tokens, stream)[0] for tokens in proposed)
        assert taken / n == pytest.approx(0.6, abs=4 * (0.6 * 0.4 / n) ** 0.5)

    def test_nothing_comes_after_the_last_if_the_model_did_not_read_it(self):
        p = torch.tensor([[0.0, 1.0, 0.0]])
        assert accept(p, p, [1], row_generator(0, 0)) == (1, None)

    def test_p_and_q_that_differ_by_rounding_alone(self):
        """All of p is at most q, so that nothing is left after a refusal; token 0 has probability 0 even then."""
        p, q = torch.tensor([[0.0, 1.0]]), torch.tensor([[1e-7, 1.0]])
        assert accept(p, q, [0], row_generator(0, 0)) == (0, 1)


class TestLaw:
    """The whole loop with real models and caches: n texts against the exact probabilities of every text."""

    @staticmethod
    def exact(gpt, length, eos=None, **sampling):
        """{text: probability} of all texts of so many tokens, or up to an eos, each read from its beginning."""
        sampler = Sampler(ends=frozenset() if eos is None else frozenset([eos]), max_new_tokens=length, **sampling)
        done, begun = {}, {(): 1.0}
        for _ in range(length):
            grown = {}
            for text, before in begun.items():
                history = SimpleNamespace(tokens=[*PROMPT, *text], prompt=len(PROMPT))
                with torch.no_grad():
                    p = sampler.probabilities(gpt(torch.tensor([history.tokens]))[:, -1], [history])[0].double()
                for token in range(V):
                    (done if token == eos else grown)[*text, token] = before * float(p[token])
            begun = grown
        assert sum((done | begun).values()) == pytest.approx(1, abs=1e-5)
        return done | begun

    @staticmethod
    def drawn(large, small, n, length, draft_tokens, **options):
        found = [speculate(large, small, PROMPT, length, draft_tokens, seed=seed, **options) for seed in range(n)]
        return [each.tokens for each in found], sum(each.accepted for each in found) / n

    @pytest.mark.parametrize(
        "kind, options",
        [
            ("gpt2", {}),
            ("mixture", {"temperature": 1.3, "top_k": 4, "top_p": 0.9, "repetition_penalty": 1.5, "eos": 2}),
        ],
        ids=["plain", "filters, a penalty and an end"],
    )
    def test_texts_follow_the_large_model(self, kind, options):
        large, small = pair(kind, std=0.7, disturbed=0.7, vocab_size=V, n_layers=1, n_heads=2, d_model=8)
        texts, accepted = self.drawn(large, small, 400, 3, 2, **options)
        assert 0.2 < accepted < 0.95
        assert fit(texts, self.exact(large, 3, **options)) > 1e-4
        assert fit(texts, self.exact(small, 3, **options)) < 1e-6

    def test_a_draft_that_is_always_wrong(self):
        """The two likeliest tokens of the draft are the two least likely of the model: none is ever taken."""
        large, small = pair(std=0.7, disturbed=0.0, vocab_size=V, n_layers=1, n_heads=2, d_model=8, tied=False)
        with torch.no_grad():
            small.head.weight.neg_()
        texts, accepted = self.drawn(large, small, 250, 2, 3, top_k=2)
        assert accepted == 0
        assert fit(texts, self.exact(large, 2, top_k=2)) > 1e-4

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_model_itself_as_draft_is_always_right(self, kind):
        large = model(kind, std=0.3)
        found = speculate(large, large, [4, 2], 18, draft_tokens=5, temperature=0.8, seed=3)
        assert (len(found.tokens), found.accepted, found.steps) == (18, 1.0, 3)


class TestGreedy:
    @pytest.mark.parametrize("draft_tokens", [1, 3, 8])
    @pytest.mark.parametrize("kind", KINDS)
    def test_equals_generate(self, kind, draft_tokens):
        """To the end of the context, after a short prompt and a long one."""
        accepted = []
        for disturbed, prompt in ((0.002, [7]), (0.2, [7, 8, 9]), (0.1, list(range(15))), (3.0, list(range(18)))):
            large, small = pair(kind, disturbed=disturbed)
            found = speculate(large, small, prompt, 100, draft_tokens, temperature=0)
            assert found.tokens == generate(large, [prompt], 100, temperature=0)[0]
            accepted.append(found.accepted)
        assert min(accepted) < 0.3 < 0.6 < max(accepted)

    @pytest.mark.parametrize(
        "options",
        [
            {"repetition_penalty": 1.6, "frequency_penalty": 0.3, "presence_penalty": 0.5},
            {"no_repeat_ngram": 2, "banned": [5, [6, 7]]},
            {"eos": [3, 11, 20, 31, 48], "min_new_tokens": 3},
            {"eos": 3, "force_end": True, "forced_first": 9},
        ],
        ids=lambda options: next(iter(options)),
    )
    def test_every_token_has_its_own_history(self, options):
        for kind in KINDS:
            large, small = pair(kind)
            found = speculate(large, small, [4, 2, 4], 14, 4, temperature=0, **options)
            assert found.tokens == generate(large, [[4, 2, 4]], 14, temperature=0, **options)[0]

    def test_a_draft_of_another_kind_and_size(self):
        large, small = model("llama", std=0.3), model("gpt2", std=0.3, n_layers=1, d_model=16, context=18)
        found = speculate(large, small, [1, 2], 18, temperature=0)
        assert found.tokens == generate(large, [[1, 2]], 18, temperature=0)[0]

    def test_bfloat16(self):
        """The caches have the weights' type; a draft in another one is a draft like any other."""
        large, small = pair()
        found = speculate(large, small.bfloat16(), [4, 2], 12, temperature=0)
        assert found.tokens == generate(large, [[4, 2]], 12, temperature=0)[0]
        assert len(speculate(large.bfloat16(), small, [4, 2], 12, seed=1).tokens) == 12


class TestEnds:
    @pytest.mark.parametrize("at", range(1, 10))
    def test_an_end_anywhere_in_a_round(self, at):
        """The model is its own draft, so 4 + 1 tokens are written at a time; the end is the draft's or the model's."""
        large = model("llama", std=0.3)
        free = generate(large, [[4, 2]], 12, seed=0, temperature=0, no_repeat_ngram=1)[0]
        found = speculate(large, large, [4, 2], 12, 4, temperature=0, no_repeat_ngram=1, eos=free[at - 1])
        assert (found.tokens, found.accepted, found.steps) == (free[:at], 1.0, (at + 4) // 5)

    @pytest.mark.parametrize("prompt, new", [(3, 22), (20, 5), (23, 2), (24, 1)])
    @pytest.mark.parametrize("draft_tokens", [1, 4, 50])
    def test_the_context(self, prompt, new, draft_tokens):
        large, small = pair("gpt3")
        found = speculate(large, small, list(range(prompt)), 100, draft_tokens)
        assert len(found.tokens) == len(generate(large, [list(range(prompt))], 100)[0]) == new

    @pytest.mark.parametrize("new", [1, 2, 5, 6])
    def test_the_number_of_tokens(self, new):
        large, small = pair()
        found = speculate(large, small, [1], new)
        assert len(found.tokens) == new
        assert found.steps == 1 and found.accepted == 0 if new == 1 else found.steps >= 1

    def test_the_draft_needs_room_for_all_but_the_last_two(self):
        large, small = model("gpt2", std=0.3), model("gpt2", std=0.3, context=10)
        assert len(speculate(large, small, [1, 2, 3], 9).tokens) == 9
        with pytest.raises(Error, match="draft's context holds 10 tokens, this text may need 11"):
            speculate(large, small, [1, 2, 3], 10)


def test_rounds_add_up():
    large, small = pair("llama", disturbed=0.2)
    each, whole = list(rounds(large, small, [1, 2], 15, 3, seed=4)), speculate(large, small, [1, 2], 15, 3, seed=4)
    assert sum((one.tokens for one in each), []) == whole.tokens
    assert len(each) == whole.steps
    assert all(len(one.tokens) == one.taken + 1 and one.taken <= one.proposed <= 3 for one in each)
    assert whole.accepted == sum(one.taken for one in each) / sum(one.proposed for one in each)


def test_a_seed_gives_a_text_and_nothing_else_is_touched():
    large, small = pair(resid_dropout=0.5, attn_dropout=0.5, embed_dropout=0.5)
    expected = speculate(large, small, [1, 2], 12, seed=7)
    assert speculate(large, small, [1, 2], 12, seed=8).tokens != expected.tokens
    for gpt in (large, small):
        gpt.train()
        gpt.blocks[0].eval()
    modes = [[module.training for module in gpt.modules()] for gpt in (large, small)]
    state = torch.get_rng_state()
    begun = rounds(large, small, [1, 2], 12, seed=7)
    tokens = list(next(begun).tokens)
    for each in begun:
        assert [[module.training for module in gpt.modules()] for gpt in (large, small)] == modes
        tokens += each.tokens
    assert tokens == expected.tokens
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"draft": {"vocab_size": 60}}, "draft knows 60 tokens, the model 61"),
        ({"draft_tokens": 0}, "draft_tokens is 0"),
        ({"draft_tokens": 2.0}, "draft_tokens is 2.0"),
        ({"prompt": []}, "empty"),
        ({"prompt": [61]}, "not in the model's vocabulary"),
        ({"prompt": [1] * 25}, "shorten it"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"eos": 61}, "eos"),
        ({"top_p": 2}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"topk": 2}, "no option .topk"),
    ],
    ids=str,
)
def test_bad_input_is_named_at_the_call(changes, message):
    changes = dict(changes)
    small = model("gpt2", **changes.pop("draft", {}))
    with pytest.raises(Error, match=message):
        rounds(**{"model": model("gpt2"), "draft": small, "prompt": [1, 2]} | changes)
