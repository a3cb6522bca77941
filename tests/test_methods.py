"""train.py --method: what learns, what stays bit for bit, what is kept, and that a run goes on as if nothing was."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from ranks import launch, run_train
from runs import RARELY, SHAPE, SMALL, labelled_notes, records, train, without_pictures, write_lines
from safetensors.torch import load_file

import lora
from minigpt import GPT, GPTConfig, heads
from minigpt.heads import Task, TaskConfig
from minigpt.training import building
from minigpt.training.checkpoint import list_checkpoints
from minigpt.training.optimizer import make_groups
from minigpt.training.options import OptimizerConfig
from minigpt.tuning import adapter, methods, prefix, prompt, ptuning
from minigpt.tuning.options import (
    ANSWERING,
    BESIDE,
    RATES,
    VIRTUAL,
    WHOLE,
    BottleneckConfig,
    MethodConfig,
    PartConfig,
    VirtualConfig,
)

LORA = ("lora", "qlora")
METHODS = (*WHOLE, *BESIDE, *LORA)
OPTIONS = {
    "top": ["--top", 1],
    "gradual": ["--every", 2, "--direction", "down"],
    "adapter": ["--bottleneck", 8],
    "prompt": ["--length", 3],
    "ptuning": ["--length", 3, "--hidden", 8],
    "prefix": ["--length", 3, "--hidden", 8],
    "ptuning2": ["--length", 3],
    "lora": ["--lora-r", 2, "--lora-dropout", 0.1],
    "qlora": ["--lora-r", 2],
}
CLASSIFY = ["--task", "classify", "--label", "kind"]
MODEL, ADAPTER = {"config.json", "model.safetensors"}, {"adapter_config.json", "adapter_model.safetensors"}
ALWAYS = {"checkpoints", "metrics.jsonl", "tokenizer.json", "tokenizer_config.json", "train.yaml", "tokens"}
HEAD = {"task_config.json", "task_model.safetensors"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    without_pictures(monkeypatch)


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "notes.jsonl", labelled_notes())


@pytest.fixture(scope="module")
def bases(notes, tmp_path_factory) -> dict[str, Path]:
    """A model of either kind of positions, hardly trained."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        for shape in ("llama", "gpt2"):
            made[shape] = tmp_path_factory.mktemp("base") / shape
            where = ["--data", notes, "--field", "text", "--out", made[shape], "--shape", shape]
            assert train(*where, *SHAPE, *SMALL, *RARELY, "--steps", 2)[0] == 0
    return made


def tune(notes, base, out, method, *words) -> str:
    where = ["--data", notes, "--field", "text", "--init", base, "--out", out, "--method", method]
    code, said = train(*where, *SMALL, *RARELY, *OPTIONS.get(method, ()), *words)
    assert code == 0, said
    return said


def watch(patch) -> dict:
    """The pieces of the run to come, as building.py makes them."""
    seen, assemble = {}, building.assemble

    def watched(*given):
        options, pieces = assemble(*given)
        seen.update(vars(pieces), module=pieces.compute.module, model=pieces.compute.model)
        return options, pieces

    patch.setattr(building, "assemble", watched)
    return seen


class Tuned:
    """A run of a method with a task's head: dropout, weight decay, a checkpoint half-way; and its pieces."""

    def __init__(self, method: str, notes: Path, bases: dict[str, Path], folder: Path):
        self.method, self.run = method, folder / method
        self.base = bases["gpt2" if method in ("ptuning", "ptuning2", "adapter") else "llama"]
        words = ["--steps", 4, "--save-every", 2, "--weight-decay", 0.5, "--lr", 0.01, "--dropout", 0.1]
        with pytest.MonkeyPatch.context() as patch:
            without_pictures(patch)
            self.pieces = watch(patch)
            tune(notes, self.base, self.run, method, *CLASSIFY, *words)

    def fresh(self) -> GPT:
        model = GPT.from_pretrained(self.base)
        if self.method == "qlora":
            lora.quantize(model)
        return model


@pytest.fixture(scope="module", params=METHODS)
def tuned(request, notes, bases, tmp_path_factory) -> Tuned:
    return Tuned(request.param, notes, bases, tmp_path_factory.mktemp("runs"))


def changed(before: GPT, after: GPT) -> set[str]:
    """Tensors of `before` that are other bits in `after`, under whatever a method has put around them."""
    found = {name.replace(".base.", "."): tensor for name, tensor in after.state_dict().items()}
    return {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, found[name])}


# Numbers that learn beside a base of two layers and width d, with OPTIONS: the formulas of the docstrings, written out.
LEARNED = {
    "adapter": lambda d, d_ff: 2 * 2 * (2 * d * 8 + 8 + d),
    "prompt": lambda d, d_ff: 3 * d,
    "ptuning": lambda d, d_ff: 3 * d + 2 * lstm(d, 8) + 2 * lstm(16, 8) + 16 * 16 + 16 + 16 * d + d,
    "prefix": lambda d, d_ff: 3 * d + d * 8 + 8 + 4 * d * 8 + 4 * d,
    "ptuning2": lambda d, d_ff: 2 * 2 * 3 * d,
    "lora": lambda d, d_ff: 2 * 2 * 2 * (d + d),
    "qlora": lambda d, d_ff: 2 * 2 * (4 * (d + d) + 3 * (d + d_ff)),
}


def lstm(n_in: int, hidden: int) -> int:
    """Of one direction: four gates, two biases each."""
    return 4 * hidden * (n_in + hidden + 2)


LOADS = {"adapter": adapter, "prompt": prompt, "ptuning": ptuning, "prefix": prefix, "ptuning2": prefix}
LOADS |= dict.fromkeys(LORA, lora)
PROMISED = {
    "full": lambda name: True,
    "top": lambda name: name.startswith(("blocks.1.", "final_norm")),
    "gradual": lambda name: name.startswith(("blocks.", "final_norm")),
}


def test_what_learns_changes_and_all_else_keeps_its_bits_under_weight_decay(tuned):
    """The log begins with what is counted here anew, and the run keeps what it should."""
    method, before = tuned.method, tuned.fresh()
    other = changed(before, tuned.pieces["model"])
    assert other == {name for name in before.state_dict() if PROMISED.get(method, lambda name: False)(name)}
    weights = {name: weight.numel() for name, weight in GPT.from_pretrained(tuned.base).named_parameters()}
    d, d_ff = before.config.d_model, before.config.d_ff
    learned = LEARNED[method](d, d_ff) if method in LEARNED else sum(weights.get(name, 0) for name in other)
    files, kept = {path.name for path in tuned.run.iterdir()} - ALWAYS, tuned.run.glob("*.safetensors")
    assert files == HEAD | (MODEL if method in WHOLE else ADAPTER)
    assert records(tuned.run, "method") == [
        {
            "kind": "method",
            "step": 0,
            "method": method,
            "trains": learned + 3 * d + 3 * d + 3,  # the three words, and a head for three classes
            "stored": sum(tensor.nbytes for path in kept for tensor in load_file(path).values()),
            "base": sum(size for name, size in weights.items() if name not in other),
        }
    ]
    assert records(tuned.run, "final")[0].keys() >= {"loss", "accuracy", "macro_f1", "examples", "peak_memory"}


def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_bits(tuned, tmp_path):
    """Dropout, encoders and MLPs, what the optimizer remembers, and the step that gradual unfreezing has come to."""
    run, again = tuned.run, tmp_path / "again"
    shutil.copytree(run, again)
    shutil.rmtree(list_checkpoints(again)[-1])
    code, said = train("--resume", "--out", again)
    assert code == 0, said
    ours, theirs = list_checkpoints(run)[-1], list_checkpoints(again)[-1]
    assert ours.name == theirs.name == "step-00000004"
    for file in [*ours.glob("*.safetensors"), *run.glob("*.safetensors")]:
        other = (theirs if file.parent == ours else again) / file.name
        assert file.read_bytes() == other.read_bytes(), file.name
    for kind in ("method", "train", "eval", "final"):
        assert [r.get("loss") for r in records(run, kind)] == [r.get("loss") for r in records(again, kind)]


def test_what_is_kept_is_enough_to_answer_as_the_run_did(tuned):
    """By the public functions, from the files: the confusion matrix of the final record, and its loss."""
    run, method = tuned.run, tuned.method
    model = GPT.from_pretrained(run) if method in WHOLE else tuned.fresh()
    if method not in WHOLE:
        LOADS[method].load(model, run)
    task, validation = heads.load(model, run).eval(), tuned.pieces["validation"]
    batches, final = [validation[i] for i in range(len(validation))], records(run, "final")[0]
    assert heads.evaluate(task, batches).matrix.tolist() == final["confusion"]
    with torch.no_grad():
        parts = [(task.losses(batch)[0].item(), len(batch.labels)) for batch in batches]
    mean = sum(loss * n for loss, n in parts) / sum(n for _, n in parts)
    assert mean == pytest.approx(final["task_loss"], abs=1e-5)
    assert task.config.names == ("a", "b", "c")


def test_gradual_unfreezing_lets_a_block_alone_until_its_step(notes, bases, tmp_path):
    run, base = tmp_path / "run", bases["llama"]
    tune(notes, base, run, "gradual", "--steps", 4, "--save-every", 2, "--weight-decay", 0.5)
    before = GPT.from_pretrained(base)
    second, fourth = (changed(before, GPT.from_pretrained(path)) for path in list_checkpoints(run))
    assert {name.split(".")[1] for name in second if name.startswith("blocks.")} == {"1"}
    assert {name.split(".")[1] for name in fourth if name.startswith("blocks.")} == {"0", "1"}
    assert not any(name.startswith(("token", "head")) for name in fourth)


@pytest.mark.parametrize("method", VIRTUAL)
def test_what_stands_before_a_text_does_not_decay_nor_does_what_makes_it(method):
    config = GPTConfig(n_layers=2, n_heads=2, d_model=16, vocab_size=50, context=16)
    virtual = VirtualConfig(length=3, hidden=8 if method in ("ptuning", "prefix") else None)
    model = GPT(config)
    methods.make(method, (PartConfig(), BottleneckConfig(), virtual), str.split, seed=0).attach(model)
    module = Task(model, TaskConfig(classes=3))
    head = (module.words.weight, *module.head.parameters())
    groups = {group["name"]: group for group in make_groups(module, OptimizerConfig(weight_decay=0.5), head, 0.1)}
    assert groups.keys() == {"vectors", "head", "head's vectors"}
    assert groups["vectors"]["weight_decay"] == groups["head's vectors"]["weight_decay"] == 0
    assert (groups["vectors"]["lr_scale"], groups["head"]["lr_scale"]) == (1.0, 0.1)


def test_no_shift_leaves_the_text_where_the_base_learned_to_read_it(notes, bases, tmp_path, monkeypatch):
    """Learned positions: the text's hidden states see the prompt, at the places 0, 1, ... of the base."""
    run, watched = tmp_path / "run", watch(monkeypatch)
    tune(notes, bases["gpt2"], run, "prompt", "--steps", 2, "--no-shift")
    assert '"minigpt_shift": false' in (run / "adapter_config.json").read_text()
    model, base = watched["model"].eval(), GPT.from_pretrained(bases["gpt2"])
    tokens = torch.tensor([[5, 6, 7]])
    prompt.load(base, run)
    ids = torch.tensor([prompt.with_prompt(base, [5, 6, 7])])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), base(ids, positions=positions))
        assert not torch.allclose(model(ids)[:, 3:], base(tokens), atol=1e-4)


def test_a_prompt_begins_as_a_text(notes, bases, tmp_path, monkeypatch):
    run, watched = tmp_path / "run", watch(monkeypatch)
    tune(notes, bases["llama"], run, "prompt", "--length", 4, "--start-text", "fever", "--steps", 1, "--lr", 1e-9)
    ids = watched["subject"].tokenizer.encode("fever")
    rows = GPT.from_pretrained(bases["llama"]).token_embedding.weight[[ids[i % len(ids)] for i in range(4)]]
    torch.testing.assert_close(load_file(run / "adapter_model.safetensors")["prompt_embeddings"], rows.detach())


def test_help_names_the_rate_of_every_method():
    language, answering = " ".join(MethodConfig.__doc__.split()).split("a head of its own")
    for said, rates in ((language, RATES), (answering, ANSWERING)):
        found = re.findall(r"([\d.e-]+) \(([a-z0-9, ]+)\)", said)
        assert {name: float(rate) for rate, names in found for name in names.split(", ")} == rates
    assert [MethodConfig(method="prompt").head_rate(0.1), MethodConfig(method="lora").head_rate(0.1)] == [4e-3, 0.1]
    prefix = MethodConfig(method="prefix")
    assert [prefix.rate(new=True, answers=True), prefix.rate(new=False), prefix.rate(False, True)] == [4e-3, 5e-3, 1e-3]


@pytest.mark.parametrize(("words", "rate"), [(CLASSIFY, 1e-3), ([], 5e-3), ([*CLASSIFY, "--lr", 0.02], 0.02)])
def test_a_task_with_a_head_learns_at_its_own_rate(words, rate, notes, bases, tmp_path):
    tune(notes, bases["llama"], tmp_path / "run", "prefix", *words, "--steps", 1, "--warmup", 0)
    assert records(tmp_path / "run", "train")[0]["lr"] == pytest.approx(rate)


WRONG = [
    (["--method", "lore"], "--method is 'lore': did you mean 'lora'"),
    (["--method", "prompt"], "tunes a model that is there: name it with --init"),
    (["--method", "lora", "--bottleneck", 8, "--init", "BASE"], "--bottleneck is of --method adapter, not of lora"),
    (["--method", "adapter", "--lora-r", 4, "--init", "BASE"], "--lora-r is of --method lora and qlora"),
    (["--method", "head", "--init", "BASE"], "teaches the head of a task alone"),
    (["--method", "top", "--top", 9, "--init", "BASE"], "--top is 9: the model has 2 blocks"),
    (["--method", "gradual", "--direction", "left", "--init", "BASE"], "give up or down"),
    (["--method", "prompt", "--length", 500, "--init", "BASE"], "500 virtual tokens leave no room"),
    (["--method", "prompt", "--no-shift", "--init", "BASE"], "shift=False is for learned positions"),
    (["--method", "prompt", "--document-mask", "--init", "BASE"], "leave out --document-mask"),
    (["--method", "ptuning", "--encoder", "gru", "--init", "BASE"], "PTuningConfig.encoder is 'gru'"),
    (["--method", "adapter", "--after", "head", "--init", "BASE"], "AdapterConfig.after"),
    (["--method", "prompt", "--start", "uniform", "--start-text", "x", "--init", "BASE"], "give one"),
    (["--method", "prefix", "--parallel", "fsdp", "--init", "BASE"], "give --parallel ddp"),
    (["--method", "lora", "--lora-targets", "no_proj", "--init", "BASE"], "no_proj"),
    (["--method", "lora", "--dora", "--init", "GPT2"], "dora on a part of a fused weight does not fit PEFT's format"),
    (["--method", "lora", "--extend-context", "2x", "--init", "BASE"], "--extend-context changes the model"),
    (["--task", "sort"], "--task is 'sort'"),
    (["--task", "classify"], "--task classify needs --label"),
    (["--task", "entail", "--label", "kind"], "--task entail needs --pair"),
    (["--task", "classify", "--label", "kind", "--choices", "answers"], "--choices is not of --task classify"),
    (["--label", "kind"], "--label is not of --task lm"),
    (["--task", "classify", "--label", "kind", "--data", "DATA"], "needs --data and --field"),
    (["--task", "classify", "--label", "kinds", "--data", "DATA", "--field", "text"], "did you mean 'kind'"),
    (["--task", "classify", "--label", "kind", "--data", "DATA", "--field", "text", "--validation", 0], "kept apart"),
    (["--task", "instruct", "--data", "DATA", "--field", "text"], "by fields of their own, not --field"),
    (["--task", "lm", "--template", "{input}"], "--template is of --task instruct, not of lm"),
    (["--lr", 0], "lr is 0"),
    (["--head-lr", -1], "--head-lr is -1"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(map(str, words)) for words, _ in WRONG])
def test_what_does_not_go_together_is_one_sentence_and_nothing_is_written(words, message, notes, bases, tmp_path):
    run = tmp_path / "run"
    known = {"BASE": bases["llama"], "GPT2": bases["gpt2"], "DATA": notes}
    code, said = train("--out", run, "--threads", 1, *(known.get(word, word) for word in words))
    assert code == 2 and message in said and "\n" not in said, said
    assert not run.exists()


def test_two_processes_tune_as_one_does(notes, bases, tmp_path):
    """A prefix, its MLP, a task's head; where a rank lacks a batch, its blank counts in neither part of the loss."""
    words = ["--data", notes, "--field", "text", "--init", bases["llama"], "--method", "prefix", *OPTIONS["prefix"]]
    words += [*CLASSIFY, *SMALL, *RARELY, "--steps", 3, "--accumulate", 3, "--lr", 0.01]
    assert train(*words, "--out", tmp_path / "1")[0] == 0
    launch(run_train, *words, "--out", tmp_path / "2", count=2, where=tmp_path / "text")
    ours, theirs = (load_file(list_checkpoints(tmp_path / n)[-1] / "learned.safetensors") for n in ("1", "2"))
    assert ours.keys() == theirs.keys() and len(ours) == 8
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-6
    final = [records(tmp_path / n, "final")[0] for n in ("1", "2")]
    assert final[0]["confusion"] == final[1]["confusion"]
    assert final[0]["loss"] == pytest.approx(final[1]["loss"], abs=1e-6)
