"""python -m minigpt.prompting RUN --data FILE: how well a model answers by words alone, in several wordings."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from minigpt.cli import parse, run
from minigpt.errors import Error

DESCRIPTION = """
How well does a model classify texts when it is only asked?  No weight changes: it reads k examples and a text, and the
likeliest of the labels is its answer. Each template asks the same in other words, and the spread between them is part
of the result. Small models often answer no better than the commonest label, which stands in the table beside them.
"""
EXAMPLES = """
examples:
  python -m minigpt.prompting runs/notes --data notes.jsonl --field text --label specialty
  python -m minigpt.prompting runs/notes --data notes.jsonl --field text --label type --shots 0,1,4 --retrieve tfidf
  python -m minigpt.prompting runs/notes --data notes.jsonl --label type --where language=zh --templates mine.yaml
  python -m minigpt.prompting runs/notes --data notes.jsonl --label type --score mean --cut 200
  python -m minigpt.prompting runs/notes --data notes.jsonl --label type --shots 0,4 --soft prompts/type

A file of templates, YAML; {text}, {answer} and (in task) {answers} are filled in:
  - name: mine
    task: "Sort each note."
    question: "Note: {text}\\nSort:"
    answer: " {answer}"
"""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked, of which model."""

    model: Path = field(metadata={"positional": True})  # a run or Hugging Face directory
    data: Path  # .jsonl, .csv or .parquet: a text and its label in each record
    field: str = "text"  # which field holds the text
    label: str = "label"  # which field holds the answer, as a word
    where: tuple[str, ...] = ()  # only records with language=zh, or language!=zh; repeat it for more conditions
    cut: int = 0  # read the first so many characters of each text; 0: all of it
    queries: int = 100  # records to ask; the others are the pool that examples come from
    templates: Path | None = None  # YAML list of wordings; else six of ours
    soft: Path | None = None  # a stored soft prompt: ask with it before each prompt, too


@dataclass(frozen=True, kw_only=True)
class Showing:
    """Which examples are shown, and how an answer is scored."""

    shots: tuple[int, ...] = (0, 1, 4)  # examples in a prompt, as far as they fit
    retrieve: Literal["random", "fixed", "tfidf", "embedding"] = "random"  # which: fixed are the same for all queries
    score: Literal["sum", "mean", "prior"] = "prior"  # log P(answer), of a token, or less log P(answer | no text)
    seed: int = 0  # another seed, other queries and examples
    out: Path | None = None  # directory for prompting.json and prompting.svg; else that of the model

    def __post_init__(self):
        if not self.shots or min(self.shots) < 0 or self.seed < 0:
            raise Error(f"--shots {self.shots} and --seed {self.seed}: give numbers of at least 0")
        if len(set(self.shots)) < len(self.shots):
            raise Error(f"--shots {','.join(map(str, self.shots))}: give each number once")


def main() -> int:
    asking, showing = parse(
        Asking, Showing, prog="python -m minigpt.prompting", description=DESCRIPTION, epilog=EXAMPLES
    )
    if asking.queries < 1 or asking.cut < 0:
        raise Error(f"--queries {asking.queries} must be at least 1, --cut {asking.cut} at least 0")
    from minigpt.files import write_atomic
    from minigpt.model import GPT
    from minigpt.prompting import show, trial
    from minigpt.prompting.template import TEMPLATES, read_templates
    from minigpt.tokenizer import Tokenizer

    templates = read_templates(asking.templates) if asking.templates else TEMPLATES
    examples = trial.read_examples(asking.data, asking.field, asking.label, asking.where, asking.cut)
    names = trial.candidates_of(examples)
    queries, pool = trial.split(examples, asking.queries, showing.seed)
    if max(showing.shots) and not pool:
        raise Error(f"all {len(examples)} records are queries, none is left to show: lower --queries")
    model, tokenizer = GPT.from_pretrained(asking.model), Tokenizer.load(asking.model)
    trials = ask_all(model, tokenizer, asking, showing, templates, queries, pool, names)
    baseline = trial.commonest(queries, pool)
    print(show.table(trials, baseline))
    out = showing.out or asking.model
    settings = {name: str(value) for name, value in (asdict(asking) | asdict(showing)).items()}
    found = show.record(trials, names, baseline, settings | {"asked": len(queries), "pool": len(pool)})
    write_atomic(out / "prompting.json", json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    write_atomic(out / "prompting.svg", show.picture(trials, baseline))
    print(f"\n{out / 'prompting.svg'} shows it, {out / 'prompting.json'} has the numbers")
    return 0


def ask_all(model, tokenizer, asking: Asking, showing: Showing, templates, queries, pool, names) -> list:
    """Every template with every number of shots; with --soft each again behind the soft prompt."""
    from dataclasses import replace

    from tqdm import tqdm

    from minigpt.prompting.retrieval import make_retriever
    from minigpt.prompting.trial import run_trial

    fronts = {"": []}
    if asking.soft:
        from minigpt.tuning import prompt

        prompt.load(model, asking.soft, name="soft")
        fronts[" + soft prompt"] = prompt.ids(model, "soft")
    retriever = make_retriever(showing.retrieve, [example.text for example in pool], model, tokenizer, showing.seed)
    grid = [(end, template, shots) for end in fronts for template in templates for shots in showing.shots]
    found = []
    with tqdm(total=len(grid) * len(queries), unit="prompt", disable=None, leave=False) as bar:
        for end, template, shots in grid:
            bar.set_description(f"{template.name}{end}, {shots} shots")
            named = replace(template, name=template.name + end)
            found.append(
                run_trial(
                    model,
                    tokenizer,
                    named,
                    shots,
                    queries,
                    pool,
                    retriever,
                    names,
                    showing.score,
                    fronts[end],
                    bar.update,
                )  # fmt: skip
            )
    return found


if __name__ == "__main__":
    run(main, "python -m minigpt.prompting")
