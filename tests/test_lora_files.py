"""Adapters on disk: what is broken is refused with its name, what is whole is written in the same bytes anywhere."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import lora
from lora import files

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


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
