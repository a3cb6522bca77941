"""Adapters on disk: what is broken is refused with its name, what is whole is written in the same bytes anywhere."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lora
from lora import files, peft_config

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
LAYER = "base_model.model.h.0.down"


def model(std=0.3, hidden=12):
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "h": nn.ModuleList(
                nn.ModuleDict({"up": nn.Linear(8, hidden), "down": nn.Linear(hidden, 8)}) for _ in range(2)
            )
        }
    )


def adapted(**options):
    made = model()
    lora.attach(made, lora.Config(**({"r": 4, "alpha": 8, "targets": ["up", "down"]} | options)))
    for parameter in lora.parameters(made):
        nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def saved(tmp_path):
    lora.save(adapted(), tmp_path / "adapter", base="some/base")
    return tmp_path / "adapter"


def edit_config(directory, **changes):
    path = directory / CONFIG
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "REMOVE"}))


def edit_tensors(directory, change, metadata=None):
    tensors = load_file(directory / TENSORS)
    change(tensors)
    save_file(tensors, directory / TENSORS, metadata)


def first(tensors, end):
    return next(name for name in sorted(tensors) if name.endswith(end))


def rename(old, new):
    def change(tensors):
        tensors[new(first(tensors, old))] = tensors.pop(first(tensors, old))

    return change


def fill(value):
    def change(tensors):
        tensors[first(tensors, "lora_A.weight")][0, 0] = value

    return change


BROKEN_CONFIGS = {
    "no r": ({"r": "REMOVE"}, "r is missing"),
    "no alpha": ({"lora_alpha": "REMOVE"}, "lora_alpha is missing"),
    "alpha of null": ({"lora_alpha": None}, "lora_alpha is missing"),
    "alpha of zero": ({"lora_alpha": 0}, "lora_alpha is 0"),
    "alpha as text": ({"lora_alpha": "16"}, "alpha is '16'"),
    "no targets": ({"target_modules": None}, "target_modules is missing"),
    "another method": ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    "no method": ({"peft_type": "REMOVE"}, "peft_type is None"),
    "a misspelt key": ({"lora_alhpa": 3}, "unknown key 'lora_alhpa': did you mean 'lora_alpha'"),
    "another rank": ({"r": 5}, r"rank 5 of adapter_config.json makes them \(5, in\)"),
    "a layer more in the config": ({"target_modules": ["up", "down", "gate"]}, "'gate', but no tensor belongs to it"),
    "a layer less in the config": (
        {"target_modules": ["up"]},
        "tensors for h.0.down, which target_modules does not name",
    ),
    "dora without magnitudes": ({"use_dora": True}, "lora_magnitude_vector is not there"),
    "a changed base": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    "modules that are not there": ({"modules_to_save": ["head"]}, "modules_to_save names 'head'"),
    "a pattern for nothing": ({"rank_pattern": {"gate": 2}}, "a pattern names 'gate', but no tensor belongs to it"),
    "dropout as text": ({"lora_dropout": "much"}, "a value has the wrong type"),
    "a pattern as list": ({"rank_pattern": [3]}, "a value has the wrong type"),
    "another start": ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
}
for _key in (
    "use_qalora",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "lora_bias",
    "arrow_config",
):
    BROKEN_CONFIGS[_key] = ({_key: [1]}, f"{_key} is .* not supported")

BROKEN_TENSORS = {
    "NaN": (fill(torch.nan), "NaN or infinity"),
    "infinity": (fill(torch.inf), "NaN or infinity"),
    "whole numbers": (lambda t: t.update({first(t, "A.weight"): torch.ones(4, 8, dtype=torch.int32)}), "torch.int32"),
    "A without B": (lambda t: t.pop(first(t, "lora_B.weight")), "A and B belong together"),
    "a layer missing": (lambda t: [t.pop(name) for name in list(t) if "down" in name], "'down', but no tensor belongs"),
    "a stray tensor": (lambda t: t.update({"base_model.model.h.0.x": torch.ones(2)}), "unused"),
    "a foreign prefix": (rename("lora_A.weight", lambda name: "model." + name), "does not begin with"),
    "a smaller A": (
        lambda t: t.update({first(t, "A.weight"): torch.ones(3, 12)}),
        r"A \(3, 12\) and B \(8, 4\); rank 4",
    ),
    "a smaller B": (
        lambda t: t.update({first(t, "B.weight"): torch.ones(8, 3)}),
        r"A \(4, 12\) and B \(8, 3\); rank 4",
    ),
    "a bias nobody announced": (lambda t: t.update({f"{LAYER}.base_layer.bias": torch.ones(8)}), "unused"),
    "magnitudes nobody announced": (
        lambda t: t.update({f"{LAYER}.lora_magnitude_vector": torch.ones(8)}),
        "use_dora is False, but lora_magnitude_vector is there",
    ),
    "three dimensions": (lambda t: t.update({first(t, "A.weight"): torch.ones(4, 8, 1)}), r"A \(4, 8, 1\)"),
    "nothing": (lambda t: t.clear(), "holds no adapter"),
}


class TestStrict:
    @pytest.mark.parametrize("case", BROKEN_CONFIGS)
    def test_broken_configs(self, saved, case):
        changes, message = BROKEN_CONFIGS[case]
        edit_config(saved, **changes)
        with pytest.raises(lora.Error, match=message):
            lora.load(model(), saved)

    @pytest.mark.parametrize("case", BROKEN_TENSORS)
    def test_broken_tensors(self, saved, case):
        change, message = BROKEN_TENSORS[case]
        edit_tensors(saved, change)
        with pytest.raises(lora.Error, match=message):
            lora.load(model(), saved)

    @pytest.mark.parametrize(
        "make, message",
        [
            (lambda: nn.ModuleDict({"h": model()["h"][:1]}), "which this model has not"),
            (lambda: model(hidden=16), "12 inputs and 8 outputs, the layer 16 and 8"),
            (lambda: nn.ModuleDict({"g": model()["h"]}), "which this model has not"),
        ],
        ids=["fewer layers", "other widths", "other names"],
    )
    def test_another_base(self, saved, make, message):
        base = make()
        with pytest.raises(lora.Error, match=message):
            lora.load(base, saved, check_base=False)
        assert not lora.layers_of(base) and all(p.requires_grad for p in base.parameters())

    def test_a_base_without_a_tensor_that_the_adapter_was_trained_on(self, saved):
        with pytest.raises(
            lora.Error, match=r"was trained on a base with 'h\.\d\.\w+\.weight', which this model has not"
        ):
            lora.load(nn.ModuleDict({"g": model()["h"]}), saved)

    def test_an_embedding_where_a_linear_layer_should_be(self, saved):
        base = model()
        base["h"][0]["up"] = nn.Embedding(8, 12)
        with pytest.raises(lora.Error, match=r"the tensors of h\.0\.up are not for a Embedding"):
            lora.load(base, saved, check_base=False)

    def test_a_name_that_is_taken(self, saved):
        lora.load(base := model(), saved)
        with pytest.raises(lora.Error, match="'default' is attached already"):
            lora.load(base, saved)

    @pytest.mark.parametrize(
        "name, tensor, message",
        [
            ("h.0.head.weight", torch.ones(3, 8), "holds 'h.0.head.weight', which this model has not"),
            ("h.0.norm.weight", torch.ones(9), r"'h.0.norm.weight' is \(9,\), the model's \[\(8,\)\]"),
            ("h.0.norm.gain", torch.ones(8), "gain"),
            ("h.0.header.weight", torch.ones(8), "unused"),
        ],
    )
    def test_modules_learned_whole_that_do_not_fit(self, saved, name, tensor, message):
        base = model()
        for block in base["h"]:
            block["norm"] = nn.LayerNorm(8)
        edit_config(saved, modules_to_save=["norm", "head"])
        whole = {"h.1.norm.weight": torch.ones(8), "h.1.norm.bias": torch.ones(8), "h.1.head.weight": torch.ones(3, 8)}
        edit_tensors(
            saved, lambda t: t.update({f"base_model.model.{n}": x for n, x in (whole | {name: tensor}).items()})
        )
        with pytest.raises((lora.Error, AttributeError), match=message):
            lora.load(base, saved)
        assert not lora.adapters(base) and all(p.requires_grad for p in base.parameters())

    def test_a_weight_for_a_layer_that_has_a_and_b_as_well(self, saved):
        edit_config(saved, modules_to_save=["down"])
        edit_tensors(saved, lambda t: t.update({f"{LAYER}.weight": torch.ones(8, 12)}))
        with pytest.raises(lora.Error, match="h.0.down"):
            lora.load(model(), saved)

    def test_a_magnitude_for_every_output(self, tmp_path):
        lora.save(adapted(dora=True), tmp_path)
        edit_tensors(tmp_path, lambda t: t.update({f"{LAYER}.lora_magnitude_vector": torch.ones(7)}))
        with pytest.raises(lora.Error, match=r"lora_magnitude_vector is \(7,\), expected \(8,\)"):
            lora.load(model(), tmp_path)

    def test_tied_weights_whose_updates_differ(self, saved):
        edit_config(saved, ensure_weight_tying=True)
        with pytest.raises(lora.Error, match="head and embedding do not hold the same update"):
            lora.load(model(), saved)

    def test_tied_weights_of_which_one_was_changed(self, tmp_path):
        def tied():
            made = nn.ModuleDict({"embedding": nn.Embedding(7, 6), "head": nn.Linear(6, 7, bias=False)})
            made["head"].weight = made["embedding"].weight
            return made

        lora.attach(made := tied(), lora.Config(r=2, targets=["head"], tied="tie"))
        nn.init.normal_(made["head"].adapters["default"].B)
        lora.save(made, tmp_path)
        lora.load(again := tied(), tmp_path, check_base=False)
        assert torch.equal(again["embedding"].adapters["default"].factors()[0], made["head"].adapters["default"].B.T)
        edit_tensors(tmp_path, lambda t: t[first(t, "head.lora_B.weight")].add_(1))
        with pytest.raises(lora.Error, match="head and embedding do not hold the same update"):
            lora.load(tied(), tmp_path, check_base=False)

    def test_parts_that_do_not_explain_b(self, saved):
        parts = {"h.0.up": [[6, 2], [7, 2]]}
        edit_tensors(saved, lambda t: None, {"lora": json.dumps({"parts": parts})})
        with pytest.raises(lora.Error, match=r"h.0.up.lora_B is \(12, 4\), which the parts .* do not explain"):
            lora.load(model(), saved)

    def test_a_base_with_more_layers_than_the_adapter(self, saved):
        base = nn.ModuleDict({"h": nn.ModuleList([*model()["h"], *model()["h"]])})
        with pytest.raises(lora.Error, match=r"names h.2.(up|down), but the file has no tensors for it"):
            lora.load(base, saved)

    def test_other_weights_of_the_same_shape(self, saved):
        base = model()
        with torch.no_grad():
            base["h"][1]["down"].weight.add_(1e-3)
        with pytest.raises(lora.Error, match=r"'h.1.down.weight' differs from the base it recorded"):
            lora.load(base, saved)
        lora.load(base, saved, check_base=False)

    @pytest.mark.parametrize(
        "damage, message",
        [
            (lambda d: (d / CONFIG).unlink(), "adapter_config.json: not found"),
            (lambda d: (d / CONFIG).write_text("{"), "not valid JSON"),
            (lambda d: (d / CONFIG).write_text("[" * 100_000), "not valid JSON"),
            (lambda d: (d / CONFIG).write_text("[1]"), "expected a JSON object"),
            (lambda d: (d / TENSORS).unlink(), "not found"),
            (lambda d: (d / TENSORS).write_bytes(b"\xff" * 100), "not a readable safetensors file"),
            (lambda d: (d / TENSORS).write_bytes((d / TENSORS).read_bytes()[:-9]), "not a readable safetensors file"),
            (lambda d: (d / TENSORS).rename(d / "adapter_model.bin"), "pickled weights"),
            (lambda d: edit_tensors(d, lambda t: None, {"lora": "[1"}), "header is damaged"),
            (lambda d: edit_tensors(d, lambda t: None, {"lora": '{"base": {"x": 3}}'}), "header is damaged"),
            (lambda d: edit_tensors(d, lambda t: None, {"lora": '{"parts": {"x": [["a"]]}}'}), "header is damaged"),
        ],
    )
    def test_damaged_files(self, saved, damage, message):
        damage(saved)
        with pytest.raises(lora.Error, match=message):
            lora.load(model(), saved)


def test_what_was_saved_comes_back(saved):
    made, again = adapted(), model()
    report = lora.load(again, saved, name="x")
    assert report.parameters == 0, "loaded adapters do not learn unless asked to"
    for path, layer in lora.layers_of(made).items():
        for mine, theirs in zip(
            layer.adapters["default"].parameters(), lora.layers_of(again)[path].adapters["x"].parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
    lora.detach(again)
    assert lora.load(again, saved, trainable=True).parameters == sum(p.numel() for p in lora.parameters(made))


def test_a_loaded_adapter_leaves_a_frozen_base(saved):
    lora.load(made := model(), saved, trainable=True)
    assert {name for name, p in made.named_parameters() if p.requires_grad} == {
        name for name, _ in made.named_parameters() if "adapters" in name
    }


class TestRefill:
    @pytest.mark.parametrize(
        "options",
        [
            {"r": 3, "alpha": 6},
            {"alpha": 9},
            {"targets": ["up"]},
            {"bias": "all"},
            {"dora": True},
            {"rank_pattern": {"h.1.up": 3}},
        ],
        ids=str,
    )
    def test_what_is_shaped_otherwise_is_refused(self, saved, options):
        made = adapted(**options)
        before = [p.clone() for p in lora.parameters(made)]
        with pytest.raises(
            lora.Error, match="differs from adapter 'default' at h.*: give the options it was made with"
        ):
            lora.refill(made, saved)
        assert all(torch.equal(a, b) for a, b in zip(before, lora.parameters(made), strict=True))

    def test_what_is_learned_whole_is_not_written_into_the_base(self, tmp_path):
        """With bias="all" the copy of a norm shares its weight with the base: a file that brings one is refused."""
        made, other = (nn.ModuleDict({"up": nn.Linear(8, 8), "norm": nn.LayerNorm(8)}) for _ in range(2))
        lora.attach(other, lora.Config(r=4, targets=["up"], modules_to_save=["norm"]))
        nn.init.normal_(other["norm"].adapters["default"].weight)
        lora.save(other, tmp_path)
        lora.attach(made, lora.Config(r=4, targets=["up"], bias="all"))
        with pytest.raises(lora.Error, match="differs from adapter 'default' at (norm|up)"):
            lora.refill(made, tmp_path, check_base=False)
        assert made["norm"].base.weight.eq(1).all()

    @pytest.mark.parametrize(
        "options", [{"dora": True}, {"bias": "all"}, {"targets": ["up"], "modules_to_save": ["h.1.down"]}], ids=str
    )
    def test_all_of_it_comes_back(self, tmp_path, options):
        made = adapted(**options)
        lora.save(made, tmp_path)
        expected = [p.clone() for p in lora.parameters(made)]
        for parameter in lora.parameters(made):
            nn.init.ones_(parameter)
        lora.refill(made, tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(expected, lora.parameters(made), strict=True))

    def test_the_one_that_is_named(self, saved):
        made = adapted()
        lora.attach(made, lora.Config(r=4, alpha=8, targets=["up", "down"]), name="other")
        before = [p.clone() for p in lora.parameters(made, "other")]
        for parameter in lora.parameters(made, "default"):
            nn.init.zeros_(parameter)
        lora.refill(made, saved, name="default")
        expected = lora.parameters(adapted())
        assert all(torch.equal(a, b) for a, b in zip(lora.parameters(made, "default"), expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(before, lora.parameters(made, "other"), strict=True))


class TestConfigs:
    def test_a_pattern_of_layers_names_where_they_are(self, saved):
        edit_config(saved, target_modules=["mlp.up"], layers_to_transform=[0, 2], layers_pattern="h")
        config = peft_config.read(saved)
        fits = ["h.0.mlp.up", "x.h.2.mlp.up", "h.2.x.mlp.up", "x.1.h.2.mlp.up"]
        others = ["h.1.mlp.up", "g.0.mlp.up", "h.0.mlp_up", "h.0.mlpxup", "0.mlp.up", "h.0.mlp.up.x"]
        assert [path for path in fits + others if config.wants(path)] == fits
        edit_config(saved, layers_to_transform=None, layers_pattern=["g", "h"])
        config = peft_config.read(saved)
        assert config.wants("h.7.mlp.up") and config.wants("g.1.mlp.up") and not config.wants("f.1.mlp.up")

    @pytest.mark.parametrize("init", ["gaussian", "kaiming"])
    def test_how_it_started_is_told(self, tmp_path, init):
        lora.save(adapted(init=init), tmp_path)
        assert peft_config.read(tmp_path).init == init

    def test_the_order_of_names_does_not_count(self):
        one, other = (lora.Config(targets=names, exclude=names[:1]) for names in (("a", "b"), ("b", "a")))
        assert peft_config.write(one).replace('"a"', "").count('"b"') == 1
        assert json.loads(peft_config.write(one))["target_modules"] == ["a", "b"]
        assert json.loads(peft_config.write(other))["target_modules"] == ["a", "b"]


def test_the_same_bytes_in_whatever_order_layers_were_found(tmp_path):
    stored = lora.collect(adapted())
    for name, order in (("a", 1), ("b", -1)):
        updates = dict(list(stored.updates.items())[::order])
        files.write(replace(stored, updates=updates), tmp_path / name)
    assert (tmp_path / "a" / TENSORS).read_bytes() == (tmp_path / "b" / TENSORS).read_bytes()


def test_a_model_that_tells_its_layout_must_tell_all_of_it():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

        def checkpoint_layout(self):
            return [SimpleNamespace(name="mlp.up.weight", ours=("up.weight",), transposed=False)]

    lora.attach(made := Told(), lora.Config(r=1, targets=["up"]))
    assert lora.collect(made).updates.keys() == {"mlp.up"}
    lora.attach(made, lora.Config(r=1, targets=["down"]), name="down")
    with pytest.raises(lora.Error, match=r"down.weight is not in the model's checkpoint_layout"):
        lora.collect(made, "down")


def test_the_order_of_patterns_survives(tmp_path):
    made = adapted(rank_pattern={r"h\.0\.up": 2, "up": 3}, alpha_pattern={"h.*down": 5, "down": 7})
    lora.save(made, tmp_path)
    lora.load(again := model(), tmp_path)
    found = {
        path: (layer.adapters["default"].rank, layer.adapters["default"].scale)
        for path, layer in lora.layers_of(again).items()
    }
    assert found == {"h.0.up": (2, 4.0), "h.0.down": (4, 1.25), "h.1.up": (3, 8 / 3), "h.1.down": (4, 1.25)}


def test_saving_while_merged_saves_the_same(tmp_path):
    made = adapted()
    lora.save(made, tmp_path / "a")
    lora.merge(made)
    lora.save(made, tmp_path / "b")
    with lora.disabled(made):
        lora.save(made, tmp_path / "c")
    for name in (CONFIG, TENSORS):
        assert len({(tmp_path / each / name).read_bytes() for each in "abc"}) == 1


def test_an_adapter_that_diverged_is_not_saved_and_the_old_file_stays(saved):
    before = (saved / TENSORS).read_bytes()
    made = adapted()
    with torch.no_grad():
        lora.modules_of(made, "default")[0].B[0, 0] = torch.nan
    with pytest.raises(lora.Error, match="not saved.*NaN"):
        lora.save(made, saved)
    assert (saved / TENSORS).read_bytes() == before
    assert not list(saved.glob("*.tmp*"))


def test_which_adapter_is_meant():
    made = adapted()
    lora.attach(made, lora.Config(r=2, targets=["up"]), name="b")
    assert lora.collect(made).config.r == 2, "of several the one at work"
    lora.use(made)
    with pytest.raises(lora.Error, match=r"2 adapters are attached \(default, b\): say which"):
        lora.collect(made)


def test_the_same_bytes_under_any_hash_seed(tmp_path):
    code = """
import sys, torch, lora
from torch import nn
torch.manual_seed(0)
m = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("q", "k", "v", "o", "up")})
targets = ["v", "q", "up", "o"]
lora.attach(m, lora.Config(r=2, targets=targets, exclude=["k"], rank_pattern={"up": 3}, modules_to_save=["k"]))
lora.save(m, sys.argv[1])
"""
    digests = set()
    for seed in ("0", "1", "12345"):
        out = tmp_path / seed
        root = str(Path(__file__).parents[1])
        subprocess.run(
            [sys.executable, "-c", code, out], check=True, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        digests.add(hashlib.sha256((out / CONFIG).read_bytes() + (out / TENSORS).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fingerprint_knows_a_base_in_any_wider_dtype_and_no_other(dtype):
    torch.manual_seed(0)
    weight = torch.randn(300, 400).to(dtype)
    assert files.fingerprint(weight) == files.fingerprint(weight.float())
    other = weight.clone()
    other[17:19] *= 1.5
    assert files.fingerprint(weight) != files.fingerprint(other)
    assert files.fingerprint(weight) != files.fingerprint(weight.T.contiguous())
    assert files.fingerprint(weight.T) == files.fingerprint(weight.T.contiguous())


def test_a_fingerprint_sees_shape_every_column_and_every_digit():
    weight = torch.arange(2.0**18, dtype=torch.float64).view(-1, 2)
    for change in (weight.view(2, -1), weight + torch.tensor([0.0, 1.0]), weight + torch.tensor([1.0, 0.0])):
        assert files.fingerprint(weight) != files.fingerprint(change)
    few = torch.ones(6, dtype=torch.float64)
    assert files.fingerprint(few.view(2, 3)) != files.fingerprint(few.view(3, 2))
    assert files.fingerprint(few + 1e-9) != files.fingerprint(few + 2e-9)
