"""A written note, and how its sections are put on the page."""

from dataclasses import dataclass

from .measures import TESTS, flag, shown
from .words import say, sentence


@dataclass
class Note:
    """`parts` are (key, heading, body); `text` is what a reader sees."""

    id: str
    language: str
    type: str
    specialty: str
    parts: list
    text: str

    def body(self, key):
        """The text under one section, by its language-independent key, or ""."""
        return next((body for name, _, body in self.parts if name == key), "")

    def record(self):
        """The JSON line."""
        headings = [heading for _, heading, _ in self.parts]
        return {"id": self.id, "language": self.language, "type": self.type, "specialty": self.specialty,
                "sections": headings, "text": self.text}  # fmt: skip


def bulleted(lines, dice, language="en"):
    """A list as dashes, as numbers, or run together, as different hands do it."""
    style = dice.pick("-1 ")
    if style == "-":
        return "\n".join(f"- {line}" for line in lines)
    if style == "1":
        return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
    return sentence("; ".join(lines)) if language == "en" else "；".join(lines) + "。"


def result(case, key, value, language, named=True):
    """One laboratory result with its flag: "CRP 145 mg/L (H)", "C反应蛋白 145 mg/L↑"; without its name if so asked."""
    test = TESTS[key]
    unit = f" {test.unit}" if test.unit and test.unit != "%" else test.unit
    mark = flag(key, value, case.sex)
    if language == "zh":
        unit = unit.replace("x10", "×10").replace("umol", "μmol").replace("ug", "μg")
        return (f"{test.zh} " if named else "") + shown(key, value) + unit + {"H": "↑", "L": "↓", "": ""}[mark]
    return (f"{test.en} " if named else "") + shown(key, value) + unit + (f" ({mark})" if mark else "")


def results(case, values, language):
    """All results as a list of texts."""
    return [result(case, key, value, language) for key, value in values.items()]


def changes(case, language):
    """Abnormal results and what became of them: "CRP 145 mg/L (H) -> 38 mg/L (H)"."""
    lines = []
    for key, value in case.labs.items():
        if flag(key, value, case.sex):
            moved = value != case.later[key]
            after = result(case, key, case.later[key], language, named=False)
            arrow = " -> " if language == "en" else " → "
            lines.append(result(case, key, value, language) + (arrow + after if moved else ""))
    return lines


def order_lines(orders, language, dice):
    """Prescriptions, all short or all long: one note is written by one hand."""
    short = dice.chance(0.55)
    return [o.write(language, short) for o in orders]


def names_of(orders, language):
    """The drugs' names, each once: a first dose and the doses after it are one drug."""
    return list(dict.fromkeys(o.name(language) for o in orders))


def spoken(turns, colon):
    """Turns as lines; a speaker who goes on speaking does so in the same turn."""
    lines = []
    for speaker, text in turns:
        if lines and lines[-1][0] == speaker:
            lines[-1][1] += (" " if colon == ": " else "") + text
        else:
            lines.append([speaker, text])
    return "\n".join(f"{speaker}{colon}{text}" for speaker, text in lines)


def specialty_name(name, language):
    """A specialty's name; the table of specialties is here because both languages and the pairs need it."""
    return say(next(x for x in SPECIALTIES if x.startswith(name + "|")), language)


SPECIALTIES = (
    "cardiology|心血管内科", "respiratory medicine|呼吸内科", "gastroenterology|消化内科", "general surgery|普通外科",
    "neurology|神经内科", "psychiatry|精神科", "dermatology|皮肤科", "infectious diseases|感染科", "nephrology|肾内科",
    "urology|泌尿外科", "endocrinology|内分泌科", "haematology|血液科", "rheumatology|风湿免疫科",
    "obstetrics and gynaecology|妇产科", "orthopaedics|骨科",
)  # fmt: skip
