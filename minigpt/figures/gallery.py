"""Which pictures a directory has: a name, what it shows, and how it is made of the directory's files.

A picture that cannot be made raises `Error` with the reason; `Subject` reads each file when it is first asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import torch

from minigpt import hub
from minigpt.config import GPTConfig
from minigpt.errors import Error
from minigpt.figures import adapter, bars, canvas, curves, looks, masks, places
from minigpt.memory.job import METHODS, OPTIMIZERS, Job
from minigpt.model import GPT
from minigpt.training.log import read_metrics
from minigpt.training.schedule import ScheduleConfig, learning_rate
from minigpt.yaml_files import read_yaml


@dataclass(frozen=True)
class Subject:
    """A run, a model or an adapter on the disk."""

    directory: Path
    text: str = ""
    other: Path | None = None
    kind: str = "svg"

    @cached_property
    def settings(self) -> dict:
        """train.yaml, or nothing."""
        path = self.directory / "train.yaml"
        found = read_yaml(path, "settings of the run") if path.is_file() else {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def config(self) -> GPTConfig:
        """The model's shape; of an adapter that of the model it was trained on, where that is still in its place."""
        base = self.settings.get("init")
        if not (self.directory / "config.json").is_file() and base and (Path(base) / "config.json").is_file():
            return hub.read_config(base)[1]
        return hub.read_config(self.directory)[1]

    @cached_property
    def records(self) -> dict[str, list[dict]]:
        """metrics.jsonl by kind; some training is in it."""
        found = read_metrics(self.directory)
        kinds = {kind: [each for each in found if each["kind"] == kind] for kind in ("train", "eval")}
        if not kinds["train"]:
            raise Error(f"{self.directory / 'metrics.jsonl'}: no training recorded: give the directory of a run")
        return kinds

    @property
    def floors(self) -> dict[str, float]:
        """ln V, and the entropy of the token frequencies where the run's tokens are still there."""
        import math

        from minigpt.corpus.tokens import load_tokens
        from minigpt.training.estimate import unigram_entropy
        from minigpt.training.report import loss_lines

        if self.records["eval"] and "accuracy" in self.records["eval"][0]:
            return {}
        size = self.config.vocab_size
        for folder in (self.directory / "tokens", Path(str(self.settings.get("data") or "nowhere"))):
            if (folder / "manifest.json").is_file():
                tokens = load_tokens(folder)
                if tokens.vocab_size <= size:
                    return loss_lines(size, unigram_entropy(tokens.train, size))
        return {"ln V": math.log(size)}

    @property
    def job(self) -> Job:
        """The run's own settings as work for minigpt.memory; its defaults where there are none."""
        theirs = {"lora_r": "r", "lora_targets": "targets", "batch_size": "batch", "document_mask": "documents"}
        found = {theirs.get(name, name): value for name, value in self.settings.items()}
        if found.get("optimizer") == "sgd" and found.get("momentum"):
            found["optimizer"] = "momentum"
        found["dtype"] = "mixed" if found.get("precision", "fp32") not in ("fp32", "auto") else "fp32"
        found["length"] = found.get("context")
        known = {"method": METHODS, "optimizer": OPTIMIZERS}
        wanted = (*known, "r", "targets", "batch", "documents", "dtype", "length", "accumulate", "checkpointing")
        asked = {name: found[name] for name in wanted if found.get(name) not in (None, [])}
        asked = {name: value for name, value in asked.items() if name not in known or value in known[name]}
        assert set(asked) <= {field.name for field in fields(Job)}
        return Job(**asked)


def _positions(subject: Subject):
    if subject.config.positions == "rotary":
        return places.draw_rotary(subject.config)
    return places.draw_learned(GPT.from_pretrained(subject.directory).position_embedding.weight)


def _attention(subject: Subject):
    from minigpt.insight.attention import attention_weights
    from minigpt.tokenizer import Tokenizer

    model, tokenizer = GPT.from_pretrained(subject.directory), Tokenizer.load(subject.directory)
    ids = tokenizer.encode(subject.text)
    most = min(looks.LONGEST, model.config.context)
    if not 0 < len(ids) <= most:
        raise Error(f"--text has {len(ids)} tokens: give from 1 to {most}, whose names can be read")
    names = [canvas.readable(tokenizer.decode_bytes([each]), subject.kind) for each in ids]
    return looks.draw(attention_weights(model, torch.tensor([ids]))[:, 0], names)


def schedule_points(subject: Subject) -> tuple[list[int], list[float]]:
    """The steps from 1 and their learning rates, by the formula and the run's settings; --lr auto is the peak seen."""
    settings, recorded = subject.settings, subject.records["train"]
    steps = settings.get("steps") or recorded[-1]["step"]
    given = {name: settings[name] for name in ("lr", "schedule", "warmup", "final_lr", "decay") if name in settings}
    config = ScheduleConfig(**given).decided(max(each["lr"] for each in recorded))
    return list(range(1, steps + 1)), [learning_rate(step, steps, config) for step in range(steps)]


def _schedule(subject: Subject):
    recorded = subject.records["train"]
    lines = [("by the formula", *schedule_points(subject), "#bbb")]
    lines += [("as recorded", [each["step"] for each in recorded], [each["lr"] for each in recorded], "#36c")]
    return curves.curves("learning rate", lines, {})


def _adapter(subject: Subject) -> bytes:
    if not (subject.directory / "adapter_config.json").is_file():
        raise Error(f"{subject.directory}: no adapter_config.json: give the directory of a LoRA adapter")
    return adapter.draw(subject.directory, subject.other)


FIGURES: dict[str, Callable] = {
    "masks": lambda subject: masks.draw(subject.config),
    "attention": _attention,
    "positions": _positions,
    "learning": lambda subject: curves.learning(subject.records["train"], subject.records["eval"], subject.floors),
    "schedule": _schedule,
    "schedules": lambda subject: curves.schedules(),
    "memory": lambda subject: bars.draw(subject.config, subject.job),
    "adapter": _adapter,
}


def make(name: str, subject: Subject) -> tuple[str, bytes]:
    """The ending of the file and its bytes."""
    found = FIGURES[name](subject)
    return ("svg", found) if isinstance(found, bytes) else (subject.kind, canvas.data_of(found, subject.kind, name))
