"""train.py as its user meets it: runs, stops, goes on, and can be killed at any moment."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import train as in_process

from minigpt import GPT
from minigpt.files import alone
from minigpt.tokenizer import Tokenizer
from minigpt.training.checkpoint import list_checkpoints, load_checkpoint
from minigpt.training.log import read_metrics
from minigpt.training.weights import WholeModel

ROOT = Path(__file__).parents[1]
TINY = "--n-layers 1 --n-heads 2 --d-model 16 --context 16 --batch-size 2 --vocab-size 300 --threads 1".split()
RARELY = "--eval-every 0 --sample-every 0 --save-every 0".split()


def train(*words, check=True, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *map(str, words)], capture_output=True, text=True, **options
    )
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


def start(*words) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(run: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_metrics(run) if record["kind"] == "train"}


def weights(directory: Path) -> bytes:
    return (directory / "model.safetensors").read_bytes()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    """Forty small notes as .jsonl, two of its lines spoilt."""
    draw = random.Random(0)
    words = "cough fever chest pain denies allergies 患者 咳嗽 发热 three days".split()
    lines = [json.dumps({"note": " ".join(draw.choices(words, k=30))}, ensure_ascii=False) for _ in range(40)]
    path = tmp_path_factory.mktemp("data") / "notes.jsonl"
    path.write_text("\n".join([*lines[:9], "{broken", '{"other": 1}', *lines[9:]]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(notes, tmp_path_factory) -> Path:
    """A run of 12 steps without a stop, with dropout and two micro-batches a step."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train("--data", notes, "--field", "note", "--out", run, *TINY, *RARELY, *EXACT, "--steps", 12)
    return run


EXACT = "--dropout 0.1 --accumulate 2 --warmup 4".split()


def test_a_run_is_complete(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "metrics.jsonl", "report.html", "train.yaml"}
    assert len(losses(whole)) == 12
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "ln V" in page and "bits per byte" in page
    assert not list(whole.rglob("*.tmp-*"))


def test_resuming_in_a_new_process_is_bit_exact(whole, notes, tmp_path):
    """Stopped by a signal after a few steps, then evaluated, sampled and saved far more often: the same weights."""
    run = tmp_path / "halves"
    process = start("--data", notes, "--field", "note", "--out", run, *TINY, *RARELY, *EXACT, "--steps", 12,
                    "--save-every", 1)  # fmt: skip
    wait_for(lambda: len(list_checkpoints(run)) > 0 or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signal.SIGTERM)  # 0: it was too fast for us
    stopped = max(losses(run))
    often = "--eval-every 1 --sample-every 2 --save-every 1 --sample-tokens 5".split()
    train("--out", run, "--resume", *often)
    assert losses(run) == losses(whole), f"stopped after {stopped}"
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (list_checkpoints(run)[-1] / file).read_bytes() == (list_checkpoints(whole)[-1] / file).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits(notes, tmp_path, number):
    run = tmp_path / "run"
    process = start("--data", notes, "--field", "note", "--out", run, *TINY, *RARELY, "--steps", 1_000_000)
    wait_for(lambda: len(losses(run)) > 2 or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors[-2000:]
    assert "Traceback" not in errors
    (checkpoint,) = list_checkpoints(run)
    assert json.loads((checkpoint / "state.json").read_text())["step"] == max(losses(run))
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_a_checkpoint_that_resumes(whole, notes, tmp_path):
    """Saving at every step, killed at random moments until 12 steps are done: bit for bit the run without a stop."""
    run, draw = tmp_path / "run", random.Random(0)
    arguments = ["--data", notes, "--field", "note", *TINY, *RARELY, *EXACT, "--steps", 12, "--save-every", 1]
    kills = 0
    while kills < 6 and not (run / "report.html").is_file():
        resume = ["--resume"] if list_checkpoints(run) else ["--overwrite"]
        before = len(list_checkpoints(run))
        process = start("--out", run, *arguments, *resume)
        wait_for(lambda p=process, n=before: len(list_checkpoints(run)) > n or p.poll() is not None)
        time.sleep(draw.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        for checkpoint in list_checkpoints(run):
            model = GPT.from_pretrained(checkpoint)
            load_checkpoint(run, WholeModel(model), model, torch.optim.AdamW(model.parameters(), fused=True))
    if not (run / "report.html").is_file():
        train("--out", run, "--resume")
    assert kills, "the process was never caught alive"
    assert losses(run) == losses(whole) and weights(run) == weights(whole)
    assert weights(list_checkpoints(run)[-1]) == weights(list_checkpoints(whole)[-1])


def test_a_directory_that_another_run_writes_is_refused_and_left_as_it_is(whole, notes, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with alone(run):
        for more in (["--resume", "--steps", 40], ["--overwrite", "--data", notes, "--field", "note", *TINY]):
            code, said = in_process("--out", run, *more)
            assert code == 2 and "another process is writing here" in said
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gpt1"])
def test_a_run_opens_in_transformers_with_the_same_logits_and_tokens(notes, tmp_path, shape):
    import transformers

    run = tmp_path / shape
    train("--data", notes, "--field", "note", "--out", run, *TINY, *RARELY, "--steps", 2, "--shape", shape)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32).eval()
    ours = GPT.from_pretrained(run)
    text = "患者 fever, <|endoftext|> 3 days of cough 🙂\n"
    tokenizer, reference = Tokenizer.load(run), transformers.AutoTokenizer.from_pretrained(run)
    ids = tokenizer.encode(text)
    assert reference(text)["input_ids"] == ids and reference.decode(ids) == tokenizer.decode(ids) == text
    assert theirs.config.eos_token_id == tokenizer.eot == reference.eos_token_id
    with torch.no_grad():
        tokens = torch.tensor([ids[:16]])
        assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-5)


def test_going_on_from_a_run_brings_its_tokenizer_and_weights(whole, tmp_path):
    (tmp_path / "more.txt").write_text("fever and cough, three days\n" * 40)
    (tmp_path / "even.txt").write_text("chest pain, three days\n" * 40)
    run = tmp_path / "tuned"
    train("--data", tmp_path, "--init", whole, "--out", run, *TINY, *RARELY, "--steps", 1, "--lr", "1e-9")
    assert Tokenizer.load(run).encode("cough 咳嗽") == Tokenizer.load(whole).encode("cough 咳嗽")
    assert GPT.from_pretrained(run).config.n_layers == GPT.from_pretrained(whole).config.n_layers
    for ours, theirs in zip(
        GPT.from_pretrained(run).parameters(), GPT.from_pretrained(whole).parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "no/such/file.jsonl"], "no/such/file.jsonl"),
        (["--learning-rate", "1"], "there is no option --learning-rate"),
        (["--steps", "many"], "--steps is many: expected a whole number"),
        (["--shape", "gpt4"], "shape is 'gpt4'"),
        (["--d-model", "10", "--n-heads", "4"], "does not divide into 4 heads"),
        (["--init", "gpt2"], "add --download"),
        (["--resume"], "not a run that can be resumed"),
        (["--epochs", "1", "--minutes", "1"], "give one"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(words, message, tmp_path):
    done = train("--out", tmp_path / "run", *words, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_is_not_written_over_by_mistake(whole, notes):
    before = weights(whole)
    done = train("--data", notes, "--field", "note", "--out", whole, check=False)
    assert done.returncode == 2 and "--resume to go on, --overwrite to begin again" in done.stderr
    assert weights(whole) == before


def test_the_run_keeps_the_model_that_validated_best(notes, tmp_path):
    """A learning rate that ruins the model later on: what the run holds is the model from before."""
    run = tmp_path / "run"
    harsh = "--lr 1.0 --schedule constant --warmup 30 --clip 0 --steps 40 --eval-every 4 --sample-every 0".split()
    train("--data", notes, "--field", "note", "--out", run, *TINY, *harsh)
    found = {record["step"]: record["loss"] for record in read_metrics(run) if record["kind"] == "eval"}
    (final,) = [record for record in read_metrics(run) if record["kind"] == "final"]
    assert final["loss"] == pytest.approx(min(found.values()), rel=1e-5) and found[40] > min(found.values()) + 0.1
    assert weights(run) != weights(list_checkpoints(run)[-1])


def test_tensorboard_files_are_written_when_asked(notes, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    train("--data", notes, "--field", "note", "--out", run, *TINY, *RARELY, "--steps", 3, "--tensorboard")
    board = EventAccumulator(str(run)).Reload()
    seen = {event.step: event.value for event in board.Scalars("train/loss")}
    assert seen == pytest.approx(losses(run)) and set(seen) == {1, 2, 3}


def test_a_config_file_and_options_meet(notes, tmp_path):
    config = tmp_path / "small.toml"
    config.write_text('n_layers = 1\nd_model = 32\nlr = 0.01\nfield = "note"\n')
    printed = train("--config", config, "--data", notes, "--lr", "0.5", "--print-config").stdout
    assert "lr: 0.5" in printed and "d_model: 32" in printed
    config.write_text("n_layer = 1\n")
    done = train("--config", config, check=False)
    assert done.returncode == 2 and "did you mean 'n_layers'" in done.stderr


def test_help_answers_without_torch():
    done = train("--help", env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert "--minutes" in done.stdout and "examples:" in done.stdout
    assert "| torch" not in done.stderr and "| transformers" not in done.stderr


# ---- what beginners do


def test_notes_that_are_left_out_are_said_before_the_first_step(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (notes / name).write_text(f"The patient has a cough. {name[0] if name < 'c' else 'a'}", encoding="utf-8")
    (notes / "d.txt").write_bytes("患者三天前开始咳嗽".encode("gbk"))
    (notes / "e.txt").write_text("", encoding="utf-8")
    code, said = in_process("--data", notes, "--out", tmp_path / "run", "--steps", 1, *TINY, *RARELY)
    assert code == 0
    said = said.partition("\nmethod ")[0].splitlines()[-1]
    bad = f"2 that could not be used, first {notes}/d.txt: not UTF-8 but probably GBK"
    assert said.startswith(f"left out    1 exact duplicates; {bad}")
    assert bad in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_a_file_in_the_way_is_seen_before_any_work(tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for out in ("file", "file/run"):
        done = train("--out", tmp_path / out, *TINY, check=False)
        assert done.returncode == 2 and done.stdout == ""
        assert f"{tmp_path / 'file'} is a file, and a run is a folder: choose another name" in done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
