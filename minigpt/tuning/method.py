"""One seam for all methods: what a run of train.py asks of whatever it tunes a model with.

    report = method.attach(model)                     what learns from now on, and what it costs
    batches = method.batches(model, batches)          what the model reads: with virtual tokens, where a method has some
    method.before_step(model, step)                   what changes on the way: gradual unfreezing
    method.save(model, directory, base)               what is needed to use what was learned
    method.load(model, directory)                     that put back into the model

What is needed to go on learning is more, an encoder or an MLP too: every number that learns, by its name; see
training/weights.py. Our own methods are in methods.py; LoRA is such a class as well, but it lives in train.py, for
minigpt does not know of it. Nothing here needs torch.
"""

from pathlib import Path

from minigpt.tuning.options import WHOLE
from minigpt.tuning.report import Report


class Method:
    """What most methods say. `name` is that of --method."""

    name: str

    @property
    def whole(self) -> bool:
        """Whether a run keeps a whole model."""
        return self.name in WHOLE

    def attach(self, model) -> Report:
        raise NotImplementedError

    def virtual(self, model) -> list[int]:
        """Ids that stand before every text."""
        return []

    def taken(self, model) -> int:
        """Positions of the context that are not for the text."""
        return len(self.virtual(model))

    def batches(self, model, batches):
        """Batches as this method has the model read them."""
        return batches

    def before_step(self, model, step: int):
        """What must be so before this step; a pure function of it."""

    def save(self, model, directory: Path, base: str):
        raise NotImplementedError

    def load(self, model, directory: Path):
        raise NotImplementedError
