"""Weights, settings and what stands beside them: every file of a model, an adapter and a run that is read back."""

import functools
import shutil
import tempfile
from pathlib import Path

import safetensors.numpy
import torch

import lora
from lora import merge_files, verify
from minigpt import GPT, GPTConfig, heads, hub
from minigpt.figures.gallery import Subject as Run
from minigpt.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from minigpt.training.log import Log, read_metrics
from minigpt.training.weights import WholeModel
from minigpt.tuning import adapter, prefix, prompt, ptuning
from tests.faults.damage import JSON, TENSORS, TEXT
from tests.faults.fuzz import Subject

SHAPE = {"vocab_size": 40, "context": 16, "n_layers": 1, "n_heads": 2, "d_model": 8}
LLAMA = {"norm": "rmsnorm", "activation": "silu", "gated": True, "positions": "rotary", "bias": False, "tied": False}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
BESIDE = {"adapter_config.json": JSON, "adapter_model.safetensors": TENSORS}


def gpt(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(**SHAPE | changes)).eval()


def values(module: torch.nn.Module) -> dict[str, bytes]:
    """Every number of a module, by its name and shape: NaN is equal to itself here."""
    state = module.state_dict()
    return {f"{name} {tuple(t.shape)} {t.dtype}": t.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
            for name, t in state.items()}  # fmt: skip


def opened(folder: Path):
    model = GPT.from_pretrained(folder)
    return repr(model.config), values(model)


def rewritten(folder: Path, found) -> bool:
    """The weights, written again, are what safetensors itself reads in the damaged file."""
    model = GPT.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as out:
        hub.save(model, out)
        ours = safetensors.numpy.load_file(Path(out) / WEIGHTS)
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else folder.glob("model-*.safetensors")
    theirs = {name: each for file in files for name, each in safetensors.numpy.load_file(file).items()}
    return all(
        name in theirs and each.tobytes() == theirs[name].astype(each.dtype).tobytes() for name, each in ours.items()
    )


def into(make, load) -> dict:
    """`read` and `memory` of a file that is put into a model which is there: on an error it must be as it was.

    Only an error may leave the model for the next: each success is followed by a new one.
    """
    held = {}

    def model():
        return held.setdefault("model", make())

    def read(folder: Path):
        subject = model()
        load(subject, folder)
        found = values(getattr(subject, "module", subject))
        held.clear()
        return found

    return {"read": read, "memory": lambda: values(getattr(model(), "module", model()))}


def made(attach, save):
    def make(folder: Path):
        model = gpt()
        attach(model)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.normal_(std=0.1)
        save(model, folder)

    return make


def tuned(name: str, attach, save, load) -> Subject:
    return Subject(name, BESIDE, made(attach, save), **into(gpt, load))


def with_lora(folder: Path, **options):
    config = lora.Config(**{"r": 2, "targets": ("q_proj", "v_proj")} | options)
    made(lambda model: lora.attach(model, config), lora.save)(folder)


class Learner:
    """A model and its optimizer after a step."""

    def __init__(self):
        self.model = self.module = gpt()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.model(torch.arange(8)[None]).sum().backward()
        self.optimizer.step()

    def state(self):
        weights = dict(self.model.named_parameters())
        found = {name: {k: v.tolist() for k, v in self.optimizer.state[w].items()} for name, w in weights.items()}
        return values(self.model), repr(found)


def resumed(folder: Path):
    learner = Learner()
    with tempfile.TemporaryDirectory() as run:
        shutil.copytree(folder, Path(run, "checkpoints", "step-00000001"))
        progress = load_checkpoint(Path(run), WholeModel(learner.model), learner.model, learner.optimizer)
    return progress, learner.state()


def checkpoint(folder: Path):
    learner = Learner()
    with tempfile.TemporaryDirectory() as run:
        weights = WholeModel(learner.model)
        found = save_checkpoint(Path(run), weights, learner.model, learner.optimizer, Progress(step=1, tokens=8))
        shutil.copytree(found, folder, dirs_exist_ok=True)


def metrics(folder: Path):
    log = Log(folder, 0, 2)
    for step in range(1, 5):
        log.record("train", step, loss=3.0 / step, lr=0.1, grad_norm=1.0, tokens=8, tokens_per_second=10.0)
        log.record("eval", step, loss=3.0 / step, perplexity=2.0, bits_per_byte=1.0)
    log.close()


def curves(folder: Path):
    """As resuming, the report and the pictures read them."""
    kept = read_metrics(folder)
    steps = [record["step"] for record in kept if record["step"] <= 3]
    return kept, steps, Run(folder).records


def verified(folder: Path):
    found = verify.verify(folder / WEIGHTS, folder, folder / "merged.safetensors")
    return found.equal


def mergeable(folder: Path):
    hub.save(gpt(), folder)
    with_lora(folder)
    merge_files.merge_checkpoint(folder / WEIGHTS, folder, folder / "out")
    (folder / "merged.safetensors").write_bytes((folder / "out" / WEIGHTS).read_bytes())
    for file in (folder / "out").iterdir():
        file.unlink()
    (folder / "out").rmdir()


def merged(folder: Path):
    with tempfile.TemporaryDirectory() as out:
        merge_files.merge_checkpoint(folder / WEIGHTS, folder, Path(out) / "merged")
        return (Path(out) / "merged" / WEIGHTS).read_bytes()


def task() -> heads.Task:
    torch.manual_seed(2)
    return heads.Task(gpt(), heads.TaskConfig(task="classification", classes=3))


def models() -> list[Subject]:
    sharded = functools.partial(hub.save, gpt(**LLAMA), shard_bytes=1000)
    index = "model.safetensors.index.json"
    with tempfile.TemporaryDirectory() as folder:
        sharded(folder)
        shard = sorted(path.name for path in Path(folder).glob("model-0*.safetensors"))[0]
    return [
        Subject("a model", {CONFIG: JSON, WEIGHTS: TENSORS}, lambda f: hub.save(gpt(), f), opened, rewritten),
        Subject("a model in shards", {index: JSON, shard: TENSORS, CONFIG: JSON}, sharded, opened, rewritten),
        Subject("weights put into a model", {CONFIG: JSON, WEIGHTS: TENSORS}, lambda f: hub.save(gpt(), f),
                **into(gpt, hub.load_weights)),
    ]  # fmt: skip


def adapters() -> list[Subject]:
    files = {**BESIDE, WEIGHTS: TENSORS}
    return [
        Subject("a LoRA adapter", BESIDE, with_lora, **into(gpt, lora.load)),
        Subject("a DoRA adapter", BESIDE, functools.partial(with_lora, dora=True, targets=("o_proj",)),
                **into(gpt, lora.load)),
        tuned("a soft prompt", lambda m: prompt.attach(m, prompt.PromptConfig(length=3)), prompt.save, prompt.load),
        tuned("a P-tuning prompt", lambda m: ptuning.attach(m, ptuning.PTuningConfig(length=3)), ptuning.save,
              ptuning.load),
        tuned("a prefix", lambda m: prefix.attach(m, prefix.PrefixConfig(length=3)), prefix.save, prefix.load),
        tuned("an adapter", lambda m: adapter.attach(m, adapter.AdapterConfig()), adapter.save, adapter.load),
        Subject("a task's head", {"task_config.json": JSON, "task_model.safetensors": TENSORS},
                lambda f: heads.save(task(), f), **into(task, heads.refill)),
        Subject("base and adapter to be merged", files, mergeable, merged),
        Subject("base, adapter and merged to be verified", files | {"merged.safetensors": TENSORS}, mergeable,
                verified),
    ]  # fmt: skip


def runs() -> list[Subject]:
    parts = {"state.json": JSON, "optimizer.safetensors": TENSORS, WEIGHTS: TENSORS, CONFIG: JSON}
    return [
        Subject("a checkpoint", parts, checkpoint, resumed),
        Subject("metrics.jsonl", {"metrics.jsonl": TEXT}, metrics, curves),
    ]
