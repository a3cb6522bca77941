"""What stands before the question: a task in words, k worked examples, and the query (Brown et al. 2020, section 2).

    zero-shot    task                          query
    one-shot     task  example                 query
    few-shot     task  example ... example     query         as many as fit: whole ones, dropped from the front

    [end of text]  task | between |  question answer | between | ... | question          -> which answer?

Nothing learns: the examples are read, and forgotten with the prompt.

The pieces between the bars, and question and answer within them, are encoded each on its own. So an answer has the same
ids as an example and as a candidate, an example takes the same room wherever it stands, and all candidates share one
prompt. Traps. A piece should end where a tokenizer would cut anyway: in English an answer begins with its space, and
the question ends without one. Of two answers of which one begins the other ("no", "no change") the sum of
log-probabilities prefers the short one, unless `answer` ends the line: "\\n" is then part of both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from minigpt.errors import Error, nearest
from minigpt.tokenizer import Tokenizer
from minigpt.yaml_files import read_yaml


@dataclass(frozen=True)
class Example:
    """A text and its answer, as words."""

    text: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """The wording. `{text}` and `{answer}` stand for an example's, `{answers}` in the task for all candidates."""

    name: str = "plain"
    task: str = ""  # "" for none
    question: str = "{text}\nAnswer:"
    answer: str = " {answer}"
    between: str = "\n\n"

    def __post_init__(self):
        for field in fields(self):
            if not isinstance(value := getattr(self, field.name), str):
                raise Error(f"Template.{field.name} is {value!r}: give text")
        for part in ("text", "answer"):
            if (value := getattr(self, "question" if part == "text" else part)).count("{" + part + "}") != 1:
                raise Error(f"template {self.name!r}: {value!r} must hold {{{part}}} once")

    def asked(self, text: str) -> str:
        return self.question.replace("{text}", text)

    def answered(self, answer: str) -> str:
        return self.answer.replace("{answer}", answer)

    @property
    def bare(self) -> str:
        """What is left of the question without a text: "Answer:". How likely an answer is after it is its prior."""
        return self.question.partition("{text}")[2].strip()


TEMPLATES = (
    Template(),
    Template(name="labelled", question="Text: {text}\nLabel:"),
    Template(name="instruction", task="Classify each text as one of: {answers}.", question="Text: {text}\nClass:"),
    Template(name="question", question="{text}\nQuestion: what is this about?\nAnswer:"),
    Template(name="sentence", question="{text}\nThis text is about", answer=" {answer}."),
    Template(name="chinese", question="文本：{text}\n类别：", answer="{answer}\n", between="\n"),
)


@dataclass(frozen=True)
class Prompt:
    """A prompt as words and as ids; how many of the examples fitted."""

    text: str
    ids: list[int]
    examples: int


class Builder:
    """Prompts of one template for one set of candidate answers.

    `answers` are the candidates' ids, `prior` the ids of a prompt without task and text. `eot`: begin with the token
    that begins a document, as in training.

    >>> builder = Builder(Tokenizer.train(["x"], 300), Template(question="{text} ="), ["cat", "dog"])
    >>> prompt = builder.build("miaow", [Example("woof", "dog"), Example("purr", "cat")])
    >>> prompt.text, prompt.examples, len(prompt.ids)
    ('woof = dog\\n\\npurr = cat\\n\\nmiaow =', 2, 32)
    >>> builder.build("miaow", [Example("woof", "dog"), Example("purr", "cat")], room=25).text
    'purr = cat\\n\\nmiaow ='
    """

    def __init__(self, tokenizer: Tokenizer, template: Template, answers: Sequence[str], eot: bool = True):
        self.tokenizer, self.template, self.eot = tokenizer, template, eot
        self.names = list(answers)
        if len(set(self.names)) != len(self.names) or len(self.names) < 2 or not all(self.names):
            raise Error(f"the candidates are {self.names!r:.80}: give at least two different ones, none empty")
        self.answers = [tokenizer.encode(template.answered(name)) for name in self.names]
        self.task = template.task.replace("{answers}", ", ".join(self.names))
        self.prior = [tokenizer.eot] * eot + tokenizer.encode(template.bare) or [tokenizer.eot]

    def example(self, example: Example) -> list[int]:
        """The ids of a worked example, what separates it from the next included."""
        template, encode = self.template, self.tokenizer.encode
        parts = (template.asked(example.text), template.answered(example.answer), template.between)
        return [token for part in parts for token in encode(part)]

    def build(self, query: str, examples: Sequence[Example] = (), room: int | None = None) -> Prompt:
        """The prompt of a query in at most `room` tokens. Examples that do not fit are dropped whole, the first first.

        `Error` if task and query alone do not fit.
        """
        encode, template = self.tokenizer.encode, self.template
        words = self.task + template.between if self.task else ""
        head = [self.tokenizer.eot] * self.eot + (encode(self.task) + encode(template.between) if self.task else [])
        end = encode(template.asked(query))
        if room is not None and len(head) + len(end) > room:
            raise Error(
                f"task and query have {len(head) + len(end)} tokens, the prompt may have {room}: "
                "shorten the text, or take a model with a longer context"
            )
        shown = [self.example(example) for example in examples]
        first = 0 if room is None else self._first(shown, room - len(head) - len(end))
        for example in examples[first:]:
            words += template.asked(example.text) + template.answered(example.answer) + template.between
        ids = head + [token for each in shown[first:] for token in each] + end
        return Prompt(words + template.asked(query), ids, len(shown) - first)

    @staticmethod
    def _first(shown: list[list[int]], room: int) -> int:
        """The place from which on all examples fit."""
        first = len(shown)
        while first and len(shown[first - 1]) <= room:
            first -= 1
            room -= len(shown[first])
        return first


def read_templates(file: str | Path) -> tuple[Template, ...]:
    """Templates from a YAML (or JSON) list of mappings: name, task, question, answer, between."""
    found = read_yaml(Path(file), "templates")
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise Error(f"{file}: expected a list of templates, each with name, question and answer")
    known = [field.name for field in fields(Template)]
    for number, each in enumerate(found, 1):
        for key in each:
            if key not in known:
                raise Error(f"{file}: template {number} has no part {key!r}: {nearest(str(key), known)}")
    templates = tuple(Template(**{"name": f"template {n}"} | each) for n, each in enumerate(found, 1))
    if len({template.name for template in templates}) < len(templates):
        raise Error(f"{file}: two templates have the same name: name each differently")
    return templates
