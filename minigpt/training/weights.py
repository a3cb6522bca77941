"""What a run keeps on disk of what it learns: here the whole model. Who tunes a part brings another such object."""

from pathlib import Path

from minigpt import hub
from minigpt.errors import Error
from minigpt.model import GPT


class WholeModel:
    """The model as a Hugging Face directory; `extra` goes into its config.json (`eos_token_id=...`)."""

    def __init__(self, model: GPT, **extra):
        self.model, self.extra = model, extra

    def save(self, directory: Path):
        hub.save(self.model, directory, **self.extra)

    def load(self, directory: Path):
        """Put the weights of `directory` into the model, which must be of that shape."""
        if hub.read_config(directory)[1] != self.model.config:
            raise Error(f"{directory}: another model than the one asked for: resume with the options of the run")
        hub.load_weights(self.model, directory)
