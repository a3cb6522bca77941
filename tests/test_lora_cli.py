"""python -m lora: exit codes, tables, JSON, JUnit; nothing half done, no traceback."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from lora_checkpoints import adapter, delta, llama, merged, paths, save
from safetensors.torch import load_file

from lora import files
from lora.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture
def three(tmp_path):
    tensors = llama()
    base = save(tmp_path / "base", tensors, {"model_type": "llama", "tie_word_embeddings": False})
    return base, adapter(tmp_path / "lora", tensors), tmp_path / "merged"


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def python(*words) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "lora", *map(str, words)], capture_output=True, text=True, cwd=ROOT)


def test_merge_then_verify(capsys, three):
    base, lora, out = three
    code, said, _ = run(capsys, "merge", base, lora, out)
    assert code == 0 and "6 tensors merged" in said and "merge loss" in said
    for policy in ("bound", "exact"):
        code, said, err = run(capsys, "verify", base, lora, out, "--policy", policy)
        assert code == 0 and "EQUAL: merged is base + adapter" in said and not err
        assert "model.layers.0.self_attn.q_proj.weight" in said and "tensors the adapter does not touch" in said
    assert run(capsys, "verify", base, lora, out, "--quiet")[1].count("\n") == 1


def test_not_equal_is_1_and_says_why(capsys, three, tmp_path):
    base, lora, _ = three
    code, said, _ = run(capsys, "verify", base, lora, base)
    assert code == 1 and "NOT EQUAL: adapter not applied." in said and "WRONG" in said
    code, said, _ = run(
        capsys, "verify", base, lora, base, "--json", tmp_path / "v.json", "--junit", tmp_path / "v.xml"
    )
    verdict = json.loads((tmp_path / "v.json").read_text())
    assert verdict["equal"] is False and verdict["reasons"] == ["adapter not applied"]
    wrong = [tensor for tensor in verdict["tensors"] if not tensor["ok"]]
    assert len(wrong) == 6 and wrong[0]["reason"]["kind"] == "not applied" and len(wrong[0]["first_wrong"]) == 4
    suite = ElementTree.parse(tmp_path / "v.xml").getroot().find("testsuite")
    assert int(suite.get("failures")) == 7 == len(suite.findall("testcase/failure"))
    assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(verdict["tensors"]) + 1


def test_json_to_stdout_is_json_and_nothing_else(capsys, three):
    base, lora, out = three
    run(capsys, "merge", base, lora, out)
    code, said, _ = run(capsys, "verify", base, lora, out, "--json", "-")
    assert code == 0 and json.loads(said)["equal"] is True


def test_nan_is_still_json(capsys, three, tmp_path):
    base, lora, _ = three
    tensors = llama()
    tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = torch.nan
    code, said, _ = run(capsys, "verify", base, lora, save(tmp_path / "nan", tensors), "--json", "-")
    assert code == 1 and json.loads(said, parse_constant=pytest.fail)


def test_the_table_is_short_unless_all_is_asked_for(capsys, tmp_path):
    tensors = llama(layers=20)
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors)
    out = save(tmp_path / "out", merged(tensors, lora))
    assert len(run(capsys, "verify", base, lora, out)[1].splitlines()) < 36
    assert len(run(capsys, "verify", base, lora, out, "--all")[1].splitlines()) > len(tensors)


@pytest.mark.parametrize(
    "words", [[], ["verify"], ["verify", "a", "b", "c", "--policy", "x"], ["melt"], ["merge", "a"]]
)
def test_bad_arguments_are_2(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and "usage" in capsys.readouterr().err


def test_what_cannot_be_checked_is_2(capsys, three, tmp_path):
    base, lora, out = three
    for words in ((base, lora, "nowhere"), (base, "nowhere", base), ("nowhere", lora, base)):
        code, said, err = run(capsys, "verify", *words)
        assert code == 2 and err.startswith("lora: nowhere") and not said and "Traceback" not in err
    assert run(capsys, "merge", base, "nowhere", out)[0] == 2 and not out.exists()
    assert run(capsys, "merge", base, lora, base)[0] == 2
    assert run(capsys, "inspect", "nowhere")[0] == 2
    assert run(capsys, "combine", tmp_path / "sum", "nowhere")[0] == 2


def test_exit_codes_of_the_process(three):
    base, lora, out = three
    assert python("verify", base, lora, base).returncode == 1
    done = python("verify", base, lora, out / "config.json")
    assert done.returncode == 2 and "lora: " in done.stderr and "Traceback" not in done.stderr


def test_help_does_not_wait_for_torch():
    probe = "import sys; from lora.cli import main\ntry: main(['verify', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", probe + "assert 'torch' not in sys.modules"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "exit code" in done.stdout and "--policy" in done.stdout


def test_inspect(capsys, three, tmp_path):
    base, lora, _ = three
    code, said, _ = run(capsys, "inspect", lora)
    assert code == 0 and "r 4, alpha 8, scale alpha / r = 2" in said and "no fingerprint" in said
    for path in paths(lora):
        line = next(line for line in said.splitlines() if line.startswith(path))
        assert float(line.split()[-1]) == pytest.approx((delta(lora, path) ** 2).sum() ** 0.5, rel=1e-3)
    name = "model.layers.0.self_attn.q_proj.weight"
    stored = files.read(lora)
    marks = {name: files.fingerprint(load_file(base / "model.safetensors")[name])}
    files.write(files.Stored(stored.config, stored.updates, fingerprint=marks), lora)
    assert f"base: {base} is it" in run(capsys, "inspect", lora, "--base", base)[1]
    other = save(tmp_path / "other", llama())
    assert f"NOT {other}: 1 of 1" in run(capsys, "inspect", lora, "--base", other)[1]
    assert "fingerprint of 1 tensors" in run(capsys, "inspect", lora)[1]


def test_combine_and_analyze_are_wired(capsys, three, tmp_path):
    _, lora, _ = three
    assert run(capsys, "combine", tmp_path / "sum", lora, lora, "--weights", "0.5,0.5")[0] == 0
    assert run(capsys, "analyze", lora)[0] == 0
