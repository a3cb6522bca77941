"""LoRA on the whole model: generation with adapters, mixed rows while rows finish, the scripts, a run that resumes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lora
from minigpt import GPT, GPTConfig, presets
from minigpt.generation import generate
from minigpt.loss import cross_entropy

ROOT = Path(__file__).parents[1]


def gpt(shape="llama"):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "context": 32, "n_layers": 2, "n_heads": 2, "d_model": 16}
    model = GPT(presets.llama_like(**sizes) if shape == "llama" else GPTConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


def with_adapters(model, *names, targets="all-linear"):
    for seed, name in enumerate(names):
        lora.attach(model, lora.Config(r=3, alpha=6, targets=targets, tied="untie"), name=name)
        torch.manual_seed(seed)
        for parameter in lora.parameters(model, name):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_mixed_rows_write_what_each_would_write_alone(shape, use_cache):
    """Rows of unequal length that end at different times: the batch shrinks, and every row keeps its adapter.

    The last has the prompt of the first, but not its adapter: what was read of the one is not for the other.
    """
    model = with_adapters(gpt(shape), "a", "b")
    prompts, rows = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10], [1, 2, 3]], ["b", None, "a", "b", "a"]
    options = {"max_new_tokens": 12, "temperature": 0, "eos": list(range(0, 50, 6)), "use_cache": use_cache}
    with lora.rows(model, rows):
        found = generate(model, prompts, **options)
        assert generate(model, prompts, **options) == found, "the rows are all there again"
    assert len({len(new) for new in found}) > 1, "this should have rows that end early"
    for prompt, name, new in zip(prompts, rows, found, strict=True):
        lora.use(model, *([name] if name else []))
        assert generate(model, [prompt], **options) == [new]


def test_an_adapted_head_and_embedding_generate_and_train():
    model = with_adapters(gpt(), "a", targets=["head", "token_embedding"])
    assert len(generate(model, [[1, 2]], 4)[0]) == 4
    x = torch.randint(50, (2, 8))
    loss = cross_entropy(model.hidden(x), model.head, x)
    truth = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    torch.testing.assert_close(loss, truth)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in lora.parameters(model))


def test_gradients_equal_those_of_the_dense_model():
    """dL/dA = scale B^T G and dL/dB = scale G A^T, G the gradient of the merged weight."""
    model = with_adapters(gpt("gpt2"), "a")
    x = torch.randint(50, (3, 10))
    cross_entropy(model.hidden(x), model.head, x).backward()
    dense = gpt("gpt2").double()
    for path, layer in lora.layers_of(model).items():
        update = layer.update("a")
        with torch.no_grad():
            dense.get_submodule(path).weight.add_(update.scale * update.B.double() @ update.A.double())
    cross_entropy(dense.hidden(x), dense.head, x).backward()
    for path, layer in lora.layers_of(model).items():
        G, update = dense.get_submodule(path).weight.grad, layer.update("a")
        A, B = layer.adapters["a"].A, layer.adapters["a"].B
        torch.testing.assert_close(A.grad.double(), update.scale * update.B.double().T @ G, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(B.grad.double(), update.scale * G @ update.A.double().T, rtol=1e-4, atol=1e-6)


def test_no_parameter_of_the_base_keeps_an_activation_alive():
    """A frozen layer needs no input for backward: only x of the adapters, their N x r products and the kernels' own."""
    model = with_adapters(gpt("gpt2"), "a", targets=["q_proj"])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model.hidden(torch.randint(50, (2, 16)))
    wide = [t for t in kept if t.shape[-1] == 64 and t.ndim == 3 or t.shape == (32, 64)]
    # Of the feed-forward's 4 C wide tensors the input of GELU is needed, its output (the input of a frozen layer) not.
    assert len(wide) <= 2, [tuple(t.shape) for t in wide]


# --- the scripts ----------------------------------------------------------------------------------------------


def script(name, *words, code=0):
    done = subprocess.run([sys.executable, ROOT / name, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code, done.stderr[-2000:]
    return done


TINY = "--n-layers 1 --n-heads 2 --d-model 16 --context 32 --batch-size 2 --vocab-size 300 --threads 1 --eval-batches 2"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    lines = [{"text": f"note {i} the patient has a cough", "kind": "note"} for i in range(40)]
    lines += [{"text": f"letter {i} dear colleague thank you", "kind": "letter"} for i in range(40)]
    (folder / "notes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--data", folder / "notes.jsonl", "--field", "text", "--where", "kind=note", "--out", folder / "base"]
    script("train.py", *words, *TINY.split(), "--steps", 8, "--sample-every", 0)
    return folder


def tune(base, out, *words, **options):
    given = ["--data", base / "notes.jsonl", "--field", "text", "--where", "kind=letter", "--init", base / "base"]
    given += ["--method", "lora", "--lora-r", 2, "--lora-dropout", 0.1, "--sample-every", 0, "--threads", 1]
    return script("train.py", *given, "--batch-size", 2, "--eval-batches", 2, "--out", base / out, *words, **options)


def test_train_tunes_merges_verifies_and_samples(base):
    done = tune(
        base, "tuned", "--steps", 6, "--lora-targets", "q_proj", "--lora-targets", "down_proj", "--eval-every", 2
    )
    assert "method      lora: trains 224 of 8,832" in done.stdout and "of them learn" in done.stdout
    tuned = base / "tuned"
    assert {f.name for f in tuned.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "report.html"}
    assert not (tuned / "model.safetensors").exists()
    lines = (base / "tuned" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["kind"] for record in records[:2]] == ["method", "train"]
    validated = [record["loss"] for record in records if record["kind"] == "eval"]
    assert len(set(validated)) == len(validated) >= 3  # each sees the adapter as it is then
    merged = base / "merged"
    subprocess.run([sys.executable, "-m", "lora", "merge", base / "base", tuned, merged], check=True, cwd=ROOT)
    verify = [sys.executable, "-m", "lora", "verify", base / "base", tuned]
    assert subprocess.run([*verify, merged, "--policy", "exact"], cwd=ROOT).returncode == 0
    assert subprocess.run([*verify, base / "base"], cwd=ROOT).returncode == 1
    common = ["--prompt", "letter", "--temperature", 0, "--max-new-tokens", 8, "--threads", 1]
    by_adapter = script("sample.py", base / "base", "--adapter", tuned, *common).stdout
    assert by_adapter == script("sample.py", base / "base", "--adapter", tuned, "--merge", *common).stdout
    assert by_adapter == script("sample.py", merged, *common).stdout
    both = ["--adapter", "base", "--adapter", tuned, "--prompt", "letter"]
    texts = script("sample.py", base / "base", *both, *common).stdout
    assert by_adapter.strip() in texts and script("sample.py", base / "base", *common).stdout.strip() in texts


def test_a_tuned_run_resumes_bit_for_bit(base):
    tune(base, "whole", "--steps", 6)
    tune(base, "parts", "--steps", 3, "--schedule", "constant")
    whole = base / "whole2"
    tune(base, "whole2", "--steps", 6, "--schedule", "constant")
    script("train.py", "--resume", "--out", base / "parts", "--steps", 6)
    files = [sorted(run.glob("checkpoints/*6/adapter_model.safetensors"))[0] for run in (base / "parts", whole)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("train.py", ["--method", "lora"], "name it with --init"),
        ("train.py", ["--method", "qlora"], "name it with --init"),
        ("train.py", ["--method", "lora", "--init", "BASE", "--lora-r", "0"], "a rank is 0"),
        ("train.py", ["--method", "lora", "--init", "BASE", "--lora-targets", "q_porj", "--out", "OUT"], "'q_proj'"),
        ("sample.py", ["BASE", "--adapter", "BASE"], "adapter_config.json: not found"),
        ("sample.py", ["BASE", "--merge"], "give --adapter once"),
        ("sample.py", ["BASE", "--adapter", "base", "--adapter", "base"], "2 adapters for 0 prompts"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(base, tmp_path, name, words, message):
    places = {"BASE": base / "base", "OUT": tmp_path / "out"}
    done = script(name, *(places.get(word, word) for word in words), code=2)
    assert message in done.stderr and "Traceback" not in done.stderr
