"""Generation against transformers' generate and processors, brute force, and itself alone.

The models are tiny and their weights large (std 0.3): with the usual 0.02 every continuation is the same token over
and over, and a wrong position or mask would not show.
"""

import math

import pytest
import torch
from processing import chi_square_p
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.generation import logits_process

from minigpt import GPT, Error, GPTConfig, masks
from minigpt.cache import Cache
from minigpt.generation import generate, processors, stream
from minigpt.generation.sampling import Sampler, draw, row_generator

V, CONTEXT = 97, 32
PROMPTS = [[5, 17, 3], [8], list(range(20, 31)), [5, 17, 3], [96, 0, 0, 1, 2, 50, 7]]
SHAPES = {
    "learned": {},
    "rotary": {"positions": "rotary"},
    "grouped": {"positions": "rotary", "n_kv_heads": 2, "norm": "rmsnorm", "bias": False},
    "banded": {"window": 4, "banded_layers": (1,)},
    "banded rotary": {"window": 3, "banded_layers": (0, 1), "positions": "rotary", "n_kv_heads": 1},
    "post-norm": {"norm_place": "post"},
}
DRAWS = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 0.7, "seed": 3},
    "filtered": {"temperature": 1.3, "top_k": 20, "top_p": 0.8, "seed": 11},
}


def tiny(shape: str, context: int = CONTEXT) -> GPT:
    torch.manual_seed(1)
    sizes = {"n_layers": 2, "n_heads": 4, "d_model": 32, "vocab_size": V, "context": context, "init_std": 0.3}
    model = GPT(GPTConfig(**{"tied": False} | sizes | SHAPES[shape]))
    with torch.no_grad():
        for weight in model.parameters():  # biases and norms too
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


@pytest.fixture(params=SHAPES)
def model(request):
    return tiny(request.param)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    """The same weights in transformers and here, by way of a directory."""
    torch.manual_seed(2)
    common = {"vocab_size": V, "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": None}
    if request.param == "gpt2":
        theirs = GPT2LMHeadModel(GPT2Config(n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4, **common))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
        theirs = LlamaForCausalLM(LlamaConfig(**sizes, **heads, **common))
    directory = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(directory)
    return theirs.eval(), GPT.from_pretrained(directory)


def by_transformers(theirs, prompt, n, **options):
    ids = torch.tensor([prompt])
    out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, pad_token_id=0, **options)
    return out[0, len(prompt) :].tolist()


def by_hand(model, prompt, n):
    """Greedy with no cache, no batch, no padding."""
    tokens = list(prompt)
    for _ in range(min(n, model.config.context + 1 - len(prompt))):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_equals_transformers(pair):
    theirs, ours = pair
    expected = [by_transformers(theirs, prompt, 20, do_sample=False) for prompt in PROMPTS]
    assert generate(ours, PROMPTS, 20, temperature=0) == expected
    assert len({token for row in expected for token in row}) > 10  # not a loop that anything would match


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 9}, {"temperature": 1.5, "top_p": 0.7}])
def test_a_seed_draws_what_transformers_draws(pair, options):
    theirs, ours = pair
    for seed in (0, 1, 4_000_000_000):
        torch.manual_seed(seed)
        expected = by_transformers(theirs, PROMPTS[0], 20, do_sample=True, **{"top_k": 0} | options)
        assert generate(ours, [PROMPTS[0]], 20, seed=seed, **options) == [expected]


def test_eos_equals_transformers(pair):
    theirs, ours = pair
    eos = by_transformers(theirs, PROMPTS[0], 20, do_sample=False)[7]
    expected = by_transformers(theirs, PROMPTS[0], 20, do_sample=False, eos_token_id=eos)
    assert generate(ours, [PROMPTS[0]], 20, temperature=0, eos=eos) == [expected]


def logits_of_all_kinds():
    torch.manual_seed(0)
    flat, sharp = torch.randn(4, V), 8 * torch.randn(4, V)
    tied = torch.randint(-3, 4, (4, V)).float()
    masked = torch.randn(4, V).masked_fill(torch.rand(4, V) < 0.5, -math.inf)
    quarters = torch.full((1, V), -math.inf).index_fill(1, torch.tensor([3, 40, 41, 90]), 0.0)
    return torch.cat([flat, sharp, tied, masked, flat + 1000, quarters])


@pytest.mark.parametrize("k", [1, 2, 5, 50, V, 1000])
def test_top_k_equals_transformers_ties_included(k):
    z = logits_of_all_kinds()
    assert torch.equal(processors.top_k(z, k), logits_process.TopKLogitsWarper(k)(None, z))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.75, 0.9, 0.999, 1.0])
def test_top_p_equals_transformers(p):
    z = logits_of_all_kinds()
    ours, theirs = (x.softmax(-1) for x in (processors.top_p(z, p), logits_process.TopPLogitsWarper(p)(None, z)))
    # Which of equal tokens at the border stays is the sort's choice there; how much mass stays is not.
    assert torch.allclose(ours.sort(-1).values, theirs.sort(-1).values, atol=5e-6)
    untied = [row for row in range(len(z)) if len(z[row].unique()) == (~z[row].isinf()).sum() + z[row].isinf().any()]
    assert len(untied) >= 12
    assert torch.allclose(ours[untied], theirs[untied], atol=5e-6)


def test_top_p_by_its_definition():
    z = logits_of_all_kinds()
    for p in (0.05, 0.3, 0.5, 0.95):
        for row, filtered in zip(z.double(), processors.top_p(z, p), strict=True):
            mass = row.softmax(-1)
            order = sorted(range(V), key=lambda v: (-row[v].item(), v))
            before, kept = 0.0, set()
            for v in order:
                if before < p:
                    kept.add(v)
                before += mass[v].item()
            assert {v for v in range(V) if not filtered[v].isinf()} == {v for v in kept if not row[v].isinf()}


def test_filters_in_transformers_order():
    z = logits_of_all_kinds()[:8]
    expected = logits_process.TemperatureLogitsWarper(1.7)(None, z)
    expected = logits_process.TopKLogitsWarper(30)(None, expected)
    expected = logits_process.TopPLogitsWarper(0.6)(None, expected).softmax(-1)
    assert torch.allclose(Sampler(temperature=1.7, top_k=30, top_p=0.6).probabilities(z), expected, atol=5e-6)


def test_draws_follow_the_probabilities_over_rows_and_steps():
    model, n = tiny("rotary"), 20_000
    sampler = {"temperature": 1.4, "top_k": 40}
    rows = generate(model, [[5, 17]] * n, 2, seed=5, **sampler)
    filters = Sampler(**sampler)
    with torch.no_grad():
        first = filters.probabilities(model(torch.tensor([[5, 17]]))[:, -1])[0].double()
        after = filters.probabilities(model(torch.tensor([[5, 17, v] for v in range(V)]))[:, -1]).double()
    drawn = torch.tensor(rows)
    for place, exact in ((0, first), (1, first @ after)):
        counts = drawn[:, place].bincount(minlength=V).double()
        assert counts[exact == 0].sum() == 0
        assert chi_square_p(counts, n * exact) > 1e-4
    wrong = torch.roll(first, 1)
    assert chi_square_p(drawn[:, 0].bincount(minlength=V).double(), n * wrong) < 1e-9


def test_draws_of_one_row_follow_the_probabilities():
    p = torch.tensor([0.5, 0.25, 0.0, 0.2, 0.05])
    stream_of_row = row_generator(0, 3)
    drawn = torch.stack([draw(p[None], [stream_of_row])[0] for _ in range(20_000)])
    counts = drawn.bincount(minlength=5).double()
    assert counts[2] == 0
    assert chi_square_p(counts, 20_000 * p.double()) > 1e-4


@pytest.mark.parametrize("draws", DRAWS)
def test_a_row_of_a_batch_equals_the_row_alone(model, draws):
    batch = generate(model, PROMPTS, 25, **DRAWS[draws])
    for place, prompt in enumerate(PROMPTS):
        assert batch[place] == list(stream(model, prompt, 25, row=place, **DRAWS[draws]))
    assert len({token for row in batch for token in row}) > 5


def test_greedy_equals_reading_everything_again(model):
    assert generate(model, PROMPTS, 40, temperature=0) == [by_hand(model, prompt, 40) for prompt in PROMPTS]


@pytest.mark.parametrize("draws", DRAWS)
def test_cached_equals_uncached(model, draws):
    cached = generate(model, PROMPTS, 40, **DRAWS[draws])
    assert cached == generate(model, PROMPTS, 40, use_cache=False, **DRAWS[draws])


def test_rows_that_end_leave_the_others_alone(model):
    full = generate(model, PROMPTS, 25, **DRAWS["sampled"])
    ends = {full[0][2], full[2][9], full[4][15]}
    for row, complete in zip(generate(model, PROMPTS, 25, eos=ends, **DRAWS["sampled"]), full, strict=True):
        stop = next((i for i, token in enumerate(complete) if token in ends), len(complete) - 1)
        assert row == complete[: stop + 1]


def test_the_neighbours_do_not_matter_nor_does_their_number():
    model, prompt = tiny("learned"), [5, 17, 3]
    alone = generate(model, [prompt], 20, seed=9)[0]
    assert generate(model, [prompt, *PROMPTS], 20, seed=9)[0] == alone
    twins = generate(model, [prompt] * 3, 20, seed=9)
    assert twins[0] == alone
    assert len(set(map(tuple, twins))) == 3  # each place has its own stream


def test_the_context_limits_the_text():
    model = tiny("learned", context=12)
    prompts = [[1, 2, 3], list(range(12)), list(range(9)), [4]]
    rows = generate(model, prompts, 100, seed=1)
    assert [len(prompt) + len(row) for prompt, row in zip(prompts, rows, strict=True)] == [13] * 4
    assert rows == [list(stream(model, prompt, 100, seed=1, row=i)) for i, prompt in enumerate(prompts)]
    greedy = generate(model, prompts, 100, temperature=0)
    assert greedy == [by_hand(model, prompt, 100) for prompt in prompts]


def test_a_long_prompt_does_not_shorten_its_neighbours():
    model = tiny("learned")
    rows = generate(model, [[1], [2] * (CONTEXT - 1)], 20, temperature=0)
    assert [len(row) for row in rows] == [20, 2]
    assert rows[0] == by_hand(model, [1], 20)


@pytest.mark.parametrize("sizes", [[1] * 14, [5, 9], [13, 1], [3, 1, 7, 2, 1]])
def test_prefill_in_chunks_equals_prefill_at_once(model, sizes):
    tokens = torch.randint(V, (3, 14), generator=torch.Generator().manual_seed(0))
    keep = torch.arange(14) >= torch.tensor([[0], [4], [13]])
    for kept in (None, keep):
        cache, parts = Cache(model.config, 3), []
        for chunk, part in zip(tokens.split(sizes, 1), keep.split(sizes, 1), strict=True):
            parts.append(model(chunk, cache=cache, keep=None if kept is None else part))
        whole = model(tokens, keep=kept)
        real = torch.ones_like(keep) if kept is None else keep
        assert torch.allclose(torch.cat(parts, 1)[real], whole[real], atol=2e-4)


@pytest.mark.parametrize("n_queries, past", [(1, 0), (1, 9), (4, 6), (10, 0), (3, 1)])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_masks_with_fewer_queries_than_keys_by_brute_force(n_queries, past, window):
    n_keys = n_queries + past
    keep = torch.rand(4, n_keys, generator=torch.Generator().manual_seed(n_keys)) < 0.7
    mask = masks.build(n_queries, past, window=window, keep=keep)[:, 0]
    for b in range(4):
        for q in range(n_queries):
            seen = [j for j in range(past + q + 1) if keep[b, j]]
            expected = set(seen[-window:] if window else seen) | {past + q}
            if keep[b, past + q]:
                assert {j for j in range(n_keys) if mask[b, q, j]} == expected
            else:
                assert mask[b, q, past + q]  # an empty row would be 0/0


def test_select_keeps_rows_in_the_order_asked():
    model = tiny("banded")
    tokens = torch.randint(V, (4, 9), generator=torch.Generator().manual_seed(0))
    keep = torch.arange(6) >= torch.tensor([[0], [2], [5], [1]])
    cache = Cache(model.config, 4)
    model(tokens[:, :6], cache=cache, keep=keep)
    cache.select([3, 1])
    rest = model(tokens[[3, 1], 6:], cache=cache)
    padded = torch.cat([keep, torch.ones(4, 3, dtype=torch.bool)], 1)
    assert torch.allclose(rest, model(tokens, keep=padded)[[3, 1], 6:], atol=2e-4)


def test_seeds():
    model = tiny("learned")
    runs = [tuple(generate(model, [[1, 2]], 20, seed=seed)[0]) for seed in (0, 0, 1, 2)]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3
    numbers = {row_generator(seed, row).initial_seed() for seed in range(20) for row in range(500)}
    assert len(numbers) == 20 * 500


def test_the_global_random_state_and_the_model_are_left_as_found():
    model = tiny("learned")
    model.train()
    model.blocks[0].eval()  # frozen by its owner
    flags = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    generate(model, PROMPTS, 5)
    steps = stream(model, [1, 2], 5)
    next(steps)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert not torch.is_inference_mode_enabled()
    steps.close()
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_dropout_is_off_while_writing():
    config = GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=V, context=16, init_std=0.3, resid_dropout=0.5)
    model = GPT(config)
    noisy = generate(model.train(), [[1, 2]], 10, temperature=0)
    assert noisy == generate(model.eval(), [[1, 2]], 10, temperature=0)


def test_flags_come_back_after_an_error():
    model = tiny("learned").train()
    model.head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, [[1]], 1)
    assert all(module.training for module in model.modules())


def test_half_precision_and_numpy_ids():
    numpy = pytest.importorskip("numpy")
    model = tiny("learned").bfloat16()
    assert len(generate(model, [numpy.array([1, 2]), torch.tensor([3])], 4)[1]) == 4


def test_nothing_to_write():
    assert generate(tiny("learned"), []) == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"prompts": [[1], [2] * 33]}, ["prompt 1", "33", "32"]),
        ({"prompts": [[1], []]}, ["prompt 1", "empty"]),
        ({"prompts": [1, 2]}, ["prompt 0", "list of token ids"]),
        ({"prompts": ["abc"]}, ["prompt 0", "list of token ids"]),
        ({"prompts": [[1, V]]}, ["97", "vocabulary"]),
        ({"prompts": [[-1]]}, ["-1", "vocabulary"]),
        ({"eos": 1000}, ["eos", "1000"]),
        ({"eos": [1, 1000]}, ["eos", "1000"]),
        ({"temperature": -1}, ["temperature", "-1"]),
        ({"temperature": math.nan}, ["temperature", "nan"]),
        ({"temperature": "hot"}, ["temperature", "hot"]),
        ({"top_k": 0}, ["top_k", "0"]),
        ({"top_k": 2.5}, ["top_k", "2.5"]),
        ({"top_p": 0.0}, ["top_p", "0.0"]),
        ({"top_p": 1.1}, ["top_p", "1.1"]),
        ({"max_new_tokens": 0}, ["max_new_tokens", "0"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 2**32}, ["seed", "4294967295"]),
    ],
)
def test_bad_input_is_named(arguments, words):
    arguments = {"prompts": [[1]]} | arguments
    with pytest.raises(Error) as caught:
        generate(tiny("learned"), **arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_stream_checks_at_the_call():
    with pytest.raises(Error, match="prompt 0 is empty"):
        stream(tiny("learned"), [])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_model_writes_nothing(value):
    model = tiny("learned")
    with torch.no_grad():
        model.final_norm.bias.fill_(value)
    with pytest.raises(Error, match="NaN or infinite"):
        generate(model, [[1]], 3, temperature=0)
