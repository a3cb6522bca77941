"""The model: how it starts, who sees whom, its two openings, and that it can learn."""

import copy
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from einops import repeat
from helpers import KINDS, config, model, randomize, tokens
from torch import nn

from minigpt import GPT, Error, GPTConfig, attention
from minigpt.cache import Cache
from minigpt.loss import cross_entropy
from minigpt.model import MLP, Attention, RMSNorm, activate

ROOT = Path(__file__).resolve().parent.parent


# How it starts


def test_weights_start_as_in_gpt2():
    gpt = GPT(GPTConfig(vocab_size=3000, context=200, n_layers=3, n_heads=4, d_model=128))
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.fill_(5.0)
    gpt.reset_parameters()  # as at the start, whatever was there
    for name, weight in gpt.named_parameters():
        if "norm.weight" in name:
            assert (weight == 1).all(), name
        elif name.endswith("bias"):
            assert (weight == 0).all(), name
        else:
            into_residual = "o_proj" in name or "down_proj" in name
            std = 0.02 / math.sqrt(2 * 3) if into_residual else 0.02
            assert abs(weight.std() / std - 1) < 0.03 and abs(weight.mean()) < 0.1 * std, name


def test_init_std_scales_every_matrix_and_an_untied_head_too():
    gpt = model("llama", vocab_size=2000, init_std=0.1, d_model=64)
    assert abs(gpt.head.weight.std() - 0.1) < 0.003 and abs(gpt.token_embedding.weight.std() - 0.1) < 0.003
    assert abs(gpt.blocks[0].mlp.gate_proj.weight.std() - 0.1) < 0.005
    assert abs(gpt.blocks[0].mlp.down_proj.weight.std() - 0.05) < 0.003


def test_the_first_loss_is_ln_v_plus_half_the_variance_of_the_logits():
    """ln 2000 alone is 0.2 less; a residual stream that grew, or a missing final norm, is further off."""
    gpt = GPT(GPTConfig(vocab_size=2000, context=64, n_layers=2, n_heads=8, d_model=1024)).eval()
    with torch.no_grad():
        found = cross_entropy(gpt.hidden(tokens(16, 64, 2000)), gpt.head, tokens(16, 64, 2000))
    assert abs(found - (math.log(2000) + 1024 * 0.02**2 / 2)) < 0.06


# Formulas


def test_rms_norm_is_its_formula():
    norm = randomize(RMSNorm(16, eps=1e-2).double(), 1.0)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    expected = x / torch.sqrt((x * x).sum(-1, keepdim=True) / 16 + 1e-2) * norm.weight
    assert torch.allclose(norm(x), expected, atol=1e-13)


def test_activations_are_their_formulas():
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    normal = (1 + torch.erf(x / math.sqrt(2))) / 2
    cubic = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    assert torch.allclose(activate(x, "gelu"), x * normal, atol=1e-14)
    assert torch.allclose(activate(x, "gelu_tanh"), x * (1 + cubic) / 2, atol=1e-14)
    assert torch.allclose(activate(x, "silu"), x / (1 + torch.exp(-x)), atol=1e-14)
    assert torch.equal(activate(x, "relu"), x * (x > 0)) and torch.equal(activate(x, "relu2"), x * x * (x > 0))


def test_swiglu_is_its_formula():
    mlp = randomize(MLP(config("llama", bias=True)).double(), 0.5)
    x = torch.randn(2, 3, 32, dtype=torch.float64)
    gate = x @ mlp.gate_proj.weight.T + mlp.gate_proj.bias
    up = x @ mlp.up_proj.weight.T + mlp.up_proj.bias
    expected = (gate / (1 + torch.exp(-gate)) * up) @ mlp.down_proj.weight.T + mlp.down_proj.bias
    assert torch.allclose(mlp(x), expected, atol=1e-12)


def test_grouped_heads_are_repeated_heads():
    few = model("llama", std=0.3, dtype=torch.float64)
    many = model("llama", dtype=torch.float64, n_kv_heads=4)
    weights = few.state_dict()
    for name in weights:
        if "k_proj" in name or "v_proj" in name:
            weights[name] = repeat(weights[name], "(g d) c -> (g n d) c", g=2, n=2)
    many.load_state_dict(weights)
    x = tokens()
    assert torch.allclose(few(x), many(x), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_attention_makes_the_same_model(kind):
    gpt, x, keep = model(kind, std=0.1), tokens(), torch.ones(2, 12, dtype=torch.bool)
    keep[0, :3] = False
    fast = gpt(x, keep=keep)
    for module in gpt.modules():
        if isinstance(module, Attention):
            module.attend = attention.plain
    assert torch.allclose(gpt(x, keep=keep)[keep], fast[keep], rtol=0, atol=2e-5)


# Who sees whom


@pytest.mark.parametrize("attend", [attention.plain, attention.fast])
@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_the_future_however_large_the_weights(kind, attend):
    """With weights x 1000 scores go far below any finite mask value such as -1e4, and a leak shows."""
    gpt, x = model(kind, std=20.0), tokens(1, 12)
    for block in gpt.blocks:
        block.attn.attend = attend
    with torch.no_grad():
        before = gpt(x)
        assert torch.isfinite(before).all()
        for t in range(12):
            other = x.clone()
            other[0, t] = (x[0, t] + 1) % 61
            after = gpt(other)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t], before[:, t])


def test_a_stack_of_banded_layers_sees_one_window_less_one_a_layer():
    """Two layers of window 3: a token is reached by those up to 2 (3 - 1) = 4 before it, and by no other."""
    gpt, x = model("gpt3", std=0.3, n_layers=2, banded_layers=(0, 1)), tokens(1, 12)
    before = gpt(x)
    for t in range(12):
        other = x.clone()
        other[0, t] = (x[0, t] + 1) % 61
        changed = (gpt(other) != before).any(-1)[0].nonzero()[:, 0].tolist()
        assert changed == list(range(t, min(t + 5, 12)))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_are_separate_runs(kind):
    gpt = model(kind, std=0.3, dtype=torch.float64)
    lengths = [5, 1, 4, 2]
    x = tokens(1, sum(lengths))
    documents = torch.cat([torch.full((1, n), number) for number, n in enumerate(lengths)], dim=1)
    positions = torch.cat([torch.arange(n)[None] for n in lengths], dim=1)
    packed = gpt(x, documents=documents, positions=positions)
    separate = torch.cat([gpt(part) for part in x.split(lengths, dim=1)], dim=1)
    assert torch.allclose(packed, separate, atol=1e-10)
    assert not torch.allclose(gpt(x, positions=positions), separate, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_wherever_it_is_and_whatever_it_holds(kind):
    gpt = model(kind, std=0.3, dtype=torch.float64)
    short = tokens(1, 7)
    places = {
        "left": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
        "right": [1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "inside": [0, 1, 1, 0, 1, 1, 1, 0, 1, 1],
        "none": [1, 1, 1, 1, 1, 1, 1],
    }
    expected = gpt(short)[0]
    for place, row in places.items():
        keep = torch.tensor([row, [1] * len(row)]).bool()
        x = tokens(2, len(row))  # garbage, and a second row that is not padded
        x[0, keep[0]] = short[0]
        found = gpt(x, keep=keep)
        assert torch.isfinite(found).all()
        assert torch.allclose(found[0, keep[0]], expected, atol=1e-10), place
        assert torch.allclose(found[1], gpt(x[1:])[0], atol=1e-10), place


def test_a_row_of_padding_alone_is_no_nan():
    gpt = model("gpt3", std=0.3)
    assert torch.isfinite(gpt(tokens(2, 5), keep=torch.tensor([[False] * 5, [True] * 5]))).all()


def test_padded_and_packed_at_once():
    gpt, x = model("gpt3", std=0.3, dtype=torch.float64), tokens(1, 9)
    keep = torch.tensor([[0, 1, 1, 1, 1, 0, 1, 1, 0]]).bool()
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1]])
    positions = torch.tensor([[0, 0, 1, 2, 0, 0, 1, 2, 0]])
    found = gpt(x, keep=keep, documents=documents, positions=positions)
    assert torch.allclose(found[:, 1:4], gpt(x[:, 1:4]), atol=1e-10)
    assert torch.allclose(found[:, [4, 6, 7]], gpt(x[:, [4, 6, 7]]), atol=1e-10)


# Openings


@pytest.mark.parametrize("kind", KINDS)
def test_embeds_are_tokens(kind):
    gpt, x = model(kind, std=0.3), tokens()
    assert torch.equal(gpt(embeds=gpt.token_embedding(x)), gpt(x))


@pytest.mark.parametrize("kind", KINDS)
def test_positions_count_from_zero_and_can_be_given(kind):
    gpt, x = model(kind, std=0.3), tokens(2, 6)
    assert torch.equal(gpt(x, positions=torch.arange(6)[None]), gpt(x))
    assert torch.equal(gpt(x, positions=torch.arange(6).expand(2, 6)), gpt(x))
    assert not torch.allclose(gpt(x, positions=torch.arange(6)[None] * 2), gpt(x), atol=1e-2)
    if gpt.config.positions == "learned":
        later = copy.deepcopy(gpt)
        with torch.no_grad():
            later.position_embedding.weight[:6] = gpt.position_embedding.weight[3:9]
        assert torch.equal(gpt(x, positions=torch.arange(3, 9)[None]), later(x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [[12], [11, 1], [1] * 12, [5, 3, 4], [2, 1, 6, 1, 2]], ids=str)
def test_any_chunking_through_the_cache_is_the_full_forward(kind, chunks):
    gpt, x = model(kind, std=0.3, dtype=torch.float64), tokens(3, 12)
    for padded in (False, True):
        keep = torch.ones(3, 12, dtype=torch.bool)
        if padded:
            keep[1, :3], keep[2, :1] = False, False
        full = gpt(x, keep=keep)
        cache, parts = Cache(gpt.config, batch=3, dtype=torch.float64), []
        with torch.no_grad():
            for part, real in zip(x.split(chunks, dim=1), keep.split(chunks, dim=1), strict=True):
                parts.append(gpt(part, cache=cache, keep=None if real.all() else real))
        assert cache.length == 12
        assert torch.allclose(torch.cat(parts, dim=1)[keep], full[keep], atol=1e-10)


def test_a_cache_may_be_just_large_enough_and_no_larger():
    gpt, x = model(), tokens(2, 6)
    cache = Cache(gpt.config, batch=2, capacity=6)
    with torch.no_grad():
        assert torch.allclose(gpt(x, cache=cache), gpt(x), atol=1e-6)
        with pytest.raises(Error, match="2 rows of 6 tokens, asked to hold 2 rows of 7"):
            gpt(x[:, :1], cache=cache)
        assert cache.length == 6
        with pytest.raises(Error, match="asked to hold 3 rows"):
            gpt(tokens(3, 1), cache=Cache(gpt.config, batch=2))


X = torch.zeros(2, 5, dtype=torch.int64)
WRONG = [
    ({}, "give either tokens or embeds, one of them"),
    ({"tokens": X, "embeds": torch.zeros(2, 5, 32)}, "not both"),
    ({"embeds": torch.zeros(2, 5, 31)}, r"embeds must be \(B, T, 32\), found \(2, 5, 31\)"),
    ({"embeds": torch.zeros(2, 32)}, "embeds must be"),
    ({"tokens": X[0]}, r"tokens must be \(B, T\) int64, found \(5,\)"),
    ({"tokens": X.float()}, "torch.float32"),
    ({"tokens": torch.zeros(1, 25, dtype=torch.int64)}, "25 tokens do not fit the context of 24"),
    ({"tokens": X, "keep": torch.ones(2, 4, dtype=torch.bool)}, r"keep must be \(2, 5\)"),
    ({"tokens": X, "keep": torch.ones(2, 5, dtype=torch.int64)}, "keep must be bool"),
    ({"tokens": X, "documents": torch.zeros(1, 5)}, r"documents must be \(2, 5\)"),
    ({"tokens": X, "positions": torch.arange(5)}, r"positions must be \(2 or 1, 5\), found \(5,\)"),
    ({"tokens": X[:1], "positions": torch.arange(5).expand(3, 5)}, r"positions must be .*, found \(3, 5\)"),
    ({"tokens": X, "documents": X, "cache": Cache(config(), 2)}, "give one of them"),
]


@pytest.mark.parametrize(("openings", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_input_is_an_error_that_says_what_is_right(openings, message):
    with pytest.raises(Error, match=message):
        model()(**openings)


def test_the_context_counts_what_is_in_the_cache():
    gpt = model()
    cache = Cache(gpt.config, batch=1, capacity=40)
    with torch.no_grad():
        gpt(tokens(1, 20), cache=cache)
        with pytest.raises(Error, match="5 tokens after 20 in the cache do not fit the context of 24"):
            gpt(tokens(1, 5), cache=cache)
        gpt(tokens(1, 4), cache=cache)


# As a module


def test_a_tied_head_is_one_tensor_and_stays_one():
    gpt = model()
    for made in (gpt, copy.deepcopy(gpt), pickle.loads(pickle.dumps(gpt)), model().double()):
        assert made.head.weight is made.token_embedding.weight
        names = [name for name, _ in made.named_parameters()]
        assert "head.weight" not in names and len(names) == len(set(names))
    untied = model(tied=False)
    assert untied.head.weight.data_ptr() != untied.token_embedding.weight.data_ptr()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_can_be_copied_and_pickled(kind):
    gpt, x = model(kind, std=0.3), tokens()
    for made in (copy.deepcopy(gpt), pickle.loads(pickle.dumps(gpt))):
        assert torch.equal(made(x), gpt(x))
        with torch.no_grad():
            made.token_embedding.weight.zero_()
        assert not torch.equal(made(x), gpt(x))  # a copy, not a second name


@pytest.mark.parametrize("name", ["embed_dropout", "attn_dropout", "resid_dropout"])
def test_dropout_is_for_training_only(name):
    gpt, x = model(std=0.3, **{name: 0.5}), tokens()
    without = model()
    without.load_state_dict(gpt.state_dict())
    assert torch.equal(gpt(x), without(x))
    gpt.train()
    assert not torch.allclose(gpt(x), gpt(x), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind):
    gpt, x = model(kind, std=0.3), tokens(2, 13)
    cross_entropy(gpt.hidden(x[:, :-1]), gpt.head, x[:, 1:]).backward()
    for name, weight in gpt.named_parameters():
        # All scores of a query move together with the bias of the keys: softmax does not see it, where nothing turns.
        if "k_proj.bias" not in name:
            assert weight.grad is not None and weight.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("kind", ["gpt2", "gpt1", "llama"])
def test_one_batch_can_be_learnt_by_heart(kind):
    gpt = model(kind, d_model=64).train()
    x, optimizer = tokens(4, 17), torch.optim.AdamW(gpt.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(200):
        loss = cross_entropy(gpt.hidden(x[:, :-1]), gpt.head, x[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


# As a package


def test_import_is_light():
    """The configs come without torch, the model without whatever only reads files, trains or draws."""
    code = "import sys, minigpt; a = set(sys.modules); minigpt.GPT(minigpt.presets.gpt2(n_layers=1)); "
    code += "print(*a); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    configs, models = (set(line.split()) for line in found.stdout.splitlines())
    assert "torch" not in configs and "torch" in models
    heavy = {"transformers", "tiktoken", "tokenizers", "matplotlib", "safetensors", "jinja2", "yaml", "jsonargparse"}
    assert not models & (heavy | {"pandas", "lora", "peft", "tensorboard", "huggingface_hub"})


def test_layers_are_ordinary_modules_that_others_can_replace():
    gpt = model()
    ordinary = (nn.Embedding, nn.Linear, nn.LayerNorm, nn.Dropout)
    assert all(isinstance(m, ordinary) for m in gpt.modules() if not list(m.children()))
