"""Files of instructions and of dialogues -> records, by the readers of documents.py.

instruct   {"instruction": "Translate:", "input": "chien", "output": "dog"}      .jsonl or .csv, names can be given
chat       {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}    .jsonl
           {"turns": ["...", "..."]}      plain utterances, the user's first
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt.corpus.documents import Documents
from minigpt.corpus.talk import Dialogue, Instruction, Part, Template
from minigpt.corpus.usable import Unusable, usable
from minigpt.errors import Error

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Instructions and dialogues: where they stand in a record, and what of them is learned."""

    instruction: str = "instruction"  # field of what to do
    input: str = "input"  # field of what to do it with; a record may lack it
    output: str = "output"  # field of the answer
    template: str = "{instruction}\n\n{input}"  # the question; ends with {output} if the answer goes on in its text
    messages: str = "messages"  # field of a dialogue: [{"role": ..., "content": ...}], or plain utterances
    mask: Literal["on", "off"] = "on"  # on: only answers are learned; off: every token
    pack: bool = False  # several records a row, which do not see each other: fewer rows for the same loss
    held_out: tuple[str, ...] = ()  # tasks to validate on, which are not trained on; repeat it for several
    held_out_by: str = "task"  # field that names the task of a record
    validation: float = 0.05  # share of the records kept apart; with held-out tasks these are, and no others
    on_bad: str = "skip"  # unreadable lines: skip (and count) or refuse
    where: tuple[str, ...] = ()  # only records with type=letter, or type!=letter; repeat it for more conditions

    def __post_init__(self):
        if self.mask not in ("on", "off"):
            raise Error(f"mask is {self.mask!r}: give on to learn answers only, or off to learn every token")
        if not 0 <= self.validation < 1:
            raise Error(f"validation is {self.validation}, expected a fraction from 0 to below 1, such as 0.1")
        Template(self.template)


class Records(Documents):
    """The records of a file, as its subclasses take them from a line; bad ones are treated as bad documents are."""

    kinds: tuple[str, ...]
    what: str

    def __init__(self, source: str | Path, field: str, options: RecordConfig):
        if Path(source).is_dir() or Path(source).suffix.lower() not in self.kinds:
            raise Error(f"{source}: {self.what} are read from {' or '.join(self.kinds)}: write them as such")
        super().__init__(source, field, options.on_bad, options.where)
        self.options = options
        if options.held_out:
            self.needed.append((options.held_out_by,))

    def task(self, record: dict) -> str:
        return str(record.get(self.options.held_out_by, ""))


class Instructions(Records):
    """One `Instruction` a line.

    Errors: those of Documents; lines without an answer, or without what the template asks for, are bad.
    """

    kinds, what = (".jsonl", ".csv"), "instructions"

    def __init__(self, source: str | Path, options: RecordConfig):
        super().__init__(source, options.output, options)
        self.template = Template(options.template)
        self.fields = {name: getattr(options, name) for name in ("instruction", "input", "output")}
        given = ("input",) if options.input != "input" else ()
        self.needed += [(self.fields[name],) for name in (*self.template.needs, *given)]

    def take(self, record: dict) -> Instruction | Unusable:
        values = {}
        for name, field in self.fields.items():
            value = record.get(field)
            if name not in (*self.template.needs, "output") and (value is None or value == ""):
                value = ""
            elif field not in record:
                return Unusable(f"no field {field!r}")
            elif isinstance(value := usable(value, repr(field)), Unusable):
                return value
            values[name] = value
        return Instruction(**values, template=self.template, mask=self.options.mask == "on", task=self.task(record))


class Dialogues(Records):
    """One `Dialogue` a line. Errors: those of Documents; lines without an answer to learn from are bad."""

    kinds, what = (".jsonl",), "dialogues"

    def __init__(self, source: str | Path, options: RecordConfig):
        super().__init__(source, options.messages, options)
        self.names = (options.messages, "turns")
        self.needed[0] = self.names

    def take(self, record: dict) -> Dialogue | Unusable:
        name = next((name for name in self.names if name in record), None)
        if name is None:
            return Unusable(f"no field {self.field!r}")
        messages = record[name]
        if not isinstance(messages, list):
            return Unusable(f"{name!r} is {type(messages).__name__}, expected a list of messages")
        said: list[tuple[str, str]] = []
        for place, message in enumerate(messages, 1):
            found = _message(message, place, said)
            if isinstance(found, Unusable):
                return found
            role, text = found
            if said and said[-1][0] == role:
                said[-1] = role, f"{said[-1][1]}\n{text}"
            else:
                said.append(found)
        return self._dialogue(said, self.task(record))

    def _dialogue(self, said: list[tuple[str, str]], task: str) -> Dialogue | Unusable:
        system = said.pop(0)[1] if said and said[0][0] == "system" else ""
        everything = self.options.mask == "off"
        while said and said[-1][0] == "user" and not everything:
            said.pop()  # nothing after it is learned
        if not said:
            return Unusable("no message of the assistant")
        return Dialogue(system, tuple(Part(text, everything or role == "assistant") for role, text in said), task)


def _message(message: object, place: int, said: list) -> tuple[str, str] | Unusable:
    """The side that speaks and what it says."""
    what = f"message {place}"
    if isinstance(message, dict):
        role, text = message.get("role"), message.get("content")
        if role not in ROLES:
            return Unusable(f"{what} is of the role {role!r:.20}, expected one of {', '.join(ROLES)}")
        if role == "system" and any(each != "system" for each, _ in said):
            return Unusable(f"{what} is the system's, expected it before all others")
    else:
        role, text = ROLES[1 + (place - 1) % 2], message
    text = usable(text, what)
    return text if isinstance(text, Unusable) else (role, text)


READERS = {"instruct": Instructions, "chat": Dialogues}
