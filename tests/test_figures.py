"""Pictures: what they show is compared with numbers from elsewhere, not only that they are pictures."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import config, model

import lora
from minigpt import rope
from minigpt.errors import Error
from minigpt.figures import __main__ as command
from minigpt.figures import bars, canvas, curves, docs, gallery, looks, masks, places
from minigpt.memory.job import Job
from minigpt.memory.predict import predict
from minigpt.tokenizer import Tokenizer

DOCS = Path(__file__).parents[1] / "docs"


def brute(n, sees):
    return [[sees(i, j) for j in range(n)] for i in range(n)]


def shown(axes):
    """The cells of a picture of squares, as they were drawn."""
    (mesh,) = axes.collections
    return mesh.get_array().reshape(mesh._coordinates.shape[0] - 1, -1).astype(bool).tolist()


def points(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return list(line.get_xdata()), list(line.get_ydata())


@pytest.fixture
def run(tmp_path):
    """A directory as train.py leaves it: a model, a tokenizer, settings and records."""
    folder = tmp_path / "run"
    tokenizer = Tokenizer.train(["cough fever 患者咳嗽 " * 20], 280)
    model(vocab_size=tokenizer.vocab_size).save_pretrained(folder)
    tokenizer.save(folder)
    settings = {"steps": 10, "lr": 0.5, "schedule": "cosine", "warmup": 2, "final_lr": 0.1, "batch_size": 3}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings | {"context": 16, "optimizer": "sgd", "momentum": 0.9}))
    records = [{"kind": "train", "step": t, "loss": 6 - t / 2, "lr": 0.1 * t} for t in range(1, 5)]
    records += [{"kind": "eval", "step": 4, "loss": 4.25, "bits_per_byte": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["figures", *map(str, words)])
    return command.main()


def test_the_cells_of_the_masks_are_those_of_the_definitions():
    drawn = masks.draw(config("llama", window=9, banded_layers=(0,), sinks=1, context=64))
    found = {axes.get_title().partition("\n")[0]: shown(axes) for axes in drawn.axes}
    prefix = [[True] * 4 + row for row in brute(16, lambda i, j: j <= i)]
    assert found == {
        "causal": brute(16, lambda i, j: j <= i),
        "local, window 9, 1 sinks": brute(16, lambda i, j: j <= i and (i - j < 4 or j == 0)),
        "two documents": brute(16, lambda i, j: j <= i and i // 8 == j // 8),
        "padding on the left": brute(16, lambda i, j: i == j or 4 <= j <= i),
        "after a prefix": prefix,
    }


def test_a_narrow_window_is_drawn_as_it_is():
    names = list(masks.grids(config("gpt3")))
    assert names[1] == "local, window 3"


def test_attention_squares_hold_the_weights_of_their_layer_and_head():
    weights = torch.rand(8, 7, 3, 3).softmax(-1)
    drawn = looks.draw(weights, ["a", "b", "c"])
    assert len(drawn.axes) == 36
    for axes in drawn.axes:
        layer, head = (int(word.split()[1]) for word in axes.get_title().split(", "))
        assert torch.equal(torch.from_numpy(axes.images[0].get_array().data), weights[layer, head])
    assert drawn.axes[-1].get_title() == "layer 7, head 6"


def test_likeness_of_learned_positions_is_the_cosine():
    table = torch.randn(9, 5)
    expected = torch.nn.functional.cosine_similarity(table[:, None], table[None], dim=-1)
    torch.testing.assert_close(places.alike(table), expected)
    assert places.draw_learned(table).axes[0].images[0].get_array().shape == (9, 9)
    assert torch.equal(places.alike(table, 3), places.alike(table[[0, 4, 8]]))


def test_rotary_curves_against_the_formulas_and_transformers():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    shape = config("llama", d_head=16, context=64)
    drawn = places.draw_rotary(shape)
    _, turns = points(drawn.axes[0], "unscaled")
    assert turns == pytest.approx([64 * 10000 ** (-2 * i / 16) / (2 * math.pi) for i in range(8)], rel=1e-5)
    theirs = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    theirs |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for name in ("linear", "yarn", "llama3"):
        peer = LlamaConfig(hidden_size=32, num_attention_heads=2, head_dim=16, max_position_embeddings=256,
                           rope_parameters=theirs | {"rope_type": name})  # fmt: skip
        expected = ROPE_INIT_FUNCTIONS[name](peer, "cpu")[0] * 10000 ** (torch.arange(8) / 8)
        assert points(drawn.axes[1], name)[1] == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_scaling_of_the_run_is_drawn_with_its_own_numbers():
    own = rope.Linear(factor=8.0)
    drawn = places.draw_rotary(config("llama", rope_scaling=own))
    assert set(points(drawn.axes[1], "linear (of this run)")[1]) == {0.125}


def test_schedule_curves_are_the_formulas():
    axes = curves.schedules(steps=101).axes[0]
    p = [(t - 5) / 95 for t in range(5, 101)]
    assert points(axes, "linear")[1][5:] == pytest.approx([1 - x for x in p])
    assert points(axes, "cosine")[1][5:] == pytest.approx([(1 + math.cos(math.pi * x)) / 2 for x in p], abs=1e-12)
    assert points(axes, "wsd")[1][5:] == pytest.approx([min(1, (1 - x) / 0.2) for x in p])
    assert points(axes, "constant")[1] == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1] * 97])


def test_the_schedule_of_a_run_and_what_it_recorded(run):
    axes = gallery.FIGURES["schedule"](gallery.Subject(run)).axes[0]
    steps, rates = points(axes, "by the formula")
    assert steps == list(range(1, 11))
    falling = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 7)) / 2) for k in range(8)]
    assert rates == pytest.approx([0.25, 0.5, *falling])
    assert points(axes, "as recorded") == ([1, 2, 3, 4], pytest.approx([0.1, 0.2, 0.3, 0.4]))


def test_the_learning_curve_has_its_records_and_floors(run):
    axes = gallery.FIGURES["learning"](gallery.Subject(run)).axes[0]
    assert points(axes, "training") == ([1, 2, 3, 4], [5.5, 5.0, 4.5, 4.0])
    assert points(axes, "training, smoothed")[1] == [5.5, 5.25, 5.0, 4.75]
    assert points(axes, "validation") == ([4], [4.25])
    size = Tokenizer.load(run).vocab_size
    assert points(axes, f"ln V = {math.log(size):.2f}")[1] == pytest.approx([math.log(size)] * 2)


def test_memory_bars_are_bytes_of_the_run(run):
    job = gallery.Subject(run).job
    assert (job.batch, job.length, job.optimizer, job.method) == (3, 16, "momentum", "full")
    shape = config()
    axes = bars.draw(shape, Job(batch=3)).axes[0]
    widths = dict(zip([label.get_text() for label in axes.get_yticklabels()], axes.patches, strict=True))
    n = sum(each.numel() for each in model().parameters())
    assert widths["weights"].get_width() == pytest.approx(4 * n / 2**20)
    assert sum(bar.get_width() for bar in axes.patches) >= predict(shape, Job(batch=3)).static / 2**20


def test_a_png_never_shows_an_empty_box(monkeypatch):
    monkeypatch.setattr(canvas, "letters", lambda: frozenset(map(ord, "ab")))
    assert canvas.readable("a咳".encode(), "png") == "aU+54B3" and canvas.readable("a咳".encode(), "svg") == "a咳"
    assert canvas.missing("a咳 咳b嗽") == "咳嗽"


def test_all_pictures_of_a_run_are_written_twice_the_same(run, monkeypatch, capsys):
    assert call(monkeypatch, run, "--text", "cough 患") == 0
    said = capsys.readouterr().out
    assert "adapter is left out" in said
    first = {path.name: path.read_bytes() for path in (run / "figures").iterdir()}
    assert set(first) == {f"{name}.svg" for name in gallery.FIGURES if name != "adapter"}
    assert "患" in first["attention.svg"].decode() or "&lt;" in first["attention.svg"].decode()
    call(monkeypatch, run, "--text", "cough 患")
    assert first == {path.name: path.read_bytes() for path in (run / "figures").iterdir()}


def test_a_png_is_one(run, monkeypatch, tmp_path, capsys):
    call(monkeypatch, run, "--only", "masks,schedules", "--format", "png", "--out", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["masks.png", "schedules.png"]
    assert (tmp_path / "new/masks.png").read_bytes()[:4] == b"\x89PNG"


def test_an_adapter_is_drawn_by_lora(tmp_path):
    from lora.picture import draw
    from lora.spectrum import analyze

    adapted = model()
    lora.attach(adapted, lora.Config(r=2, alpha=4, targets=["q_proj"]))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora" in name.lower() or weight.requires_grad:
                weight.normal_()
    lora.save(adapted, tmp_path / "own")
    found = gallery.make("adapter", gallery.Subject(tmp_path / "own", kind="png"))
    assert found == ("svg", draw(analyze(lora.files.read(tmp_path / "own"), names=("own",))).encode())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no such directory"),
        (["."], "no run, model or adapter"),
        (["run", "--only", "mask"], "did you mean 'masks'"),
        (["run", "--only", "adapter"], "no adapter_config.json"),
        (["run", "--format", "pgn"], "did you mean 'png'"),
        (["run", "--only", "attention", "--text", "患" * 99], "tokens: give from 1 to 24"),
        ([], "directory is missing"),
    ],
)
def test_bad_input_is_one_sentence(run, monkeypatch, words, said):
    monkeypatch.chdir(run.parent)
    with pytest.raises(Error, match=said):
        call(monkeypatch, *words)


def test_a_run_without_records_has_no_curve(run, monkeypatch):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(Error, match="no training recorded"):
        call(monkeypatch, run, "--only", "learning")


def test_the_command_leaves_with_2_and_no_traceback():
    done = subprocess.run([sys.executable, "-m", "minigpt.figures", "nowhere"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout


def test_the_pictures_of_docs_are_those_that_the_code_draws():
    for name, data in docs.pictures().items():
        assert (DOCS / name).read_bytes() == data, f"{name}: python -m minigpt.figures --docs draws it again"
    known = {path.name for path in DOCS.glob("*.svg")} - set(docs.pictures())
    assert all(any(Path(name).match(each) for each in docs.MEASURED) for name in known)
