"""NF4 against bitsandbytes and brute force; layers, adapters, merging and files on a base in four bits."""

import copy
import hashlib
import json
import math
import pickle

import pytest
import torch
from helpers import model as gpt
from helpers import tokens
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import lora
from lora import nf4
from lora.nf4_layer import NF4Linear

SHAPES = [(6, 64), (7, 5), (33,), (1,), (65, 3), (130, 127)]  # odd rows, odd counts, less than a block


@pytest.fixture(scope="module")
def bnb():
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    with torch.compiler.set_stance("force_eager"):  # it compiles odd shapes, which takes seconds each
        yield functional


def weight(shape, dtype=torch.float32, std=0.02, seed=0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std).to(dtype)


class TestCode:
    def test_codebook_and_map_are_those_of_bitsandbytes_to_the_bit(self, bnb):
        assert torch.equal(nf4.codebook(), bnb.get_4bit_type("nf4", device="cpu"))
        assert torch.equal(nf4.dynamic_map(), bnb.create_dynamic_map())

    def test_codebook_is_the_quantiles_by_their_definition(self):
        normal, top = torch.distributions.Normal(0.0, 1.0), (1 - 1 / 30 + 1 - 1 / 32) / 2
        above = [top + (0.5 - top) * i / 8 for i in range(8)]
        below = [top + (0.5 - top) * i / 7 for i in range(7)]
        truth = normal.icdf(torch.tensor([1 - p for p in below] + [0.5] + above[::-1], dtype=torch.float64))
        torch.testing.assert_close(nf4.codebook().double(), truth / truth.max(), rtol=0, atol=4e-7)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_bytes_and_what_comes_out_equal_bitsandbytes(self, bnb, shape, dtype):
        given = weight(shape, dtype)
        if shape == (6, 64):
            given[1] = 0  # a block of zeros
        ours = nf4.pack(given, double=False)
        codes, state = bnb.quantize_4bit(given, quant_type="nf4")
        assert torch.equal(ours.codes, codes.view(-1))
        assert torch.equal(ours.absmax, state.absmax)
        assert torch.equal(nf4.unpack(ours, dtype), bnb.dequantize_4bit(codes, state).view(shape))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("shape", [(7, 5), (300, 127), (512, 65)])
    def test_double(self, bnb, shape, dtype):
        given = weight(shape, dtype)
        ours = nf4.pack(given)
        codes, state = bnb.quantize_4bit(given, quant_type="nf4", compress_statistics=True)
        assert torch.equal(ours.codes, codes.view(-1))
        assert torch.equal(ours.scale, state.state2.absmax)
        assert torch.equal(ours.offset, state.offset)
        theirs = nf4.Packed(ours.shape, ours.codes, state.absmax, ours.scale, ours.offset)
        assert torch.equal(nf4.unpack(theirs, dtype), bnb.dequantize_4bit(codes, state).view(shape))
        # On the CPU bitsandbytes looks up 8 bits by a table that misses the nearest now and then: ours never does.
        assert (ours.absmax != state.absmax).float().mean() < 0.02
        truth = nf4.pack(given, double=False).absmax
        assert ((nf4.unpack_absmax(ours) - truth).abs() <= (nf4.unpack_absmax(theirs) - truth).abs() + 1e-9).all()

    @pytest.mark.parametrize("shape", SHAPES)
    def test_every_code_is_the_nearest(self, shape):
        given = weight(shape)
        packed = nf4.pack(given, double=False)
        codes = torch.stack([packed.codes >> 4, packed.codes & 15], 1).view(-1)[: given.numel()].long()
        absmax = packed.absmax.double().repeat_interleave(64)[: given.numel(), None]
        distance = (given.reshape(-1, 1).double() - absmax * nf4.codebook().double()).abs()
        assert (distance.gather(1, codes[:, None])[:, 0] <= distance.min(1).values + 1e-7 * absmax[:, 0]).all()
        if given.numel() % 2:
            assert packed.codes[-1] & 15 == 7  # which is zero

    def test_stored_vectors(self):
        """Made with bitsandbytes 0.50.2."""
        index = torch.arange(128, dtype=torch.float64)
        packed = nf4.pack((index.sin() * torch.where(index < 64, 1, 3)).float(), double=False)
        assert bytes(packed.codes.tolist()).hex() == (
            "7ef9104efc202cfe4019fe7106efa103dfd301bfe5017ef9104efc202cfd4019"
            "fe7006efa103dfd301bfe5017ef8104efb202cfd4019fe7006efa103dfc201bf"
        )
        assert packed.absmax.tolist() == [0.9999902248382568, 2.9985604286193848]
        index = torch.arange(19_200, dtype=torch.float64)
        packed = nf4.pack((index.sin() * (1 + index.long() // 64 % 7)).float())
        assert hashlib.sha256(bytes(packed.codes.tolist())).hexdigest()[:16] == "8615381fdee55a87"
        assert packed.absmax[:8].tolist() == [0, 24, 47, 145, 207, 231, 255, 0]

    def test_bits_and_error_of_normal_weights(self):
        given = weight((1024, 1024), std=1)
        assert round(nf4.pack(given).nbytes * 8 / 2**20, 3) == 4.127
        assert nf4.pack(given, double=False).nbytes * 8 / 2**20 == 4.5
        error = nf4.unpack(nf4.pack(given, double=False)) - given
        assert abs(error.square().mean().sqrt() - 0.0920) < 0.0005
        assert (error.abs().view(-1, 64) <= 0.1520 * given.view(-1, 64).abs().amax(1, keepdim=True)).all()

    def test_better_than_the_other_codes_of_four_bits(self):
        blocks = weight((512, 64), std=1)
        unit = blocks / blocks.abs().amax(1, keepdim=True)
        fp4 = torch.tensor([0, 0.0625, 2, 3, 4, 6, 8, 12]) / 12
        codes = {"nf4": nf4.codebook(), "fp4": torch.cat([-fp4, fp4]), "int4": torch.arange(-7, 8) / 7}
        error = {name: (unit[..., None] - code).abs().amin(-1).square().mean() for name, code in codes.items()}
        assert error["nf4"] < 0.9 * min(error["fp4"], error["int4"])

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_not_finite_is_refused(self, bad):
        with pytest.raises(lora.Error, match="NaN or infinity"):
            nf4.pack(torch.tensor([1.0, bad]))


def conv1d(n_in, n_out):
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(n_out, n_in)
    nn.init.normal_(layer.bias)
    return layer


def ours(n_in, n_out):
    from minigpt.linear import Linear

    return Linear(n_in, n_out)


KINDS = pytest.mark.parametrize("make", [nn.Linear, conv1d, ours])


class TestLayer:
    @KINDS
    @pytest.mark.parametrize("double", [False, True])
    def test_values_and_gradients_are_those_of_the_unpacked_layer(self, make, double):
        torch.manual_seed(0)
        module = make(70, 30)
        layer = NF4Linear(module, double)
        plain = layer.restore()
        assert type(plain) is type(module)
        assert plain.weight.shape == module.weight.shape
        assert torch.equal(plain.weight, layer.weight)
        assert (plain.weight - module.weight).abs().max() < 0.16 * module.weight.abs().max()
        found = []
        for each in (layer, plain):
            torch.manual_seed(1)
            x = torch.randn(2, 5, 70, requires_grad=True)
            each.bias.requires_grad_()
            y = each(x)
            found.append([y, *torch.autograd.grad(y.square().sum(), [x, each.bias])])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)

    def test_equals_bitsandbytes_linear4bit(self, bnb):
        from bitsandbytes.nn import Linear4bit

        module = nn.Linear(64, 32)
        theirs = Linear4bit(64, 32, quant_type="nf4", compress_statistics=False, compute_dtype=torch.float32)
        theirs.load_state_dict(module.state_dict())
        theirs, layer = theirs.to("cpu"), NF4Linear(module, double=False)
        found = []
        for each in (theirs, layer):
            x = torch.linspace(-1, 1, 192).view(3, 64).requires_grad_()
            y = each(x)
            found.append([y, *torch.autograd.grad(y.square().sum(), x)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

    def test_gradcheck(self):
        layer = NF4Linear(nn.Linear(5, 3).double())
        assert layer.weight.dtype == torch.float64
        assert torch.autograd.gradcheck(layer, torch.randn(2, 5, dtype=torch.float64, requires_grad=True))

    @pytest.mark.parametrize("double", [False, True])
    def test_only_codes_are_saved_for_backward(self, double):
        layer, saved = NF4Linear(nn.Linear(256, 64), double), []
        x = torch.randn(4, 256, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            layer(x).sum()
        assert sum(saved) == layer.packed.nbytes < 256 * 64 * 4.51 / 8

    def test_adapted_it_saves_what_the_adapter_needs_and_no_more(self):
        model, saved = nn.Sequential(nn.Linear(256, 64)), []
        lora.quantize(model, ["0"])
        lora.attach(model, lora.Config(r=2, targets=["0"]))
        x = torch.randn(4, 256, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
            model(x).sum()
        adapter = model[0].adapters["default"]
        least = x.nbytes + 4 * 2 * 4 + adapter.A.nbytes + adapter.B.nbytes
        assert sum(saved) == model[0].base.packed.nbytes + least

    def test_under_autocast_and_in_other_dtypes(self):
        layer = NF4Linear(nn.Linear(70, 30))
        plain, x = layer.restore(), torch.randn(3, 70, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
            torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)
        layer(x).sum().backward()
        for dtype in (torch.bfloat16, torch.float16):
            before = layer.packed
            other = copy.deepcopy(layer).to(dtype)
            assert other.weight.dtype == other.bias.dtype == dtype
            assert all(torch.equal(a, b) for a, b in zip(other.packed.tensors, before.tensors, strict=True))
            assert torch.equal(other.weight, layer.weight.to(dtype))
            assert other(x.to(dtype)).dtype == dtype

    def test_copies(self):
        layer = NF4Linear(conv1d(8, 4))
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(other.weight, layer.weight)
            assert torch.equal(other.restore().weight, layer.weight)


class TestModel:
    @pytest.mark.parametrize("kind", ["gpt2", "llama"])
    def test_ours(self, kind):
        model = gpt(kind, std=0.1)
        linear = sum(m.weight.numel() for p, m in model.named_modules() if isinstance(m, nn.Linear) and "head" not in p)
        done = lora.quantize(model)
        assert done.weights == linear
        assert "in NF4, 4." in str(done)
        assert not any(isinstance(m, nn.Linear) and "head" not in p for p, m in model.named_modules())
        ids = tokens()
        before = model(ids)
        names = lora.dequantize(model)
        assert names == done.layers
        torch.testing.assert_close(model(ids), before, rtol=0, atol=0)

    def test_transformers(self):
        from transformers import GPT2Config, GPT2LMHeadModel

        model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50, n_positions=16)).eval()
        before = {path: type(module) for path, module in model.named_modules()}
        assert len(lora.quantize(model).layers) == 4
        lora.attach(model, lora.Config(targets="all-linear"))
        ids = tokens(vocab=50)
        y = model(ids).logits
        lora.detach(model)
        lora.dequantize(model)
        torch.testing.assert_close(model(ids).logits, y, rtol=1e-6, atol=1e-6)
        assert before == {path: type(module) for path, module in model.named_modules()}

    def test_what_does_not_fit_is_refused_and_nothing_changed(self):
        class Own(nn.Linear):
            def forward(self, x):
                return super().forward(x) * 2

        model = nn.Sequential(nn.Linear(4, 4), Own(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
        model[3].weight = model[2].weight
        model[4].register_forward_hook(print)
        for name, why in {"1": "forward of its own", "2": "embedding|shares", "3": "shares its", "4": "hooks"}.items():
            with pytest.raises(lora.Error, match=why):
                lora.quantize(model, ["0", name])
        with pytest.raises(lora.Error, match="fits no module"):
            lora.quantize(model, ["7"])
        assert type(model[0]) is nn.Linear
        nn.init.constant_(model[0].weight, math.nan)
        with pytest.raises(lora.Error, match="^0: .*NaN"):
            lora.quantize(model, ["0"])
        assert type(model[0]) is nn.Linear

    def test_once_is_enough_and_not_beneath_adapters(self):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        assert lora.quantize(model, ["0"]).layers == ("0",)
        assert lora.quantize(model, ["0", "1"]).layers == ("1",)
        with pytest.raises(lora.Error, match="in four bits already"):
            lora.quantize(model)
        lora.attach(model, lora.Config(targets="all-linear"))
        with pytest.raises(lora.Error, match="first, then attach"):
            lora.quantize(model)


def pair(config, kind="gpt2"):
    """A model in four bits and one with the same weights in ordinary layers, with the same adapter."""
    model = gpt(kind, std=0.1)
    lora.quantize(model)
    plain = copy.deepcopy(model)
    lora.dequantize(plain)
    for each in (model, plain):
        torch.manual_seed(3)
        lora.attach(each, config)
        for parameter in lora.parameters(each):
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape) * 0.02)
    return model, plain


CONFIGS = {
    "lora": {},
    "dora": {"dora": True},
    "biases": {"bias": "lora_only"},
    "all biases": {"bias": "all", "targets": ["q_proj", "v_proj"]},
    "some": {"targets": ["q_proj", "down_proj"], "dropout": 0.2},
}


class TestTraining:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_steps_follow_those_beside_ordinary_layers(self, name):
        model, plain = pair(lora.Config(**{"r": 2, "targets": "all-linear"} | CONFIGS[name]))
        ids, losses = tokens(), []
        before = {key: tensor.clone() for key, tensor in model.state_dict().items() if "adapters" not in key}
        for each in (model.train(), plain.train()):
            torch.manual_seed(4)
            optimizer = torch.optim.AdamW(lora.parameters(each), lr=1e-3, weight_decay=0.1)
            losses.append([])
            for _ in range(4):
                optimizer.zero_grad()
                loss = F.cross_entropy(each(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
                loss.backward()
                optimizer.step()
                losses[-1].append(loss.item())
        assert losses[0][-1] < losses[0][0]
        torch.testing.assert_close(*losses, rtol=0, atol=1e-6)
        for a, b in zip(lora.parameters(model), lora.parameters(plain), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
        after = model.state_dict()
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())

    def test_each_row_its_own(self):
        model, plain = pair(lora.Config(r=2, targets="all-linear"))
        found = []
        ids = tokens(2)
        for each in (model, plain):
            with torch.no_grad(), lora.rows(each, ["default", None]):
                found.append(each(ids))
        torch.testing.assert_close(*found, rtol=0, atol=1e-6)


class TestMerging:
    def test_into_four_bits_is_refused_and_nothing_changed(self):
        model, _ = pair(lora.Config(r=2, targets="all-linear"))
        ids = tokens()
        before = model(ids)
        with pytest.raises(lora.Error, match=r"q_proj is in four bits.*lora.dequantize\(model\)"):
            lora.merge(model)
        assert torch.equal(model(ids), before)

    @pytest.mark.parametrize("kind", ["gpt2", "transformers"])
    def test_onto_the_unpacked_base_it_is_exact_and_says_so(self, kind):
        if kind == "gpt2":
            model, plain = pair(lora.Config(r=2, targets="all-linear"))
        else:
            model = nn.Sequential(conv1d(8, 24))
            lora.quantize(model, ["0"])
            plain = copy.deepcopy(model)
            lora.dequantize(plain)
            for each in (model, plain):
                torch.manual_seed(0)
                lora.attach(each, lora.Config(r=2, targets=["0"]))
                nn.init.normal_(each[0].adapters["default"].B)
        ids = tokens() if kind == "gpt2" else torch.randn(3, 8)
        before = model(ids)
        lora.dequantize(model)
        torch.testing.assert_close(model(ids), before, rtol=1e-6, atol=1e-6)
        base = {path: layer.base.weight.detach().double() for path, layer in lora.layers_of(model).items()}
        reports = lora.merge(model)
        assert {report.onto for report in reports} == {"the weight unpacked from NF4 (double)"}
        for path, layer in lora.layers_of(model).items():
            adapter = layer.adapters["default"]
            update = adapter.scale * (adapter.B.double() @ adapter.A.double())
            truth = base[path] + (update.T if layer.transposed else update)
            assert torch.equal(layer.base.weight, truth.float())
        torch.testing.assert_close(model(ids), before, rtol=1e-4, atol=1e-5)
        lora.merge(plain)
        assert torch.equal(plain(ids), model(ids))

    def test_an_ordinary_base_is_called_so(self):
        model = nn.Sequential(nn.Linear(4, 4))
        lora.attach(model, lora.Config(targets=["0"]))
        assert lora.merge(model)[0].onto == "the weight"


def described(layer, leave_out):
    said = {key: value for key, value in layer._described().items() if key != leave_out}
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


class TestFiles:
    @pytest.mark.parametrize("double", [False, True])
    def test_quantised_model_through_safetensors(self, tmp_path, double):
        model, other = gpt(std=0.1), gpt(std=0.1)
        for each in (model, other):
            lora.quantize(each, double=double)
        ids = tokens()
        assert not torch.equal(model(ids), other(ids))
        state = {name: tensor for name, tensor in model.state_dict().items() if name != "head.weight"}  # tied
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "m.safetensors")
        other.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=False)
        assert torch.equal(model(ids), other(ids))

    @pytest.mark.parametrize("double", [False, True])
    def test_bitsandbytes_reads_it(self, bnb, double):
        layer = NF4Linear(nn.Linear(70, 30), double)
        state = layer.state_dict()
        stored = {name: tensor for name, tensor in state.items() if name.startswith("weight.")}
        read = bnb.QuantState.from_dict(stored, "cpu")
        assert torch.equal(bnb.dequantize_4bit(state["weight"], read), layer.weight)

    @pytest.mark.parametrize("double", [False, True])
    def test_and_its_own_is_read(self, bnb, double):
        module = nn.Linear(70, 30)
        codes, state = bnb.quantize_4bit(module.weight.detach(), quant_type="nf4", compress_statistics=double)
        stored = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
        layer = NF4Linear(nn.Linear(70, 30), double)
        layer.load_state_dict(stored | {"weight": codes, "bias": module.bias.detach()})
        assert torch.equal(layer.weight, bnb.dequantize_4bit(codes, state))

    def test_what_is_not_its_own_is_refused(self):
        layer = NF4Linear(nn.Linear(70, 30))
        good, before = layer.state_dict(), layer.weight
        bad = {
            "not the NF4 code": {"weight.quant_map": good["weight.quant_map"] * 0.5},
            r"\(30, 70\) torch.float32, expected \(1050, 1\)": {"weight": torch.zeros(30, 70)},
            "says shape": NF4Linear(nn.Linear(30, 70)).state_dict(),
            "says quant_type": {"weight.quant_state.bitsandbytes__nf4": torch.zeros(3, dtype=torch.uint8)},
            "lacks the number": {"weight.quant_state.bitsandbytes__nf4": described(layer, "nested_offset")},
            "absmax is .* torch.float32, expected .* torch.uint8": {"weight.absmax": torch.zeros(33)},
        }
        for why, change in bad.items():
            change = {name: tensor for name, tensor in change.items() if name != "bias"}
            with pytest.raises(RuntimeError, match=why):
                layer.load_state_dict(good | change)
        with pytest.raises(RuntimeError, match="Missing.*weight.nested_absmax"):
            layer.load_state_dict({name: t for name, t in good.items() if name != "weight.nested_absmax"})
        with pytest.raises(RuntimeError, match="Unexpected.*other"):
            layer.load_state_dict(good | {"other": torch.zeros(1)})
        assert torch.equal(layer.weight, before)

    def test_an_adapter_returns_to_its_base_and_is_refused_by_the_one_before_rounding(self, tmp_path):
        whole = gpt(std=0.1)
        model = copy.deepcopy(whole)
        lora.quantize(model)
        empty = copy.deepcopy(model)
        lora.attach(model, lora.Config(r=2, targets=["q_proj", "v_proj"]))
        for parameter in lora.parameters(model):
            nn.init.normal_(parameter, std=0.1)
        lora.save(model, tmp_path)
        ids = tokens()
        lora.load(empty, tmp_path)
        assert torch.equal(empty(ids), model(ids))
        with pytest.raises(lora.Error, match="trained beside weights in four bits"):
            lora.load(whole, tmp_path)
        unpacked = copy.deepcopy(empty)
        lora.detach(unpacked)
        lora.dequantize(unpacked)
        lora.load(unpacked, tmp_path)
        torch.testing.assert_close(unpacked(ids), model(ids), rtol=1e-6, atol=1e-6)
