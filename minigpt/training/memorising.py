"""After a run on somebody's own text: does the model write what it has read?  (privacy/memorised.py)"""

import sys

from minigpt.privacy import memorised
from minigpt.training.goal import TALKS, TASKS

FREELY = memorised.Trial(samples=16, most_tokens=1_000_000, seconds=10.0)  # nobody asked for it: seconds


def after_training(options, run) -> dict[str, dict]:
    """The table for report.html, with a sentence on stderr where too much is repeated; nothing where it is not wanted.

    auto: the text is the user's (--data) and the model is whole in this process. Records of tasks and dialogues are
    not notes; `python -m minigpt.privacy` says the same of a run at any time.
    """
    wanted, task = options.run.memorised, options.goal.task
    apart = options.run.parallel == "fsdp" and run.compute.ranks.count > 1
    if wanted == "off" or task in TALKS or task in TASKS or apart or (wanted == "auto" and options.data.data is None):
        return {}
    model = run.compute.model
    with run.compute.sampling():
        written = memorised.measure(model, run.subject.tokens, FREELY, run.method.virtual(model))
    records = memorised.summary(written)
    if found := memorised.warning(records):
        print(f"warning: {found}", file=sys.stderr)
    verdict = {"in a word": found or "no more than unseen notes overlap with it"}
    return {"What it repeats of its training text": memorised.table(records) | verdict}
