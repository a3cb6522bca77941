"""Adapters against transformers' models with the formula hooked in, written from the paper."""

import copy
import json
import pickle

import adapterhub_vectors
import pytest
import torch
import torch.nn.functional as F
from helpers import model, tokens
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from minigpt import Error, hub
from minigpt.generation import beam_search, generate
from minigpt.loss import cross_entropy
from minigpt.tuning import adapter
from minigpt.tuning.adapter import Adapted, AdapterConfig

CONFIG = AdapterConfig(bottleneck=8)


def adapted(kind="gpt2", config=CONFIG, name="default", **changes):
    """A model with adapters far from the identity."""
    gpt = model(kind, std=0.2, **changes)
    return attached(gpt, config, name)


def attached(gpt, config=CONFIG, name="default"):
    adapter.attach(gpt, config, name)
    with torch.no_grad():
        for tensor in adapter._tensors(gpt, name).values():
            tensor.normal_(std=0.3)
    return gpt


def reference(gpt, folder, weights, config):
    """The base as transformers reads it, A(h) hooked behind each sub-layer; `weights` are ours, by our names."""
    gpt.save_pretrained(folder)
    truth = AutoModelForCausalLM.from_pretrained(folder, dtype=next(gpt.parameters()).dtype).eval()
    blocks = truth.model.layers if hasattr(truth, "model") else truth.transformer.h

    def hook(place):
        def forward(_, inputs, h):
            w = {key.removeprefix(place + "."): t for key, t in weights.items() if key.startswith(place + ".")}
            x = h
            if config.norm:
                x = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
                x = x * w["norm.weight"] + w["norm.bias"]
            z = x @ w["down.weight"].T + w["down.bias"]
            z = z * 0.5 * (1 + torch.erf(z / 2**0.5)) if config.activation == "gelu" else z.relu()
            return h + z @ w["up.weight"].T + w["up.bias"]

        return forward

    for i, block in enumerate(blocks):
        ends = (block.self_attn.o_proj, block.mlp.down_proj) if hasattr(block, "self_attn") else ()
        ends = ends or (block.attn.resid_dropout, block.mlp.dropout)
        for part, end in zip(("attn", "mlp"), ends, strict=True):
            if part in config.after:
                end.register_forward_hook(hook(f"blocks.{i}.{part}"))
    return truth


@pytest.mark.parametrize("kind, config", [
    ("gpt2", CONFIG),
    ("gpt1", AdapterConfig(bottleneck=4, activation="relu")),
    ("llama", AdapterConfig(bottleneck=6, after=["mlp"])),
    ("gpt2", AdapterConfig(bottleneck=6, after=("mlp",), norm=True)),
])  # fmt: skip
def test_logits_gradients_and_steps_are_the_formulas(tmp_path, kind, config):
    """In float64 (transformers' norm of a Llama is float32): logits, gradients, weights after five steps of AdamW."""
    close = 1e-6 if kind == "llama" else 1e-9
    gpt = model(kind, std=0.2, dtype=torch.float64)
    base = copy.deepcopy(gpt)
    attached(gpt, config)
    ours = adapter._tensors(gpt, "default")
    theirs = {name: nn.Parameter(tensor.detach().clone()) for name, tensor in ours.items()}
    truth, x = reference(base, tmp_path, theirs, config), tokens()
    torch.testing.assert_close(gpt(x), truth(x).logits, atol=close, rtol=0)
    assert (gpt(x) - base(x)).abs().max() > 0.1
    optimizers = [torch.optim.AdamW(side, lr=0.01, weight_decay=0.1) for side in (gpt.parameters(), theirs.values())]
    for step in range(5):
        cross_entropy(gpt.hidden(x[:, :-1]), gpt.head, x[:, 1:]).backward()
        F.cross_entropy(truth(x[:, :-1]).logits.flatten(0, 1), x[:, 1:].flatten()).backward()
        for name, tensor in ours.items():
            if step == 0:
                torch.testing.assert_close(tensor.grad, theirs[name].grad, atol=close, rtol=0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=100 * close, rtol=0)
    before, after = dict(base.named_parameters()), dict(gpt.named_parameters())
    assert all(torch.equal(before[name], after[name]) and after[name].grad is None for name in before)


def test_the_counts_are_the_formulas():
    """2 L (2 d m + m + d): GPT-2 small with m = 64: 2,379,264, m = 8: 313,536; AdapterL one a block, with its norm."""
    from minigpt import GPT, presets

    with torch.device("meta"):
        gpt = GPT(presets.gpt2("small"))
        for m, count in ((64, 2_379_264), (8, 313_536)):
            report = adapter.attach(gpt, AdapterConfig(bottleneck=m), name=str(m))
            assert report.parameters == count == 2 * 12 * (2 * 768 * m + m + 768)
            assert report.stored == 4 * count and report.base == 124_439_808
        report = adapter.attach(gpt, AdapterConfig(bottleneck=64, after=("mlp",), norm=True), name="lin")
    assert report.parameters == 12 * (2 * 768 * 64 + 64 + 768) + 2 * 12 * 768
    assert {n for n, p in gpt.named_parameters() if p.requires_grad} == {
        n for n, _ in gpt.named_parameters() if ".adapters." in n
    }


def test_it_starts_near_the_identity_or_at_it():
    gpt, x = model(std=0.2), tokens()
    base = gpt(x)
    adapter.attach(gpt, CONFIG, "near")
    assert 0 < (gpt(x) - base).abs().max() < 1e-2
    weights = torch.cat([t.flatten() for n, t in adapter._tensors(gpt, "near").items() if n.endswith("weight")])
    assert weights.abs().max() <= 0.02 and 0.008 < weights.std() < 0.0095  # cut at two sigma: 0.88 sigma
    assert all(not t.any() for n, t in adapter._tensors(gpt, "near").items() if n.endswith("bias"))
    adapter.attach(gpt, AdapterConfig(bottleneck=8, exact=True), "exact")
    assert torch.equal(gpt(x), base)
    cross_entropy(gpt.hidden(x), gpt.head, x).backward()
    assert all(t.grad.any() for n, t in adapter._tensors(gpt, "exact").items() if ".up." in n)


def test_it_acts_after_the_dropout():
    """What dropout has set to 0 still gets the adapter's bias."""
    gpt = adapted(resid_dropout=0.5).train()
    with torch.no_grad():
        for name, tensor in adapter._tensors(gpt, "default").items():
            tensor.fill_(float(name.endswith("up.bias")))
    ones = (gpt.blocks[0].mlp(torch.randn(2, 12, 32)) == 1).float().mean()
    assert 0.4 < ones < 0.6


def test_several_names_and_none():
    gpt, x = model(std=0.2), tokens()
    before, modules, base = gpt(x), [(n, id(m)) for n, m in gpt.named_modules()], copy.deepcopy(gpt.state_dict())
    logits = {}
    for name, config in {"a": CONFIG, "b": AdapterConfig(bottleneck=3, after=("attn",))}.items():
        logits[name] = attached(gpt, config, name)(x)
        alone = attached_copy(gpt, name, config)
        assert torch.equal(logits[name], alone(x))
    assert adapter.names(gpt) == ["a", "b"] and not torch.equal(logits["a"], logits["b"])
    for name in ("b", None, "a"):
        adapter.use(gpt, name)
        assert torch.equal(gpt(x), before if name is None else logits[name])
    for twin in (copy.deepcopy(gpt), pickle.loads(pickle.dumps(gpt))):
        assert torch.equal(twin(x), logits["a"])
    adapter.detach(gpt, "b")
    assert torch.equal(gpt(x), logits["a"]) and adapter.names(gpt) == ["a"]
    adapter.detach(gpt)
    assert [(n, id(m)) for n, m in gpt.named_modules()] == modules
    assert torch.equal(gpt(x), before)
    assert all(torch.equal(tensor, base[name]) for name, tensor in gpt.state_dict().items())


def attached_copy(gpt, name, config):
    """The same adapters in a fresh model of the same base."""
    alone = copy.deepcopy(gpt)
    adapter.detach(alone)
    adapter.attach(alone, config, "only")
    source = adapter._tensors(gpt, name)
    with torch.no_grad():
        for key, tensor in adapter._tensors(alone, "only").items():
            tensor.copy_(source[key])
    return alone


@pytest.mark.parametrize("kind", ["gpt2", "mixture"])
def test_cache_padding_and_beams(kind):
    gpt = adapted(kind)
    prompts, x = [[1, 2, 3], [4], [5, 6, 7, 8, 9]], tokens()
    together = generate(gpt, prompts, 8, temperature=0)
    assert together == generate(gpt, prompts, 8, temperature=0, use_cache=False)
    assert together == [generate(gpt, [prompt], 8, temperature=0)[0] for prompt in prompts]
    found, again = (beam_search(gpt, prompts, num_beams=3, max_new_tokens=6, use_cache=c) for c in (True, False))
    assert [[b.tokens for b in row] for row in found] == [[b.tokens for b in row] for row in again]
    keep = torch.ones(2, 15, dtype=torch.bool)
    keep[:, :3] = False
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.int64), x), dim=1)
    torch.testing.assert_close(gpt(padded, keep=keep)[:, 3:], gpt(x), atol=1e-5, rtol=0)
    adapter.use(gpt, None)
    assert generate(gpt, prompts, 8, temperature=0) != together


def test_a_base_of_few_bits_has_adapters_of_many():
    gpt = adapted(dtype=torch.float32).bfloat16()
    adapter.attach(gpt, CONFIG, "wide")
    assert {t.dtype for t in adapter._tensors(gpt, "wide").values()} == {torch.float32}
    assert gpt(tokens()).dtype == torch.bfloat16


def test_saved_and_loaded(tmp_path):
    gpt, config, x = model(std=0.2), AdapterConfig(bottleneck=5, activation="silu", after=("mlp",), norm=True), tokens()
    base = copy.deepcopy(gpt)
    adapter.save(attached(gpt, config, "a"), tmp_path, "a")
    report = adapter.load(base, tmp_path, "b", trainable=True)
    assert torch.equal(base(x), gpt(x)) and report.parameters == 2 * (2 * 32 * 5 + 5 + 32 + 64)
    assert report.stored == sum(t.nbytes for t in load_file(tmp_path / "adapter_model.safetensors").values())
    with pytest.raises(Error, match="detach the adapters"):
        gpt.save_pretrained(tmp_path / "base")


def damage(**changes):
    def change(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def damage_tensors(change):
    def changed(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return changed


@pytest.mark.parametrize("harm, message", [
    (damage(botleneck=3), "did you mean 'bottleneck'"),
    (damage(method="prompt"), "expected \"method\": 'adapter', found 'prompt'"),
    (damage(bottleneck=9), "is \\(8,\\) float32, expected \\(9,\\)"),
    (damage(after=["attn"]), "no place for: blocks.0.mlp.down.bias"),
    (damage(bottleneck=True), "give a whole number"),
    (damage_tensors(lambda t: t.pop("blocks.1.attn.up.bias")), "lacks the tensor: blocks.1.attn.up.bias"),
    (damage_tensors(lambda t: t["blocks.1.attn.up.bias"].fill_(torch.nan)), "NaN"),
    (lambda folder: (folder / "adapter_config.json").unlink(), "not found"),
    (lambda folder: (folder / "adapter_config.json").write_text("{"), "not readable as JSON"),
    (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 20), "not a readable safetensors"),
])  # fmt: skip
def test_what_is_damaged_is_refused_and_changes_nothing(tmp_path, harm, message):
    adapter.save(adapted(), tmp_path)
    harm(tmp_path)
    gpt = model()
    with pytest.raises(Error, match=message):
        adapter.load(gpt, tmp_path)
    assert not any(isinstance(m, Adapted) for m in gpt.modules()) and all(p.requires_grad for p in gpt.parameters())


def test_wrong_use_is_an_error_that_says_what_is_right():
    gpt = adapted(name="radiology")
    for wrong, message in {
        lambda: adapter.attach(gpt, CONFIG, "radiology"): "there already",
        lambda: adapter.attach(gpt, CONFIG, "a.b"): "letters, digits",
        lambda: adapter.attach(gpt, CONFIG, "keys"): "letters, digits",
        lambda: adapter.use(gpt, "radiologie"): "did you mean 'radiology'",
        lambda: adapter.detach(model(), "x"): "attach one first",
        lambda: AdapterConfig(activation="gelo"): "did you mean 'gelu'",
        lambda: AdapterConfig(after=("q_proj",)): "one or both",
        lambda: AdapterConfig(init_std=0): "between 0 and 1",
        lambda: AdapterConfig(norm=1): "True or False",
    }.items():
        with pytest.raises(Error, match=message):
            wrong()


@pytest.mark.parametrize("activation", adapterhub_vectors.ACTIVATIONS)
def test_logits_are_those_of_adapterhub(activation):
    """Stored by adapterhub_vectors.py; both sides draw every weight from its name."""
    vectors = adapterhub_vectors
    gpt = model("gpt2")
    report = adapter.attach(gpt, AdapterConfig(bottleneck=vectors.BOTTLENECK, activation=activation))
    places = {entry.ours: entry for entry in hub.layout(gpt.config)}
    with torch.no_grad():
        for ours, entry in places.items():
            name = entry.name.replace("lm_head", "transformer.wte")
            shape = sum(len(gpt.get_parameter(each)) for each in ours), *gpt.get_parameter(ours[0]).shape[1:]
            whole = vectors.draw(name, shape[::-1] if entry.transposed else shape)
            parts = (whole.T if entry.transposed else whole).split([len(gpt.get_parameter(each)) for each in ours])
            for each, part in zip(ours, parts, strict=True):
                gpt.get_parameter(each).copy_(part)
        for key, tensor in adapter._tensors(gpt, "default").items():
            _, block, place, part, leaf = key.split(".")
            name = f"transformer.h.{block}.{vectors.PLACES[place]}.{vectors.PARTS[part]}.{leaf}"
            tensor.copy_(vectors.draw(name, tuple(tensor.shape)))
    found = json.loads(vectors.FILE.read_text())[activation]
    assert report.parameters == found["count"]
    logits = gpt(torch.tensor(vectors.TOKENS))[:, 3::4]
    torch.testing.assert_close(logits, torch.tensor(found["logits"]), atol=1e-5, rtol=1e-6)
