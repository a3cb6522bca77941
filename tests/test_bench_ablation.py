"""The ablation: its variants weigh what they say, cost what was measured, and are compared seed by seed."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigpt.cli import parse
from minigpt.model import count_parameters
from minigpt.training.options import BatchConfig, ComputeConfig, LoopConfig, OptimizerConfig, ShapeConfig
from minigpt.training.schedule import ScheduleConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import ablation
import time_to_quality
from ablation import VARIANTS, Outcome, Variant

RECORDS = (ShapeConfig, BatchConfig, LoopConfig, OptimizerConfig, ScheduleConfig, ComputeConfig)


@cache
def options_of(recipe):
    return parse(*RECORDS, prog="recipe", args=recipe.split())


def shape_of(variant):
    shape = options_of(variant.recipe)[0]
    return replace(shape.model_config(variant.vocab_size), **variant.shape)


def test_every_variant_is_one_of_a_kind_and_can_be_built():
    assert len({each.key for each in VARIANTS}) == len({each.name for each in VARIANTS}) == len(VARIANTS)
    weights = {each.name: count_parameters(shape_of(each)) for each in VARIANTS}
    default = weights.pop("the default")
    heavier = {name for name, weight in weights.items() if abs(weight / default - 1) > 0.04}
    assert heavier == {"head not tied", "vocabulary 2,048", "vocabulary 8,192"}


def test_what_is_not_timed_makes_the_same_step():
    """The rest of a step's work, shape, rows, optimizer, is what the default's is."""
    _, batching, loop, optimizer, _, computing = options_of(VARIANTS[0].recipe)
    for each in VARIANTS:
        _, b, o, p, _, c = options_of(each.recipe)
        same = (b, o, p.optimizer, c) == (batching, loop, optimizer.optimizer, computing)
        same &= shape_of(each) == shape_of(VARIANTS[0])
        assert each.timed != same, each.name


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Runs that only count: a step of a variant costs 0.5 of the default's, its quality is 2 - seed / 10."""
    runs = []

    def quality(recipe, steps, tokens, seed, **changes):
        runs.append((recipe, steps, tokens, seed, changes))
        return {"bits_per_byte": 2 - seed / 10}

    monkeypatch.setattr(ablation, "quality", quality)
    monkeypatch.setattr(ablation, "pace", lambda *_: {"default": 1.0, "variant": 0.5})
    return runs, SimpleNamespace(out=tmp_path, steps=100, seeds=3, rounds=1)


def test_a_variant_takes_the_defaults_time_and_is_measured_once(counted):
    runs, options = counted
    variant = Variant("wide", "--d-ff 10", {"norm": "layernorm"}, vocab_size=7)
    found = ablation.measure(variant, lambda each: each.vocab_size, options)
    assert (found.cost, found.steps, found.bits) == (0.5, 200, [2.0, 1.9, 1.8])
    assert runs == [(f"{ablation.SIZE} --d-ff 10", 200, 7, seed, {"norm": "layernorm"}) for seed in range(3)]
    assert ablation.measure(variant, lambda each: each.vocab_size, options) == found and len(runs) == 3
    assert ablation.measure(replace(variant, timed=False), lambda each: 7, options).steps == 100


def test_a_difference_is_taken_seed_by_seed():
    default = Outcome(VARIANTS[0], 1.0, 100, [2.0, 1.0])
    worse = Outcome(Variant("worse"), 1.5, 67, [2.25, 1.25])
    better = Outcome(Variant("better"), 1.0, 100, [1.5, 1.0])
    lines = ablation.table([default, worse, better]).splitlines()[2:]
    assert lines == [
        "| better | 1.00 | 100 | 1.250 | 0.354 | -0.250 | 0.354 |",
        "| **the default** | 1.00 | 100 | 1.500 | 0.707 |  |  |",
        "| worse | 1.50 | 67 | 1.750 | 0.707 | +0.250 | 0.000 |",
    ]
    assert ">worse<" in ablation.picture([default, worse, better])


def test_a_run_learns_and_its_changes_reach_the_model(tmp_path):
    tokens = time_to_quality.tokens_of("en", tmp_path / "absent", tmp_path, vocab_size=300)
    recipe = "--n-layers 1 --n-heads 1 --d-model 16 --context 16"
    run = time_to_quality.Run(recipe, tokens, 0, norm="layernorm")
    assert run.model.config.norm == "layernorm" and tokens.vocab_size <= 300
    first = run.step(0, 30)
    assert min(run.step(number, 30) for number in range(1, 30)) < first - 0.3
