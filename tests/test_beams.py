"""Beam search against transformers, token for token and score for score; against trying every text; with itself."""

import itertools
import json
import math

import beam_vectors
import pytest
import torch
from helpers import config, model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt import GPT, Error
from minigpt.cache import Cache
from minigpt.generation import beam_search, generate, stream
from minigpt.generation.beams import Search
from minigpt.generation.constraints import OneOf
from minigpt.generation.reader import Memory, PlainReader, Reader
from minigpt.generation.sampling import Sampler
from minigpt.generation.search import Rules

V = 23
SHAPES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=40, n_embd=32, n_layer=2, n_head=4)),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=40,
        )
    ),
}  # fmt: skip
PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8, 9, 7, 9]]


@pytest.fixture(scope="module", params=[("gpt2", 0.3), ("gpt2", 0.05), ("llama", 0.2)], ids=["sharp", "flat", "llama"])
def pair(request, tmp_path_factory):
    """transformers' model and ours with the same random weights; the larger their spread, the sharper they are."""
    shape, std = request.param
    torch.manual_seed(5)
    theirs = SHAPES[shape]().eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.normal_(std=std)
    directory = tmp_path_factory.mktemp("beams")
    theirs.save_pretrained(directory)
    return theirs, GPT.from_pretrained(directory)


def reference(theirs, prompts, num_beams, max_new_tokens, eos=None, num_return_sequences=None, **options):
    """[(tokens, score), ...] for each prompt, as transformers finds them in a batch padded on the left."""
    longest, n = max(map(len, prompts)), num_return_sequences or num_beams
    ids = torch.tensor([[1] * (longest - len(p)) + p for p in prompts])
    keep = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    out = theirs.generate(
        ids, attention_mask=keep, num_beams=num_beams, max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=eos,
        pad_token_id=V - 1, num_return_sequences=n, return_dict_in_generate=True, output_scores=True, **options,
    )  # fmt: skip
    ends, found = set([eos] if isinstance(eos, int) else eos or []), []
    for row, score in zip(out.sequences[:, longest:].tolist(), out.sequences_scores.tolist(), strict=True):
        end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        found.append((row[:end], score))
    return [found[i : i + n] for i in range(0, len(found), n)]


def same(ours, expected):
    assert [[beam.tokens for beam in beams] for beams in ours] == [[tokens for tokens, _ in each] for each in expected]
    for beams, each in zip(ours, expected, strict=True):
        for beam, (_, score) in zip(beams, each, strict=True):
            assert beam.score == pytest.approx(score, abs=1e-5, rel=1e-6)  # float32 sums of 100 have steps of 1e-5


@pytest.mark.parametrize("num_beams", [2, 4, 7])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
def test_equals_transformers(pair, num_beams, early_stopping, length_penalty):
    theirs, ours = pair
    for eos in (None, 7, [7, 11, 2]):
        options = {"num_beams": num_beams, "max_new_tokens": 9, "eos": eos}
        options |= {"early_stopping": early_stopping, "length_penalty": length_penalty}
        same(beam_search(ours, PROMPTS, **options), reference(theirs, PROMPTS, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"min_new_tokens": 4},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram": 2},
        {"banned": [[4], [8, 2], [11]]},
        {"min_new_tokens": 3, "repetition_penalty": 1.3, "no_repeat_ngram": 3, "banned": [[5]]},
        {"force_end": True},
        {"num_return_sequences": 2, "max_new_tokens": 1},
    ],
    ids=str,
)
def test_processors_inside_beams_equal_transformers(pair, options):
    theirs, ours = pair
    names = {"no_repeat_ngram": "no_repeat_ngram_size", "banned": "bad_words_ids"}
    translated = {names.get(name, name): value for name, value in options.items()}
    if translated.pop("force_end", False):
        translated["forced_eos_token_id"] = 7
    common = {"num_beams": 4, "max_new_tokens": 10, "eos": 7}
    same(
        beam_search(ours, PROMPTS[:1] + PROMPTS[2:3], **common | options),
        reference(theirs, PROMPTS[:1], **common | translated) + reference(theirs, PROMPTS[2:3], **common | translated),
    )


def every_text(gpt, prompt, n, ends):
    """{text: log P} of all texts of at most n tokens that end there or at an end token."""
    found, open_texts = {}, {(): 0.0}
    for length in range(1, n + 1):
        grown = {}
        for text, total in open_texts.items():
            with torch.no_grad():
                logprobs = gpt(torch.tensor([[*prompt, *text]]))[0, -1].double().log_softmax(-1)
            for token, logprob in enumerate(logprobs.tolist()):
                done = token in ends or length == n
                (found if done else grown)[(*text, token)] = total + logprob
        open_texts = grown
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_enough_beams_find_the_best_of_all_texts(length_penalty):
    torch.manual_seed(1)
    gpt, ends = model("gpt2", std=0.4, vocab_size=4), {2}
    texts = every_text(gpt, [1, 3], 4, ends)
    ranked = sorted(texts, key=lambda text: -texts[text] / len(text) ** length_penalty)
    # "never" and a penalty above 0 stop only when nothing can be better; 0 needs no bound, totals only fall.
    beams = beam_search(
        gpt, [[1, 3]], num_beams=64, max_new_tokens=4, length_penalty=length_penalty, early_stopping="never", eos=2
    )[0]
    for beam, text in zip(beams[:10], ranked, strict=False):
        assert tuple(beam.tokens) == text
        assert beam.score == pytest.approx(texts[text] / len(text) ** length_penalty, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gpt3", "mixture"])
@pytest.mark.parametrize(
    "options", [{}, {"groups": 2, "diversity": 0.7}, {"eos": [3, 9, 20]}], ids=["", "groups", "eos"]
)
def test_the_cache_changes_nothing_and_neighbours_neither(kind, options):
    torch.manual_seed(2)
    gpt = model(kind, std=0.3)
    prompts = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8]]
    options = {"num_beams": 4, "max_new_tokens": 12} | options
    together = beam_search(gpt, prompts, **options)
    same(
        together,
        [
            [(beam.tokens, beam.score) for beam in each]
            for each in beam_search(gpt, prompts, use_cache=False, **options)
        ],
    )
    for prompt, each in zip(prompts, together, strict=True):
        same([each], [[(beam.tokens, beam.score) for beam in beam_search(gpt, [prompt], **options)[0]]])


def test_logprobs_add_up_and_parents_lead_back():
    torch.manual_seed(3)
    gpt, traces = model("llama", std=0.3), []
    beams = beam_search(gpt, [[4, 2]], num_beams=3, max_new_tokens=8, eos=[1, 2], length_penalty=0.7, traces=traces)[0]
    for beam in beams:
        assert len(beam.logprobs) == len(beam.parents) == len(beam.tokens)
        assert sum(beam.logprobs) == pytest.approx(beam.total)
        assert beam.score == pytest.approx(beam.total / len(beam.tokens) ** 0.7)
        with torch.no_grad():
            logits = gpt(torch.tensor([[4, 2, *beam.tokens]]))[0, 1:-1].log_softmax(-1)
        true = logits[range(len(beam.tokens)), beam.tokens]
        torch.testing.assert_close(torch.tensor(beam.logprobs), true, atol=1e-5, rtol=1e-5)
    steps = traces[0].steps
    assert {node.parent for node in steps[0]} == {-1}  # the prompt
    assert {len(nodes) for nodes in steps} == {3 * 3}  # enough that three go on if two ends are among each beam's best
    for beam in beams:  # each is in the tree, and its parents are the beams that ran
        place = next(
            i for i, node in enumerate(steps[len(beam.tokens) - 1])
            if node.fate == "finished" and node.score == beam.score and node.token == beam.tokens[-1]
        )  # fmt: skip
        text = []
        for nodes in reversed(steps[: len(beam.tokens)]):
            node = nodes[place]
            text, place = [node.token, *text], node.parent
        assert text == beam.tokens
        for step, parent in enumerate(beam.parents[1:]):
            running = [node for node in steps[step] if node.fate == "running"]
            assert running[parent].token == beam.tokens[step]
    assert all(sum(node.fate == "running" for node in nodes) <= 3 for nodes in steps)


def test_one_beam_is_greedy():
    torch.manual_seed(4)
    gpt = model("gpt2", std=0.3)
    prompts = [[3], [7, 8, 9]]
    greedy = generate(gpt, prompts, max_new_tokens=10, temperature=0)
    assert [beams[0].tokens for beams in beam_search(gpt, prompts, num_beams=1, max_new_tokens=10)] == greedy


def test_the_context_ends_a_search():
    torch.manual_seed(4)
    gpt = model("gpt2", std=0.3)
    long, short = list(range(22)), [1]
    beams = beam_search(gpt, [long, short], num_beams=2, max_new_tokens=100)
    assert [len(each[0].tokens) for each in beams] == [3, 24]


def test_groups_keep_apart():
    """Without diversity the groups are equal searches; with much of it their first tokens all differ."""
    torch.manual_seed(6)
    gpt = model("gpt2", std=0.3)
    plain = beam_search(gpt, [[4, 2]], num_beams=2, max_new_tokens=6)[0]
    twins = beam_search(gpt, [[4, 2]], num_beams=6, groups=3, max_new_tokens=6)[0]
    assert [beam.tokens for beam in twins] == [beam.tokens for beam in plain for _ in range(3)]
    apart = beam_search(gpt, [[4, 2]], num_beams=3, groups=3, diversity=1000.0, max_new_tokens=6)[0]
    for step in range(6):
        assert len({beam.tokens[step] for beam in apart}) == 3


def test_groups_by_a_search_written_out():
    """Diverse beam search by its definition: one group after the other, Hamming penalty, one beam a group."""
    torch.manual_seed(7)
    gpt, prompt, strength = model("gpt2", std=0.3), [4, 2], 0.8
    texts, totals = [[] for _ in range(4)], [0.0] * 4
    for _ in range(7):
        taken = []
        for g in range(4):
            with torch.no_grad():
                logprobs = gpt(torch.tensor([prompt + texts[g]]))[0, -1].double().log_softmax(-1)
            for token in taken:
                logprobs[token] -= strength
            token = int(logprobs.argmax())
            texts[g], totals[g] = [*texts[g], token], totals[g] + float(logprobs[token])
            taken.append(token)
    found = beam_search(gpt, [prompt], num_beams=4, groups=4, diversity=strength, max_new_tokens=7, length_penalty=0.0)[
        0
    ]
    expected = sorted(zip(totals, texts, strict=True), key=lambda each: -each[0])
    assert [beam.tokens for beam in found] == [text for _, text in expected]
    torch.testing.assert_close([beam.score for beam in found], [total for total, _ in expected], rtol=1e-4, atol=1e-4)


def test_equal_candidates_go_by_beam_then_token():
    gpt = model("gpt2")
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.zero_()
    beams = beam_search(gpt, [[1]], num_beams=3, max_new_tokens=2)[0]
    assert [beam.tokens for beam in beams] == [[0, 0], [0, 1], [0, 2]]


class TestCache:
    """Branches of one row against rows of their own."""

    @pytest.mark.parametrize("kind", ["gpt2", "gpt3", "llama", "mixture"])
    @pytest.mark.parametrize("compact", [False, True])
    def test_branches_equal_texts_read_whole(self, kind, compact):
        torch.manual_seed(8)
        gpt = model(kind, std=0.3)
        prompts, random = [[5, 9, 2, 8], [7]], torch.Generator().manual_seed(0)
        reader, plain = Reader(gpt, [0, 1], room=40), PlainReader(gpt, [0, 1])
        torch.testing.assert_close(reader.start(prompts), plain.start(prompts), atol=1e-5, rtol=1e-4)
        width = 1
        for step in range(10):
            parents = torch.randint(width, (2, 4 if step else 3), generator=random).tolist()
            width = len(parents[0])
            tokens = torch.randint(61, (2, width), generator=random).tolist()
            if compact and step in (4, 7):
                before = reader.cache.length
                reader.cache.branch(torch.tensor(parents))
                reader.cache.compact()
                assert reader.cache.length < before
                parents_now = [list(range(width))] * 2
            else:
                parents_now = parents
            ours = reader.step(tokens, parents_now)
            torch.testing.assert_close(ours, plain.step(tokens, parents), atol=1e-5, rtol=1e-4)
            if step == 8:
                reader.select([1]), plain.select([1])
                tokens = torch.randint(61, (1, 4), generator=random).tolist()
                parents = [[3, 2, 0, 0]]
                torch.testing.assert_close(
                    reader.step(tokens, parents), plain.step(tokens, parents), atol=1e-5, rtol=1e-4
                )
                break

    def test_it_holds_the_prompt_once_and_a_token_a_beam(self):
        gpt, prompt = model("gpt2", context=200), list(range(50))
        reader = Reader(gpt, [0], room=4 * 30)
        reader.start([prompt])
        assert reader.cache.nbytes == 2 * 2 * 32 * 4 * (50 + 4 * 30)  # keys and values, layers, C, float32
        for step in range(3):
            reader.step([[1, 2, 3, 4]], [[0] * 4 if step == 0 else [0, 1, 2, 3]])
        assert reader.cache.length == 50 + 12

    def test_dead_branches_are_forgotten_in_time(self):
        torch.manual_seed(9)
        gpt = model("gpt2", std=0.3, context=400)
        reader, plain = Reader(gpt, [0], room=4 * 100), PlainReader(gpt, [0])
        reader.start([[1]]), plain.start([[1]])
        for step in range(99):
            parents = [[0, 0, 0, 0]]  # all others die at once
            tokens = [[step % 61, 1, 2, 3]]
            ours = reader.step(tokens, parents)
            if step % 33 == 32:
                texts = plain.texts
            plain.texts = [[plain.texts[0][0] + [token] for token in tokens[0]]]
        torch.testing.assert_close(ours, plain._read(), atol=1e-5, rtol=1e-4)
        assert texts and reader.cache.length < 1 + 99 * 4 - 100

    def test_branches_take_one_token_each(self):
        gpt = model("gpt2")
        cache = Cache(gpt.config, batch=1)
        with torch.inference_mode():
            gpt(torch.tensor([[1, 2]]), cache=cache)
            cache.branch(torch.zeros(1, 3, dtype=torch.long))
            with pytest.raises(Error, match="3 branches go on by one token each, found 2"):
                gpt(torch.tensor([[1, 2]]), cache=cache)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_beams": 0}, "num_beams is 0: give a whole number"),
        ({"num_beams": 3, "groups": 2}, "3 beams cannot be shared equally by 2 groups"),
        ({"diversity": 0.5}, "groups of at least 2"),
        ({"early_stopping": "always"}, "give True, False or 'never'"),
        ({"length_penalty": math.nan}, "length_penalty is nan"),
        ({"length_penalty": -math.inf}, "length_penalty is -inf"),
        ({"groups": 2, "diversity": math.inf}, "diversity is inf"),
        ({"groups": 2, "diversity": -1.0}, "diversity is -1.0"),
        ({"num_return_sequences": 9}, "num_return_sequences is 9: give a whole number from 1 to the 4 beams"),
        ({"eos": 99}, "token 99 is not in the model's vocabulary"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"banned": list(range(61))}, "no text that is allowed|banned"),
        ({"no_repeat": 2}, "no option 'no_repeat': did you mean 'no_repeat_ngram'"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(Error, match=message):
        beam_search(GPT(config()), [[1, 2]], **options)


def test_no_prompts_no_beams():
    assert beam_search(model(), []) == []


def test_a_broken_model_finds_nothing():
    gpt = model()
    with torch.no_grad():
        gpt.final_norm.weight.fill_(math.nan)
    with pytest.raises(Error, match="NaN or infinite"):
        beam_search(gpt, [[1]])


def test_a_token_may_be_impossible_but_not_a_whole_row():
    gpt = model(std=0.3)
    free = beam_search(gpt, [[1]], num_beams=3, max_new_tokens=4)[0]
    head = gpt.head.forward
    gone = free[0].tokens[0]

    def head_without(x):
        return head(x).index_fill(-1, torch.tensor(gone), -math.inf)

    gpt.head.forward = head_without
    assert all(gone not in beam.tokens for beam in beam_search(gpt, [[1]], num_beams=3, max_new_tokens=4)[0])
    search = Search(0, [1], 4, Rules(num_beams=2), Sampler())
    search.step(torch.randn(1, 61))
    with pytest.raises(Error, match="NaN or infinite"):
        search.step(torch.stack((torch.randn(61), torch.full((61,), -math.inf))))


@pytest.mark.parametrize("n", [1, 5])
def test_texts_of_one_prompt_share_it_and_equal_texts_alone(n):
    """generate() reads equal prompts once; each text is that of its place in the list."""
    torch.manual_seed(10)
    gpt = model("mixture", std=0.3)
    prompts = [[5, 9, 2]] * n + [[7]] + [[5, 9, 2]] * 2
    options = {"max_new_tokens": 12, "eos": [1, 2, 3, 4, 5, 6], "seed": 3}
    together = generate(gpt, prompts, **options)
    assert together == generate(gpt, prompts, use_cache=False, **options)
    for place, text in enumerate(together):
        others = [[8]] * place  # keep the place, change the neighbours
        assert generate(gpt, [*others, prompts[place]], **options)[place] == text
    assert len({tuple(text) for text in together}) > 1
    assert len({len(text) for text in together}) > 1  # they end at different times


@pytest.mark.parametrize("kind", ["gpt2", "mixture"])
def test_sliding_is_the_same_with_and_without_cache_and_by_hand(kind):
    torch.manual_seed(11)
    gpt = model(kind, std=0.3)
    prompts = [[5, 9, 2], [7] * 20]
    options = {"max_new_tokens": 60, "temperature": 0, "overflow": "slide"}
    found = generate(gpt, prompts, **options)
    assert found == generate(gpt, prompts, use_cache=False, **options)
    for prompt, new in zip(prompts, found, strict=True):
        text = list(prompt)
        for _ in range(60):
            read = text
            while len(read) > 24:
                read = read[12:]
            with torch.no_grad():
                text = [*text, int(gpt(torch.tensor([read]))[0, -1].argmax())]
        assert new == text[len(prompt) :]


def test_all_kinds_of_early_ends_meet():
    """Prompts that finish at different steps, with few and many beams, leave each other's beams alone."""
    torch.manual_seed(12)
    gpt = model("gpt2", std=0.15)
    prompts = [[i] for i in range(12)]
    for (num_beams, groups), early in itertools.product(((2, 1), (5, 1), (4, 2)), (True, False, "never")):
        options = {"num_beams": num_beams, "early_stopping": early, "max_new_tokens": 15, "eos": list(range(0, 61, 5))}
        options |= {"groups": groups, "diversity": 0.5 * (groups > 1)}  # a group may end before the others
        options["length_penalty"] = 0.0
        together = beam_search(gpt, prompts, **options)
        assert len({len(beam.tokens) for each in together for beam in each}) > 3
        for prompt, each in zip(prompts, together, strict=True):
            same([each], [[(beam.tokens, beam.score) for beam in beam_search(gpt, [prompt], **options)[0]]])


@pytest.mark.parametrize("phrases", [[[5]], [[3, 3, 1]], [[4, 0], [0, 2]]], ids=str)
def test_what_a_text_must_contain(phrases):
    """Every beam holds the phrases; and with beams for all texts, they are the best of those that do."""
    torch.manual_seed(13)
    gpt = model("gpt2", std=0.4, vocab_size=6)

    def holds(text):
        return all(any(list(text[i : i + len(p)]) == p for i in range(len(text))) for p in phrases)

    few = beam_search(gpt, [[1, 3]], num_beams=8, max_new_tokens=9, eos=2, contains=phrases)[0]
    assert few and all(holds(beam.tokens) for beam in few)
    free = beam_search(gpt, [[1, 3]], num_beams=8, max_new_tokens=9, eos=2)[0]
    assert not all(holds(beam.tokens) for beam in free)
    texts = {text: total for text, total in every_text(gpt, [1, 3], 4, {2}).items() if holds(text)}
    ranked = sorted(texts, key=lambda text: -texts[text] / len(text))
    options = {"max_new_tokens": 4, "eos": 2, "early_stopping": "never", "contains": phrases}
    many = beam_search(gpt, [[1, 3]], num_beams=300, **options)[0]
    assert [tuple(beam.tokens) for beam in many[:5]] == ranked[:5]


def test_one_of_a_list_of_phrases_comes_out_best_first():
    torch.manual_seed(14)
    gpt, end = model("gpt2", std=0.3), 60
    phrases = [[5, 6, 7], [5, 6], [9], [30, 31, 32, 33], [30, 40]]
    found = beam_search(gpt, [[1, 2]], num_beams=5, max_new_tokens=6, eos=end, extra=[OneOf(phrases, ends=[end])])[0]
    scores = []
    for phrase in phrases:
        text = [1, 2, *phrase, end]
        with torch.no_grad():
            logprobs = gpt(torch.tensor([text]))[0].double().log_softmax(-1)
        new = [float(logprobs[i, text[i + 1]]) for i in range(1, len(text) - 1)]
        scores.append((sum(new) / len(new), [*phrase, end]))
    assert [beam.tokens for beam in found] == [tokens for _, tokens in sorted(scores, reverse=True)]


@pytest.mark.parametrize("name", beam_vectors.MODELS)
def test_stored_answers_of_transformers(name):
    gpt, stored = beam_vectors.small_model(name), json.loads(beam_vectors.FILE.read_text())[name]
    for options, expected in zip(beam_vectors.GRID, stored, strict=True):
        same(beam_search(gpt, beam_vectors.PROMPTS, **options), expected)


def test_transformers_still_answers_as_stored(tmp_path):
    found, stored = beam_vectors.answers("sharp", tmp_path), json.loads(beam_vectors.FILE.read_text())["sharp"]
    for ours, theirs in zip(found, stored, strict=True):
        for beams, expected in zip(ours, theirs, strict=True):
            assert [tokens for tokens, _ in beams] == [tokens for tokens, _ in expected]
            assert [score for _, score in beams] == pytest.approx([score for _, score in expected], abs=2e-6)


def test_a_conversation_reads_each_token_once():
    torch.manual_seed(15)
    gpt = model("mixture", std=0.3, context=64)
    memory, text, read = Memory(gpt), [5, 9, 2], []
    hook = gpt.token_embedding.register_forward_hook(lambda module, given, out: read.append(given[0].shape[1]))
    for turn, said in enumerate(([7, 8], [1], [3, 4, 5, 6])):
        text = text + said
        new = list(stream(gpt, text, 6, temperature=0, memory=memory))
        assert read == [5 if turn == 0 else len(said) + 1] + [1] * 5
        assert new == generate(gpt, [text], 6, temperature=0)[0]
        read.clear()
        text = text + new
    changed = [5, 9, 3, *text[3:]]  # another beginning: nothing of the rest may be believed
    assert list(stream(gpt, changed, 6, temperature=0, memory=memory)) == generate(gpt, [changed], 6, temperature=0)[0]
    shorter = changed[:7]
    assert list(stream(gpt, shorter, 6, temperature=0, memory=memory)) == generate(gpt, [shorter], 6, temperature=0)[0]
    long = {"temperature": 0, "overflow": "slide", "max_new_tokens": 90}
    assert list(stream(gpt, shorter, memory=memory, **long)) == generate(gpt, [shorter], **long)[0]
    hook.remove()
