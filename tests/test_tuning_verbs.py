"""One set of verbs for every method: attach, train, save, detach, load, and what is left when all are gone.

The table has every method; a new one gets a line here, and every test below.
"""

import copy

import peft
import pytest
import torch
from helpers import model, randomize, tokens
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache

import lora
from minigpt import Error
from minigpt.loss import cross_entropy
from minigpt.tuning import adapter, learning, prefix, prompt, ptuning

METHODS = {
    "lora": (lora, lora.Config(r=2, alpha=4, targets=["q_proj", "up_proj"])),
    "dora": (lora, lora.Config(r=2, alpha=4, dora=True, targets=["o_proj", "down_proj"])),
    "rslora, biases": (lora, lora.Config(r=2, alpha=4, rslora=True, bias="all", targets="all-linear")),
    "adapter": (adapter, adapter.Config(bottleneck=5)),
    "adapter after mlp": (adapter, adapter.Config(bottleneck=3, after=("mlp",), norm=True, activation="relu")),
    "prompt": (prompt, prompt.Config(length=3)),
    "ptuning": (ptuning, ptuning.Config(length=2)),
    "ptuning mlp": (ptuning, ptuning.Config(length=2, encoder="mlp")),
    "prefix": (prefix, prefix.Config(length=3, hidden=6)),
    "ptuning2": (prefix, prefix.Config(length=4, shift=False)),
}
VERBS = ("Config", "attach", "names", "save", "load", "detach", "rows")


def read(gpt, method, x, name="default"):
    """Logits after the text, of a model at whose beginning the prompt stands, if the method is one."""
    if method in (prompt, ptuning):
        x = torch.cat((torch.tensor([prompt.ids(gpt, name)] * len(x)), x), 1)
    return gpt(x)[:, -4:]


def train(gpt, method, steps=3, name="default"):
    """With a weight decay that would move whatever has a gradient, if only of zeros."""
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=0.05, weight_decay=0.5)
    for _ in range(steps):
        read(gpt, method, tokens(2, 8), name).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


def snapshot(gpt):
    """Everything that must be as before: tensors, who learns, modules as objects, and what else hangs on the model."""
    tensors = {key: (tensor.clone(), tensor.requires_grad) for key, tensor in gpt.named_parameters()}
    return tensors, [(key, id(module)) for key, module in gpt.named_modules()], sorted(vars(gpt))


def assert_as_before(gpt, before):
    after = snapshot(gpt)
    assert after[1:] == before[1:] and after[0].keys() == before[0].keys()
    for key, (tensor, learns) in before[0].items():
        assert torch.equal(after[0][key][0], tensor) and after[0][key][1] == learns, key


@pytest.mark.parametrize("method, config", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_attached_trained_saved_gone_and_back(kind, method, config, tmp_path):
    if kind == "llama" and getattr(config, "bias", "none") != "none":
        pytest.skip("this base has no biases")
    gpt, x = model(kind, std=0.2), tokens(2, 8)
    gpt.blocks[0].attn.q_proj.requires_grad_(False)
    gpt(x).mean().backward()  # gradients of zeros, which decay would follow
    gpt.zero_grad(set_to_none=False)
    before = snapshot(gpt)
    report = method.attach(gpt, config)
    learns = [weight for weight in gpt.parameters() if weight.requires_grad]
    base = sum(weight.numel() for weight, _ in before[0].values())
    assert (report.parameters, report.base) == (sum(weight.numel() for weight in learns), base)
    assert str(report).startswith(f"trains {report.parameters:,} of {report.parameters + base:,} (")
    assert f"stores {report.stored:,} bytes" in str(report) and method.names(gpt) == ["default"]
    untrained = read(gpt, method, x)
    train(gpt, method)
    after = {id(weight): weight for weight in gpt.parameters()}
    assert all(torch.equal(after[id(w)], before[0][key][0]) for key, w in gpt.named_parameters() if key in before[0])
    trained = read(gpt, method, x).detach()
    assert (trained - untrained).abs().max() > 1e-3
    method.save(gpt, tmp_path, "default", base="runs/base")
    if method is not lora:
        assert report.stored == sum(t.nbytes for t in load_file(tmp_path / "adapter_model.safetensors").values())
    method.detach(gpt, "default")
    assert_as_before(gpt, before)
    found = method.load(gpt, tmp_path, "again")
    assert found.parameters == 0 and not any(weight.requires_grad for weight in gpt.parameters())
    torch.testing.assert_close(read(gpt, method, x, "again"), trained, atol=1e-6, rtol=0)
    assert method.names(gpt) == ["again"]
    method.detach(gpt)
    method.detach(gpt)  # of nothing there is nothing to take
    assert_as_before(gpt, before)
    assert method.load(gpt, tmp_path, trainable=True).parameters > 0
    with pytest.raises((Error, lora.Error), match="default"):
        method.attach(gpt, config)


@pytest.mark.parametrize("method, config", METHODS.values(), ids=METHODS)
def test_the_verbs_are_there_and_none_is_the_base(method, config):
    assert all(hasattr(method, verb) for verb in VERBS)
    assert hasattr(method, "use") == (method not in (prompt, ptuning))  # the ids of a row say it
    gpt, x = model(std=0.2), tokens(2, 8)
    base = gpt(x)
    method.attach(gpt, config, "a")
    with torch.no_grad():
        for weight in (weight for weight in gpt.parameters() if weight.requires_grad):
            weight.normal_(std=0.5)
    if hasattr(method, "use"):
        assert not torch.equal(gpt(x), base)
        method.use(gpt, None)
        torch.testing.assert_close(gpt(x), base, atol=0, rtol=0)
        method.use(gpt, "a")
        assert not torch.equal(gpt(x), base)
        with pytest.raises((Error, lora.Error), match="'b'"):
            method.use(gpt, "b")
    with pytest.raises((Error, lora.Error), match="'b'"):
        method.detach(gpt, "b")
    with pytest.raises((Error, lora.Error), match="'b'"), method.rows(gpt, ["b", None]):
        pass


@pytest.mark.parametrize("first", ["lora", "adapter", "prompt", "prefix"])
@pytest.mark.parametrize("second", ["lora", "adapter", "prompt", "prefix"])
def test_two_methods_learn_together_and_leave_in_any_order(first, second, tmp_path):
    if first == second:
        pytest.skip("two of one method are another matter")
    gpt, x = model(std=0.2), tokens(2, 8)
    before = snapshot(gpt)
    (one, config), (other, more) = METHODS[first], METHODS[second]
    one.attach(gpt, config)
    mine = [weight for weight in gpt.parameters() if weight.requires_grad]
    report = other.attach(gpt, more)
    both = [weight for weight in gpt.parameters() if weight.requires_grad]
    assert {id(weight) for weight in mine} < {id(weight) for weight in both}
    assert report.parameters == sum(w.numel() for w in both) - sum(w.numel() for w in mine)
    assert report.base == sum(weight.numel() for weight, _ in before[0].values())
    was = [weight.detach().clone() for weight in both]
    train(gpt, prompt if prompt in (one, other) else one)
    assert not any(torch.equal(weight, old) for weight, old in zip(both, was, strict=True))
    one.save(gpt, tmp_path / "one"), other.save(gpt, tmp_path / "other")
    together = read(gpt, prompt if prompt in (one, other) else one, x).detach()
    one.detach(gpt)
    assert not any(w.requires_grad for w in learning.base_of(gpt)) and other.names(gpt) == ["default"]
    other.detach(gpt)
    assert_as_before(gpt, before)
    other.load(gpt, tmp_path / "other"), one.load(gpt, tmp_path / "one")
    again = read(gpt, prompt if prompt in (one, other) else one, x)
    torch.testing.assert_close(again, together, atol=1e-5, rtol=0)


def test_all_linear_layers_are_those_of_the_base():
    """LoRA beside adapters and prefixes adapts neither their matrices nor their MLP."""
    alone, gpt = (model(std=0.2) for _ in range(2))
    adapter.attach(gpt, adapter.Config(bottleneck=5))
    prefix.attach(gpt, prefix.Config(length=3, hidden=6))
    config = lora.Config(r=2, alpha=4, targets="all-linear")
    assert lora.attach(gpt, config) == lora.attach(alone, config)


def test_what_an_addition_shares_with_the_base_is_the_bases():
    """Modules of which LoRA learns the bias hold the rest of the base's: it stays in the count."""
    gpt = model(std=0.2)
    count = sum(weight.numel() for weight in gpt.parameters())
    lora.attach(gpt, METHODS["rslora, biases"][1])
    assert prefix.attach(gpt, prefix.Config(length=3)).base == lora.attach(gpt, lora.Config(), "b").base == count


def test_a_copy_remembers_what_learned():
    gpt = model(std=0.2)
    gpt.head.weight.requires_grad_(False)
    before = snapshot(gpt)
    prefix.attach(gpt, prefix.Config(length=3))
    lora.attach(gpt, lora.Config())
    twin = copy.deepcopy(gpt)
    for each in (gpt, twin):
        prefix.detach(each)
        lora.detach(each)
        assert {key: learns for key, (_, learns) in snapshot(each)[0].items()} == {
            key: learns for key, (_, learns) in before[0].items()
        }


@pytest.mark.parametrize("order", [(lora, prefix), (prefix, lora)], ids=["lora first", "prefix first"])
def test_lora_and_prefix_learn_as_pefts_lora_does_behind_the_same_past(order, tmp_path):
    """Five steps of AdamW on both, in transformers with the prefix fed as a cache of keys and values."""
    gpt, x = model(std=0.15), tokens(2, 9)
    gpt.save_pretrained(tmp_path / "base")
    config = lora.Config(r=2, alpha=4, targets=["o_proj", "up_proj"])  # not of the fused matrix: PEFT tunes all of it
    for method in order:
        method.attach(gpt, config if method is lora else prefix.Config(length=3))
    ours = [weight for weight in gpt.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in ours:
            weight.normal_(std=0.2)
    lora.save(gpt, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
    table = gpt.prefixes.held["default"].table.detach().clone().requires_grad_()
    theirs = [weight for weight in other.parameters() if weight.requires_grad] + [table]

    def read_theirs():
        past, layers = DynamicCache(), table.permute(1, 2, 0, 3)[:, None].expand(-1, 2, -1, -1, -1)
        for layer in range(2):
            past.update(layers[2 * layer], layers[2 * layer + 1], layer)
        return other(x[:, :-1], past_key_values=past).logits

    torch.testing.assert_close(gpt(x[:, :-1]), read_theirs(), atol=1e-5, rtol=0)
    optimizers = [torch.optim.SGD(side, lr=0.05) for side in (ours, theirs)]
    for _ in range(5):
        losses = (
            cross_entropy(gpt.hidden(x[:, :-1]), gpt.head, x[:, 1:]),
            torch.nn.functional.cross_entropy(read_theirs().flatten(0, 1), x[:, 1:].flatten()),
        )
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(gpt.prefixes.held["default"].table, table, atol=1e-5, rtol=0)
    torch.testing.assert_close(gpt(x[:, :-1]), read_theirs(), atol=1e-5, rtol=0)


def test_adapter_and_prefix_are_the_formula_behind_the_same_past(tmp_path):
    """A(h) hooked behind transformers' sub-layers, the prefix as a cache: logits of both at once."""
    gpt, x = model(std=0.15), tokens(2, 9)
    gpt.save_pretrained(tmp_path)
    adapter.attach(gpt, adapter.Config(bottleneck=5, activation="relu"))
    prefix.attach(gpt, prefix.Config(length=3))
    randomize(gpt.prefixes, 0.3)
    truth = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for i, block in enumerate(truth.transformer.h):
        for end, place in ((block.attn.resid_dropout, "attn"), (block.mlp.dropout, "mlp")):
            held = getattr(gpt.blocks[i], place).dropout.adapters["default"]
            randomize(held, 0.3)
            w = [tensor.detach().double() for tensor in held.parameters()]  # down, its bias, up, its bias

            def hook(_, inputs, h, w=w):
                return h + ((h.double() @ w[0].T + w[1]).relu() @ w[2].T + w[3]).float()

            end.register_forward_hook(hook)
    past, table = DynamicCache(), gpt.prefixes.held["default"].table.detach().permute(1, 2, 0, 3)
    for layer in range(2):
        past.update(*(table[2 * layer + k][None].expand(2, -1, -1, -1) for k in (0, 1)), layer)
    torch.testing.assert_close(gpt(x), truth(x, past_key_values=past).logits, atol=1e-5, rtol=0)
