"""Labelled sets of clinical text for bench/methods.py: derived where the sources lie, split as train.py splits.

    abstracts     which of 5 kinds of disease an abstract is about                medical_abstracts      English
    headers       which of 20 sections a paragraph of a note belongs to           MTS-Dialog             English
    roles         background, objective, methods or results of an abstract        pubmedqa               English
    departments   which department answers a patient's question                   toyhom_zh_qa           Chinese
    notes         which of 15 specialties a note of ours comes from               data/notes.jsonl       both

A set is a .jsonl of `text` and `label`, each text once, with the label it has first. Which texts are validation is a
hash of the text (minigpt/corpus/split.py), so the text of a base can leave them out: `base_texts` are the training
texts of all sets, the rest of their records, and text without labels, never a validation text.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minigpt.corpus.documents import Documents
from minigpt.corpus.split import plan_split, unique
from minigpt.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
CLINICAL = ROOT.parent / "shared" / "clinical"
VALIDATION = 0.1
SETS = {
    "abstracts": "medical_abstracts",
    "headers": "clinical_dialogue_notes",
    "roles": "pubmedqa",
    "departments": "toyhom_zh_qa",
    "notes": None,
}
LONGEST_ANSWER = 600  # characters of an encyclopedia's answer in the base's text: it must not drown the rest
# First word of a section's name -> role; a name with "and" between two of these ("METHODS AND RESULTS") has none.
ROLES = {
    "background": r"BACKGROUND|INTRODUCTION|CONTEXT|RATIONALE",
    "objective": r"OBJECTIVE|OBJECTIVES|PURPOSE|PURPOSES|AIM|AIMS|STUDY OBJECTIVE",
    "methods": r"METHOD|METHODS|METHODOLOGY|DESIGN|STUDY DESIGN|SETTING|PATIENTS|PARTICIPANTS|SUBJECTS|MATERIALS?"
    r"|INTERVENTIONS?|MAIN OUTCOME MEASURES?|MEASUREMENTS|RESEARCH DESIGN",
    "results": r"RESULT|RESULTS|FINDINGS|PRINCIPAL FINDINGS|MAIN RESULTS",
}


@dataclass(frozen=True)
class Split:
    """(text, label) of both sides."""

    train: list[tuple[str, str]]
    validation: list[tuple[str, str]]


def available(clinical: Path = CLINICAL) -> list[str]:
    """The sets whose source is here: our own notes always."""
    return [name for name, source in SETS.items() if source is None or (clinical / source).is_dir()]


def derive(name: str, clinical: Path = CLINICAL) -> dict[str, str]:
    """text -> label, the first where a text has several."""
    found = {}
    for text, label in _EXAMPLES[name](clinical):
        found.setdefault(text, label)
    return found


def write(path: Path, examples: dict[str, str]):
    """A .jsonl of `text` and `label`."""
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in examples.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "".join(line + "\n" for line in lines))


def split(path: Path, validation: float = VALIDATION) -> Split:
    """The two sides of a .jsonl, as train.py --validation makes them."""
    documents = Documents(path, "text")
    with path.open(encoding="utf-8") as file:
        labels = {record["text"]: record["label"] for record in map(json.loads, file)}
    sides = {"train": [], "val": []}
    for side, text in unique(documents, plan_split(documents, validation, progress=False), "", progress=False):
        sides[side].append((text, labels[text]))
    return Split(sides["train"], sides["val"])


def base_texts(splits: dict[str, Split], clinical: Path = CLINICAL) -> Iterator[str]:
    """What the base learns from: no text that is validation in one of the sets, nor a record that holds one."""
    kept = {text for found in splits.values() for text, _ in found.validation}
    yield from (text for name in ("abstracts", "notes") if name in splits for text, _ in splits[name].train)
    for record in _records(clinical, "clinical_dialogue_notes"):
        if record["note"] not in kept:
            yield from (record["note"], record["dialogue"])
    for record in _records(clinical, "pubmedqa"):
        parts = [record["question"], *record["contexts"], record["long_answer"]]
        yield "\n".join(part for part in parts if part not in kept)
    for record in _records(clinical, "toyhom_zh_qa"):
        if _question(record) not in kept:
            yield f"{_question(record)}\n{record['answer']}"
    yield from (record["dialogue"] for record in _records(clinical, "dialmed_zh"))
    for record in _records(clinical, "medquad"):
        yield f"{record['question']}\n{record['answer'][:LONGEST_ANSWER]}"


def role(section: str) -> str | None:
    """The role a section's name tells, or None.

    >>> role("PATIENTS AND METHODS"), role("AIM"), role("METHODS AND RESULTS"), role("CONCLUSIONS")
    ('methods', 'objective', None, None)
    """
    parts = [part.strip() for part in re.split(r"\bAND\b|,|&", section.upper())]
    roles = {name for part in parts for name, pattern in ROLES.items() if re.fullmatch(pattern, part)}
    return roles.pop() if len(roles) == 1 else None


def _records(clinical: Path, source: str) -> Iterator[dict]:
    path = clinical / source / f"{source}.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _abstracts(clinical: Path):
    yield from ((r["text"], r["label_name"]) for r in _records(clinical, "medical_abstracts"))


def _headers(clinical: Path):
    for record in _records(clinical, "clinical_dialogue_notes"):
        if header := record.get("section_header"):
            yield record["note"], header.strip().upper()


def _roles(clinical: Path):
    for record in _records(clinical, "pubmedqa"):
        for text, section in zip(record["contexts"], record["context_roles"], strict=True):
            if found := role(section):
                yield text, found


def _departments(clinical: Path):
    yield from ((_question(r), r["department"]) for r in _records(clinical, "toyhom_zh_qa"))


def _question(record: dict) -> str:
    return f"{record['title']}\n{record['question']}"


def _notes(clinical: Path):
    """One note a patient: two of the same would tell each other's specialty across the split."""
    patients = set()
    with (ROOT / "data" / "notes.jsonl").open(encoding="utf-8") as file:
        for record in map(json.loads, file):
            patient = record["id"].rpartition("-")[0]
            if patient not in patients:
                patients.add(patient)
                yield record["text"], record["specialty"]


_EXAMPLES = {
    "abstracts": _abstracts,
    "headers": _headers,
    "roles": _roles,
    "departments": _departments,
    "notes": _notes,
}
