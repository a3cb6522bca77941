"""What a disease is, as data: everything the notes about one patient must agree on.

Texts are "english|chinese", lists are separated by "; " (see `words`). `{name}` stands for one of `slots`, drawn once a
patient, so that the same lobe, side or size returns in examination, imaging and impression.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Study:
    """One imaging or bedside study. `without` names the normal sentences of that modality that would contradict it."""

    modality: str
    findings: str
    impression: str
    without: str = ""


@dataclass(frozen=True)
class Condition:
    """A disease and its usual way of being met, found out, treated and followed."""

    key: str
    specialty: str
    name: str
    ages: str  # "18-60", years
    onset: str  # "2-6 days": hours, days, weeks or months
    symptoms: str  # "main main; optional optional optional", keys of SYMPTOMS
    absent: str  # pertinent negatives, keys of SYMPTOMS
    story: str  # sentences only this disease has, for the history
    exam: str
    differential: str
    lay: str  # completes "This is ..." in a dialogue
    advice: str
    followup: str  # "2 weeks: what for|2周: 做什么"
    sex: str = ""  # "F" or "M" where only one can have it
    stay: str = ""  # "4-9" nights; empty: seen as an outpatient
    slots: dict = field(default_factory=dict)
    risks: str = ""  # keys of COMORBIDITIES seen more often
    never: str = ""  # keys of COMORBIDITIES that would be the disease itself or make no sense
    avoid: str = ""  # drug classes that this disease rules out; such home medicines are stopped
    vitals: str = ""
    labs: str = ""
    extra: str = ""  # investigations in words
    studies: tuple = ()
    acute: str = ""  # prescriptions now, "a / alternative; b"
    home: str = ""  # prescriptions to go home with
    procedure: str = ""  # "english|chinese|day of stay"
    measures: str = ""  # non-drug orders
    course: str = ""
    smoking: float = 0.25
