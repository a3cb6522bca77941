"""sample.py puts together what it finds: adapters of every kind beside the base they name, mixed batches, heads."""

import json

import pytest
import torch
from helpers import randomize
from runs import sample_in_process

import lora
from minigpt import GPT, Error, GPTConfig, heads
from minigpt.generation import generate
from minigpt.heads import Example, Task, TaskConfig, collate
from minigpt.tokenizer import Tokenizer
from minigpt.tuning import adapter, prefix, prompt, ptuning
from minigpt.tuning.virtual import unshift

KINDS = ("lora", "qlora", "adapter", "prompt", "unshifted", "ptuning", "prefix")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base, and beside it one directory of every kind, each far from the base."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = Tokenizer.train(["no cough", "cough", "fever"], 300)
    torch.manual_seed(0)
    sizes = {"context": 64, "n_layers": 2, "n_heads": 2, "d_model": 64}
    gpt = randomize(GPT(GPTConfig(vocab_size=tokenizer.vocab_size, **sizes)), 0.5).eval()
    gpt.save_pretrained(folder / "base")
    tokenizer.save(folder / "base")
    for kind in KINDS:
        attach(gpt := GPT.from_pretrained(folder / "base"), kind)
        save(gpt, kind, folder / kind, str(folder / "base"))
    return folder


def attach(gpt, kind):
    if kind == "qlora":
        lora.quantize(gpt)
    config = {
        "lora": (lora, lora.Config(r=2, alpha=8, targets="all-linear")),
        "qlora": (lora, lora.Config(r=2, alpha=8)),
        "adapter": (adapter, adapter.Config(bottleneck=4)),
        "prompt": (prompt, prompt.Config(length=3)),
        "unshifted": (prompt, prompt.Config(length=2)),
        "ptuning": (ptuning, ptuning.Config(length=2)),
        "prefix": (prefix, prefix.Config(length=4, shift=False)),
    }
    method, made = config[kind]
    method.attach(gpt, made)
    with torch.no_grad():
        for weight in (weight for weight in gpt.parameters() if weight.requires_grad):
            weight.normal_(std=3.0 if method is prompt else 0.4)


def save(gpt, kind, folder, base):
    rooms = {"adapter": adapter, "prompt": prompt, "unshifted": prompt, "ptuning": ptuning, "prefix": prefix}
    more = {"shift": False} if kind == "unshifted" else {}
    rooms.get(kind, lora).save(gpt, folder, "default", base=base, **more)


@pytest.fixture
def sample(monkeypatch, capsys):
    """sample.main in this process: the records it prints, or the text."""
    plain = sample_in_process(monkeypatch, capsys)

    def call(*args, stdin=""):
        out = plain(*args, stdin=stdin)
        call.err = plain.err
        return [json.loads(line) for line in out.splitlines()] if "--json" in args else out

    return call


OPTIONS = ("--max-new-tokens", 8, "--temperature", 1.2, "--json")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_opened_beside_the_base_it_names(runs, sample, kind):
    """As a run of its own, with --adapter, merged if it is LoRA: the tokens of `generate` in Python."""
    found = sample(runs / kind, "--prompt", "cough", *OPTIONS)
    assert "four bits" in sample.err if kind == "qlora" else "four" not in sample.err
    gpt, tokenizer = GPT.from_pretrained(runs / "base").eval(), Tokenizer.load(runs / "base")
    {"qlora": lambda: lora.quantize(gpt)}.get(kind, lambda: None)()
    rooms = {"adapter": adapter, "prompt": prompt, "unshifted": prompt, "ptuning": ptuning, "prefix": prefix}
    rooms.get(kind, lora).load(gpt, runs / kind)
    ids = [tokenizer.eot, *tokenizer.encode("cough")]
    if kind in ("prompt", "unshifted", "ptuning"):
        ids = prompt.ids(gpt) + ids
        if kind == "unshifted":
            unshift(gpt)
    assert found[0]["tokens"] == generate(gpt, [ids], 8, temperature=1.2, eos=tokenizer.eot)[0]
    again = sample(runs / "base", "--adapter", runs / kind, "--prompt", "cough", *OPTIONS)
    assert again[0]["tokens"] == found[0]["tokens"] != sample(runs / "base", "--prompt", "cough", *OPTIONS)[0]["tokens"]
    if "lora" in kind:
        assert sample(runs / kind, "--merge", "--prompt", "cough", *OPTIONS)[0]["tokens"] == found[0]["tokens"]
    assert sample(runs / kind, "--prompt", "cough", *OPTIONS, "--base", runs / "base") == found
    shown = sample(runs / kind, "--interactive", "--temperature", 1.2, "--max-new-tokens", 8, stdin="cough\n")
    assert shown == found[0]["text"] + "\n"


def test_prompts_with_different_adapters_share_a_batch(runs, sample, monkeypatch):
    """Of all kinds, and the base, in one pass of the model: the texts of one at a time."""
    kinds = ["lora", "base", "adapter", "prompt", "unshifted", "ptuning", "prefix", "base"]
    words = [word for kind in kinds for word in ("--adapter", runs / kind if kind != "base" else "base")]
    words += [word for i in range(8) for word in ("--prompt", "cough" * (i % 3 + 1))]
    alone = sample(runs / "base", *words, *OPTIONS, "--batch-size", 1)
    from minigpt.generation.writer import Writer

    sizes, batch = [], Writer.batch

    def counted(self, texts, row):
        sizes.append(len(texts))
        return batch(self, texts, row)

    monkeypatch.setattr(Writer, "batch", counted)
    assert sample(runs / "base", *words, *OPTIONS, "--batch-size", 8) == alone
    assert sample(runs / "base", *words, *OPTIONS, "--batch-size", 3) == alone and sizes == [8, 3, 3, 2]
    assert [each["adapter"] for each in alone] == [str(runs / kind) if kind != "base" else "base" for kind in kinds]
    shown = sample(runs / "base", *words, *OPTIONS[:-1], "--no-echo")
    blocks = [block.split("===\n")[1][:-1] for block in shown.split("=== ") if "===\n" in block]
    assert [each["text"] for each in alone] == blocks
    found = sample(runs / "base", *words, "--num-beams", 2, "--json", "--max-new-tokens", 4)
    assert len({json.dumps(each["tokens"]) for each in found}) > 3


def test_what_cannot_share_a_batch_is_written_in_turn(runs, sample, tmp_path):
    gpt = GPT.from_pretrained(runs / "base")
    lora.attach(gpt, lora.Config(r=2, dora=True, targets=["o_proj"]))
    for weight in lora.parameters(gpt):
        torch.nn.init.normal_(weight, std=0.4)
    lora.save(gpt, tmp_path / "dora")
    words = ["--prompt", "cough", "--prompt", "cough", "--adapter", tmp_path / "dora", "--adapter", runs / "prefix"]
    found = sample(runs / "base", *words, *OPTIONS)
    for i, kind in enumerate((tmp_path / "dora", runs / "prefix")):
        alone = sample(runs / "base", *["--prompt", "cough"] * (i + 1), "--adapter", kind, *OPTIONS)
        assert alone[i]["tokens"] == found[i]["tokens"]


def tasks(runs, folder, kind, task, **config):
    """A head on the base, with what `kind` puts beside it, as train.py leaves it."""
    gpt = GPT.from_pretrained(runs / "base").eval()
    attach(gpt, kind)
    made = Task(gpt, TaskConfig(task=task, init_std=0.5, **config)).eval()
    save(gpt, kind, folder, str(runs / "base"))
    heads.save(made, folder)
    return made


@pytest.mark.parametrize("kind", ["lora", "adapter", "prompt", "prefix"])
def test_a_head_answers_with_what_it_was_tuned_beside(runs, sample, tmp_path, kind):
    made = tasks(runs, tmp_path, kind, "classification", classes=3, names=("咳嗽", "fever", "none"))
    tokenizer, texts = Tokenizer.load(runs / "base"), ["cough", "no fever, no cough", "x" * 200]
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": text, "id": 1}) for text in texts[1:]))
    found = sample(tmp_path, "--prompt", texts[0], "--prompts", file, "--json", "--batch-size", 2)
    assert "1 texts were longer" in sample.err
    for text, record in zip(texts[:2], found, strict=False):
        batch = collate("classification", [Example([tokenizer.encode(text)])], tokenizer.vocab_size)
        if kind == "prompt":
            batch = batch.prepended([token + 3 for token in prompt.ids(made.gpt)])
        expected = made(batch).softmax(-1)[0].tolist()
        assert list(record["probabilities"]) == ["咳嗽", "fever", "none"] and record["prompt"] == text
        assert list(record["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert record["probabilities"][record["answer"]] == pytest.approx(max(expected), abs=1e-5)
    shown = sample(tmp_path, "--prompt", "cough")
    best = max(found[0]["probabilities"].items(), key=lambda each: each[1])
    assert shown.startswith(f"{best[0]} {best[1]:.4f}, ") and shown.endswith(": 'cough'\n")
    assert sample(tmp_path, "--interactive", stdin="cough\n\n") == shown


@pytest.mark.parametrize("task", ["entailment", "similarity"])
def test_heads_for_two_texts(runs, sample, tmp_path, task):
    tasks(runs, tmp_path, "lora", task)
    pair, turned = ["--prompt", "cough", "--pair", "fever"], ["--prompt", "fever", "--pair", "cough"]
    (one,), (other,) = (sample(tmp_path, *words, "--json") for words in (pair, turned))
    same = one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert same == (task == "similarity") and one["pair"] == "fever"
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "cough", "pair": "fever"}) + "\n" + json.dumps({"prompt": "cough"}))
    with pytest.raises(Error, match="pairs.jsonl:2: .* asks about two texts: give --pair"):
        sample(tmp_path, "--prompts", file)
    with pytest.raises(Error, match="2 times --pair for 1 times --prompt"):
        sample(tmp_path, *pair, "--pair", "x")


def test_a_head_that_chooses(runs, sample, tmp_path):
    made = tasks(runs, tmp_path, "lora", "choice")
    words = ["--choice", "cough", "--choice", "fever", "--choice", "no"]
    found = sample(tmp_path, "--prompt", "no", *words, "--json")[0]
    encode = Tokenizer.load(runs / "base").encode
    examples = [Example([encode("no"), encode("cough"), encode("fever"), encode("no")])]
    expected = made(collate("choice", examples, made.gpt.config.vocab_size)).softmax(-1)[0].tolist()
    assert found["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert found["answer"] == found["choices"][expected.index(max(expected))]
    file = tmp_path / "choices.jsonl"
    lists = (["cough", "fever", "no"], ["cough", "fever"])
    file.write_text("\n".join(json.dumps({"prompt": "no", "choices": each}) for each in lists))
    first, second = sample(tmp_path, "--prompts", file, "--json")
    assert first["probabilities"] == pytest.approx(expected, abs=1e-5) and first["answer"] == found["answer"]
    assert len(second["probabilities"]) == 2 and sum(second["probabilities"]) == pytest.approx(1)
    with pytest.raises(Error, match="give --choice twice or more"):
        sample(tmp_path, "--prompt", "no")


@pytest.mark.parametrize(
    "words, message",
    [
        (["{runs}/lora", "--adapter", "{runs}/prefix"], "is an adapter itself"),
        (["{runs}/base", "--base", "{runs}/base"], "--base says nothing"),
        (["{tmp}/lost"], "belongs to the model 'runs/nowhere', which is not there: say where it is with --base DIR"),
        (["{tmp}/nameless"], "does not say of which model: give --base DIR"),
        (["{tmp}/odd"], "holds a 'IA3' adapter, which is not known here: adapter, PROMPT_TUNING"),
        (["{runs}/prefix", "--merge"], "--merge puts one LoRA adapter into the weights"),
        (["{runs}/base", "--adapter", "{tmp}"], "not found: give the directory of an adapter"),
        (["{runs}/prompt", "--draft", "{runs}/base"], "a draft cannot read the virtual tokens"),
    ],
)
def test_what_does_not_go_together_is_said(runs, sample, tmp_path, capsys, words, message):
    for name, change in {
        "lost": {"base_model_name_or_path": "runs/nowhere"},
        "nameless": {"base_model_name_or_path": None},
        "odd": {"peft_type": "IA3"},
    }.items():
        (tmp_path / name).mkdir()
        values = json.loads((runs / "lora" / "adapter_config.json").read_text()) | change
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises((Error, lora.Error), match=message):
        sample(*(word.format(runs=runs, tmp=tmp_path) for word in words))
    assert capsys.readouterr().out == ""
