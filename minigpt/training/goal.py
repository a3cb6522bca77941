"""What the user of train.py can choose about the task. Nothing here needs torch."""

from dataclasses import dataclass

from minigpt.errors import Error, nearest

TASKS = {"classify": "classification", "entail": "entailment", "similar": "similarity", "choice": "choice"}
TALKS = ("instruct", "chat")


@dataclass(frozen=True, kw_only=True)
class GoalConfig:
    """Task: what to learn to do.

    lm goes on with a text; instruct and chat go on with an instruction or a dialogue, and learn the answers alone. The
    others answer with a head of their own (Radford et al. 2018): classify one text, entail and similar judge two,
    choice finds the right answer among several. All but lm read records: .jsonl, .csv, .parquet.
    """

    task: str = "lm"  # lm, instruct, chat, classify, entail, similar or choice
    label: str | None = None  # field of the answer: a class, as a word or number; choice: the right one, or its number
    pair: str | None = None  # entail, similar: field of the second text; --field is that of the first
    choices: str | None = None  # choice: field of the list of answers; --field is that of the context
    lm_weight: float = 0.5  # of the next token's loss beside the answer's; 0: the answer alone
    head_dropout: float = 0.1  # of what the head reads
    head_lr: float | None = None  # learning rate of the head; by default --lr, and 4e-3 where virtual tokens learn

    def __post_init__(self):
        known = ("lm", *TALKS, *TASKS)
        if self.task not in known:
            raise Error(f"--task is {self.task!r}: {nearest(self.task, known)}")
        judges_two, chooses = self.task in ("entail", "similar"), self.task == "choice"
        for name, needed in (("label", self.task in TASKS), ("pair", judges_two), ("choices", chooses)):
            if needed and getattr(self, name) is None:
                raise Error(f"--task {self.task} needs --{name}, the name of a field: see --help")
            if not needed and getattr(self, name) is not None:
                raise Error(f"--{name} is not of --task {self.task}: leave it out, or name the task")
        if not self.lm_weight >= 0 or not 0 <= self.head_dropout < 1:
            raise Error(
                f"--lm-weight is {self.lm_weight}, --head-dropout {self.head_dropout}: give at least 0, below 1"
            )
        if self.head_lr is not None and not self.head_lr > 0:
            raise Error(f"--head-lr is {self.head_lr}: give a learning rate above 0")

    @property
    def others(self) -> tuple[str, ...]:
        """Fields beside the text and the label."""
        return tuple(name for name in (self.pair, self.choices) if name is not None)
