"""sample.py on a tiny saved model: as its users run it, in a process of its own, where the process matters."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import sample_in_process

from minigpt import GPT, Error, GPTConfig, presets
from minigpt.context.extend import endless
from minigpt.generation import beam_search, generate
from minigpt.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}  # the script must ask for UTF-8 itself


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A directory with a model and a tokenizer; the model knows one Chinese sentence by heart."""
    directory = tmp_path_factory.mktemp("run")
    text = "患者咳嗽三天😀。"
    tokenizer = Tokenizer.train(["no cough", "cough"], 300)  # no Chinese merges: three tokens a character
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, context=64, n_layers=1, n_heads=2, d_model=64))
    row = torch.tensor([[tokenizer.eot, *tokenizer.encode(text), tokenizer.eot]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(row[:, :-1])[0], row[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    model.save_pretrained(directory)
    tokenizer.save(directory)
    return directory


@pytest.fixture
def sample(monkeypatch, capsys):
    """sample.main in this process: the text it prints, or the Error it raises. Starting torch takes seconds."""
    return sample_in_process(monkeypatch, capsys)


def start(*args, **pipes):
    command = [sys.executable, ROOT / "sample.py", *map(str, args)]
    pipes |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A test run in the background of a shell ignores SIGINT, and its children would inherit that.
    return subprocess.Popen(command, env=ENVIRONMENT, preexec_fn=_hear_sigint, **pipes)


def _hear_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_text_appears_as_it_is_made_and_in_whole_characters(run):
    with start(run, "--greedy") as process:
        pieces = []
        while piece := os.read(process.stdout.fileno(), 100):
            pieces.append(piece.decode())  # raises on half a character
        assert ("".join(pieces), process.wait(20)) == ("患者咳嗽三天😀。\n", 0)
        assert process.stderr.read() == b""
    assert len(pieces) > 1


def test_a_prompt_is_continued(run, sample):
    assert sample(run, "--greedy", "--prompt", "患者") == "患者咳嗽三天😀。\n"
    assert sample(run, "--greedy", "--no-echo", "--prompt=患者") == "咳嗽三天😀。\n"
    assert sample(run, "--greedy", "--max-new-tokens", 4) == "患\ufffd\n"  # ended inside a character


def test_several_prompts_and_samples_equal_generate(run, sample, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"prompt": "cough", "id": 1}\n\n' + json.dumps({"prompt": "no\ncough\u2028"}, ensure_ascii=False) + "\n"
    )
    options = ["--max_new_tokens", 9, "--temperature", 2, "--top-k", 50, "--top-p", 0.9, "--seed", 3]
    out = sample(run, "--prompt", "咳", "--prompts", file, "--num-samples", 2, *options)
    model, tokenizer = GPT.from_pretrained(run), Tokenizer.load(run)
    texts = [text for text in ("咳", "cough", "no\ncough\u2028") for _ in range(2)]
    prompts = [[tokenizer.eot, *tokenizer.encode(text)] for text in texts]
    rows = generate(model, prompts, 9, temperature=2.0, top_k=50, top_p=0.9, seed=3, eos=tokenizer.eot)
    new = [tokenizer.decode([token for token in row if token != tokenizer.eot]) for row in rows]
    pairs = enumerate(zip(texts, new, strict=True), start=1)
    assert out == "".join(f"=== {number} of 6 ===\n{text}{rest}\n" for number, (text, rest) in pairs)
    assert len(set(new)) == 6


def test_a_text_file_of_prompts(run, sample, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff患\r\n\n患者\n".encode())
    out = sample(run, "--prompts", file, "--greedy")
    assert out == "=== 1 of 2 ===\n患者咳嗽三天😀。\n=== 2 of 2 ===\n患者咳嗽三天😀。\n"


def test_without_eot_the_model_reads_the_prompt_alone(run, sample):
    model, tokenizer = GPT.from_pretrained(run), Tokenizer.load(run)
    row = generate(model, [tokenizer.encode("天")], 5, temperature=0, eos=tokenizer.eot)[0]
    text = tokenizer.decode([token for token in row if token != tokenizer.eot])
    assert sample(run, "--prompt", "天", "--no-eot", "--greedy", "--max-new-tokens", 5) == f"天{text}\n"


def test_interactive(run, sample):
    assert sample(run, "--interactive", "--greedy", stdin="患\n患者咳") == "者咳嗽三天😀。\n嗽三天😀。\n"


def test_interactive_a_long_line_costs_a_message_and_ctrl_c_is_quiet(run):
    with start(run, "--interactive", "--greedy", "--threads", "1", stdin=subprocess.PIPE) as process:
        process.stdin.write(("咳" * 50 + "\n患\n").encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == "者咳嗽三天😀。\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        words = "the line has 151 tokens, the model's context holds 64"
        assert process.stderr.read().decode() == f"sample.py: {words}: shorten it\n"


def test_a_closed_pipe_is_quiet(run):
    with start(run, "--num-samples", "500", "--temperature", "3") as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 141


def test_help_has_examples_and_does_not_wait_for_torch():
    code = (
        "import runpy, sys\nsys.argv = ['sample.py', '--help']\ntry: runpy.run_path('sample.py', run_name='__main__')"
    )
    code += "\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=ENVIRONMENT)
    out = done.stdout.decode()
    assert done.returncode == 0
    assert out.endswith("False\n")
    for words in ("python sample.py runs/notes", "--max-new-tokens N", "--no-eot", "Exit codes", "患者"):
        assert words in out


def test_a_wrong_directory_is_one_line_and_exit_code_2(tmp_path):
    with start(tmp_path / "nowhere") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, b"")
    assert err.decode().startswith(f"sample.py: {tmp_path / 'nowhere'}")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    "args, words",
    [
        (["{tmp}/no_tokenizer"], "has no tokenizer"),
        ([], "MODEL is missing"),
        (["{run}", "--top-q", "1"], "did you mean '--top-p'"),
        (["{run}", "--top-p", "2", "--prompt", "a"], "top_p is 2"),
        (["{run}", "--prompt", "患", "--prompt", "咳" * 50], "prompt 2 has 151 tokens, the model's context holds 64"),
        (["{run}", "--no-eot"], "prompt 1 is empty"),
        (["{run}", "--prompts", "{tmp}/bad.jsonl"], "bad.jsonl:2"),
        (["{run}", "--prompts", "{tmp}/broken.jsonl"], "broken.jsonl:1: not valid JSON"),
        (["{run}", "--prompts", "{tmp}/empty.txt"], "holds no prompts"),
        (["{run}", "--prompts", "{tmp}/none.txt"], "cannot read the prompts"),
        (["{run}", "--prompts", "{tmp}/gbk.txt"], "cannot read the prompts: not UTF-8 but probably GBK"),
        (["{run}", "--greedy", "--num-samples", "2"], "--greedy"),
        (["{run}", "--threads", "0"], "--threads is 0"),
        (["{run}", "--interactive", "--prompt", "a"], "--interactive"),
    ],
)
def test_bad_input_is_named(run, sample, tmp_path, capsys, args, words):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "gbk.txt").write_bytes("患者咳嗽三天\n".encode("gbk"))
    (tmp_path / "no_tokenizer").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "no_tokenizer" / name).write_bytes((run / name).read_bytes())
    with pytest.raises(Error) as caught:
        sample(*(arg.format(run=run, tmp=tmp_path) for arg in args))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_tokenizer_of_another_model(run, sample, tmp_path):
    for file in run.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Tokenizer.train(["a b c d"] * 3 + ["cough cough coughing coughed"] * 3, 320).save(tmp_path)
    with pytest.raises(Error, match="do not belong together"):
        sample(tmp_path)


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_json_records_are_the_texts_that_are_shown(run, sample, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("患者\ncough\n咳\n")
    options = ["--prompts", file, "--num-samples", 2, "--temperature", 2, "--max-new-tokens", 9, "--seed", 5]
    shown = sample(run, *options, "--no-echo")
    texts = [block.split("===\n", 1)[1].removesuffix("\n") for block in shown.split("=== ")[1:] if "===\n" in block]
    for batch_size in (1, 4, 8):
        found = records(sample(run, *options, "--json", "--batch-size", batch_size))
        assert [each["text"] for each in found] == texts
    assert [each["prompt"] for each in found] == ["患者", "患者", "cough", "cough", "咳", "咳"]
    assert {each["finish"] for each in found} <= {"end", "length"} and all(len(e["tokens"]) <= 9 for e in found)


def test_a_stop_string_ends_the_text(run, sample):
    assert sample(run, "--greedy", "--prompt", "患者", "--stop", "三") == "患者咳嗽\n"
    found = records(sample(run, "--greedy", "--prompt", "患者", "--stop", "x", "--stop", "嗽三", "--json"))
    assert found[0]["text"] == "咳" and found[0]["finish"] == "stop"
    assert records(sample(run, "--greedy", "--prompt", "患者", "--json"))[0]["finish"] == "end"


def test_beams_print_the_likeliest_and_the_tree(run, sample, tmp_path):
    page = tmp_path / "tree.html"
    out = sample(run, "--prompt", "患者", "--num-beams", 3, "--num-return", 2, "--show-beams", "--beams-html", page)
    assert "=== 1 of 2: score -" in out and "患者咳嗽三天😀。\n" in out and "★" in out
    assert "<html" in page.read_text() and "咳" in page.read_text()
    model, tokenizer = GPT.from_pretrained(run), Tokenizer.load(run)
    ids = [tokenizer.eot, *tokenizer.encode("患者")]
    options = {
        "num_beams": 3,
        "max_new_tokens": 256,
        "eos": tokenizer.eot,
        "length_penalty": 0.5,
        "early_stopping": True,
    }
    beams = beam_search(model, [ids], num_return_sequences=2, **options)[0]
    words = ["--num-beams", 3, "--num-return", 2, "--length-penalty", 0.5, "--early-stopping", "true", "--json"]
    found = records(sample(run, "--prompt", "患者", *words))
    assert [each["tokens"] for each in found] == [beam.tokens for beam in beams]
    assert [each["score"] for each in found] == pytest.approx([beam.score for beam in beams])


def test_closed_vocabularies(run, sample):
    phrases = ["--one-of", "痛风", "--one-of", "咳", "--one-of", "cough"]
    found = records(sample(run, "--prompt", "患者", *phrases, "--num-beams", 3, "--num-return", 3, "--json"))
    assert found[0]["text"] == "咳" and {each["text"] for each in found} == {"痛风", "咳", "cough"}
    assert sample(run, "--prompt", "患者", *phrases, "--temperature", 9, "--no-echo").strip() in {"痛风", "咳", "cough"}
    assert sample(run, "--prompt", "患者", "--starts-with", "no", "--max-new-tokens", 9).startswith("患者no")
    held = sample(run, "--prompt", "患者", "--contains", "no", "--num-beams", 6, "--max-new-tokens", 30)
    assert "no" in held.split("===\n")[1]


def test_how_likely_a_text_is(run, sample):
    likely, unlikely = records(sample(run, "--prompt", "患者咳嗽三天", "--prompt", "天三嗽咳者患", "--score", "--json"))
    assert likely["tokens"] == unlikely["tokens"] == 18 and likely["perplexity"] < 1.2 < unlikely["perplexity"]
    assert likely["bits_per_byte"] == pytest.approx(-likely["logprob"] / math.log(2) / 18)
    assert "perplexity" in sample(run, "--prompt", "患者咳嗽三天", "--score")


def test_the_best_of_several_samples(run, sample):
    options = ["--prompt", "患者", "--temperature", 3, "--max-new-tokens", 6, "--json"]
    best = records(sample(run, *options, "--best-of", 8))
    assert len(best) == 1
    all_of_them = records(sample(run, *options, "--num-samples", 8))
    assert best[0]["tokens"] in [each["tokens"] for each in all_of_them]


def test_sliding_goes_on_past_the_context(run, sample):
    options = ["--prompt", "cough", "--greedy", "--max-new-tokens", 100, "--json", "--min-new-tokens", 100]
    assert len(records(sample(run, *options))[0]["tokens"]) < 70
    assert len(records(sample(run, *options, "--slide"))[0]["tokens"]) == 100


@pytest.mark.parametrize(
    "words, message",
    [
        (["--show-beams"], "give --num-beams"),
        (["--num-beams", 2, "--num-return", 3], "--num-return is 3, of 2 beams"),
        (["--contains", "x"], "--contains leads beams"),
        (["--best-of", 2, "--num-samples", 2], "leave out --num-samples"),
        (["--best-of", 0], "--best-of is 0"),
        (["--min-p", 3], "min_p is 3"),
        (["--stop", ""], "a stop string is empty"),
        (["--score", "--no-eot", "--prompt", "a"], "a text of one token"),
    ],
)
def test_bad_options_are_named_before_a_word_is_written(run, sample, capsys, words, message):
    with pytest.raises(Error, match=message):
        sample(run, *words)
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def draft(run, tmp_path_factory):
    """The model with disturbed weights: it often proposes what the model would write."""
    directory = tmp_path_factory.mktemp("draft")
    torch.manual_seed(1)
    small = GPT.from_pretrained(run)
    with torch.no_grad():
        for weight in small.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    small.save_pretrained(directory)
    Tokenizer.load(run).save(directory)
    return directory


@pytest.mark.parametrize(
    "words",
    [
        ["--prompt", "患者"],
        ["--prompt", "no", "--prompt", "天", "--min-new-tokens", 30, "--repetition-penalty", 1.3],
        ["--prompt", "患者", "--one-of", "痛风", "--one-of", "咳", "--stop", "风"],
        ["--prompt", "患者", "--weights", "int8"],
    ],
    ids=["as it is", "steered", "closed vocabulary", "int8"],
)
def test_a_draft_changes_no_greedy_text(run, draft, sample, capsys, words):
    plain = sample(run, "--greedy", *words)
    capsys.readouterr()
    assert sample(run, "--greedy", "--draft", draft, "--draft-tokens", 3, *words) == plain
    found = records(sample(run, "--greedy", "--draft", draft, *words, "--json"))
    expected = records(sample(run, "--greedy", *words, "--json"))
    assert [each | {"accepted": 0, "readings": 0} for each in expected] == [
        each | {"accepted": 0, "readings": 0} for each in found
    ]
    assert all(0 < each["accepted"] <= 1 and each["readings"] < len(each["tokens"]) for each in found)


def test_samples_of_a_draft_are_the_same_however_they_are_printed(run, draft, sample):
    options = ["--prompt", "患", "--prompt", "no", "--num-samples", 3, "--temperature", 2, "--max-new-tokens", 9]
    shown = sample(run, *options, "--draft", draft, "--no-echo")
    found = records(sample(run, *options, "--draft", draft, "--json", "--batch-size", 2))
    assert [each["text"] for each in found] == [
        block.split("===\n", 1)[1].removesuffix("\n") for block in shown.split("=== ") if "===\n" in block
    ]
    assert len({tuple(each["tokens"]) for each in found}) == 6  # a stream each


def test_it_is_told_how_often_a_draft_was_right(run, draft, sample):
    assert sample(run, "--greedy", "--draft", draft, "--interactive", stdin="患者\n患者") == "咳嗽三天😀。\n" * 2
    words = re.fullmatch(
        r"draft: (\d+)% of (\d+) tokens accepted, (\d.\d\d) tokens a reading of the model\n", sample.err
    )
    assert 30 <= int(words[1]) <= 100 and int(words[2]) >= 20 and 1.5 < float(words[3]) <= 5


@pytest.mark.parametrize(
    "words, message",
    [
        (["--num-beams", 2], "leave out --draft or --num-beams"),
        (["--best-of", 2], "leave out --draft or --best-of"),
        (["--slide"], "leave out --draft or --slide"),
        (["--score"], "leave out --draft or --score"),
        (["--draft-tokens", 0], "--draft-tokens is 0"),
        (["--draft", "{tmp}/other"], "another tokenizer"),
        (["--draft", "{tmp}/short", "--prompt", "no", "--prompt", "咳" * 9], "the draft's context holds 32 tokens"),
        (["--draft", "{tmp}/wide"], "the draft knows 300 tokens, the model"),
        (["--draft", "{tmp}/nowhere"], "nowhere"),
    ],
)
def test_what_a_draft_cannot_do_is_named(run, draft, sample, tmp_path, capsys, words, message):
    tokenizer, sizes = Tokenizer.load(run), {"n_layers": 1, "n_heads": 2, "d_model": 16}
    for name, changes in {"short": {"context": 32}, "wide": {"vocab_size": 300}, "other": {}}.items():
        GPT(GPTConfig(**sizes | {"vocab_size": tokenizer.vocab_size} | changes)).save_pretrained(tmp_path / name)
        (tokenizer if name != "other" else Tokenizer.train(["ough"] * 9, 300)).save(tmp_path / name)
    words = [str(word).format(tmp=tmp_path) for word in words]
    with pytest.raises(Error, match=message):
        sample(run, "--max-new-tokens", 30, *([] if "--draft" in words else ["--draft", draft]), *words)
    assert capsys.readouterr().out == ""


def test_an_endless_text_goes_past_the_context(sample, run, tmp_path):
    tokenizer = Tokenizer.load(run)
    torch.manual_seed(0)
    model = GPT(presets.llama_like(vocab_size=tokenizer.vocab_size, context=16, n_layers=1, n_heads=2, d_model=32))
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    words = (tmp_path, "--prompt", "cough", "--json", "--greedy", "--max-new-tokens", 40)
    prompt = [tokenizer.eot, *tokenizer.encode("cough")]
    cut = len(json.loads(sample(*words))["tokens"])
    found = json.loads(sample(*words, "--endless"))["tokens"]
    wanted = generate(endless(model.eval()), [prompt], 40, temperature=0, eos=tokenizer.eot)[0]
    assert cut < 16 < len(found) == len(wanted) and found == wanted
    with pytest.raises(Error, match="rotary positions"):
        sample(run, "--endless")
