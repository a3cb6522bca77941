"""A case written down in English: sections first, then the notes that are made of them."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import ALLERGIES, COMORBIDITIES
from .case import UNITS
from .dice import Dice
from .imaging import MODALITIES
from .note import bulleted, order_lines, results
from .symptoms import clinical
from .words import article, items, listed, say, sentence

SHORT = (
    ("shortness of breath", "SOB"), ("type 2 diabetes", "T2DM"), ("hypertension", "HTN"), ("atrial fibrillation", "AF"),
    ("ischaemic heart disease", "IHD"), ("history of", "h/o"), ("blood pressure", "BP"), ("The patient", "Pt"), ("the patient", "pt"),
    (" with ", " w/ "), ("years ago", "yrs ago"), ("No known drug allergies", "NKDA"), ("follow-up", "f/u"), ("diagnosis", "dx"), ("chest X-ray", "CXR"),
)  # fmt: skip


class English:
    """The sections of one case in English; `dice` is the hand that writes."""

    def __init__(self, case, kind, seed):
        self.case, self.kind = case, kind
        self.dice = Dice(f"{seed}/{case.name}/{kind}")
        self.short = [pair for pair in SHORT if self.dice.chance(0.75)] if self.dice.chance(0.3) else []

    def tell(self, both):
        return self.case.say(both, "en")

    def all(self, text):
        return [self.tell(item) for item in items(text)]

    @property
    def who(self):
        c = self.case
        return f"{c.age}-year-old {'woman' if c.sex == 'F' else 'man'}"

    @property
    def he(self):
        return "She" if self.case.sex == "F" else "He"

    @property
    def lasting(self):
        amount, unit = self.case.duration
        return f"{amount} {UNITS[unit][0]}{'s' if amount != 1 else ''}"

    def names(self, keys):
        return [self.tell(clinical(key)) for key in keys]

    def lacking(self):
        """What the patient does not have; a symptom that is absent has no side."""
        return [self.tell(clinical(key).replace("{side} ", "")) for key in self.case.absent]

    def complaint(self):
        mains = listed(self.names(self.case.mains))
        return self.dice.pick(
            (f"{mains} for {self.lasting}.", f"{self.lasting} of {mains}.", f"{mains}, {self.lasting}.")
        ).capitalize()

    def history(self):
        c, d = self.case, self.dice
        past = listed([say(COMORBIDITIES[k].name, "en") for k in c.comorbidities[:2]])
        known = f" with a history of {past}" if past and d.chance(0.7) else ""
        mains, others, he = listed(self.names(c.mains)), listed(self.names(c.others)), self.he
        lines = [d.pick((
            f"{article(self.who)} {self.who}{known} presents with {self.lasting} of {mains}",
            f"This {self.who}{known} came to {d.pick(('the emergency department', 'our hospital'))if c.inpatient else 'the clinic'} because of {mains} for {self.lasting}",
            f"{self.who}{known}, {self.lasting} of {mains}",
            f"The patient is {article(self.who)} {self.who}{known} who developed {mains} {self.lasting} ago",
        ))]  # fmt: skip
        extra = (
            [d.pick((f"Associated symptoms are {others}", f"{he} also reports {others}", f"There is also {others}"))]
            if others
            else []
        )
        lines += d.shuffled(extra + self.story()) + [self.denial()]
        if d.chance(0.25):
            lines.append(
                d.pick(
                    (
                        f"{he} has not travelled recently",
                        "No sick contacts at home",
                        f"{he} was well before this",
                        "No recent change of medication",
                    )
                )
            )
        return " ".join(sentence(line) for line in lines)

    def story(self):
        return [self.tell(line) for line in self.case.story]

    def denial(self):
        absent = self.lacking()
        return self.dice.pick(
            (
                f"{self.he} denies {listed(absent, 'or')}",
                f"No {listed(absent, 'or')}",
                f"There has been no {listed(absent, 'or')}",
            )
        )

    def past(self):
        names = [say(COMORBIDITIES[k].name, "en") for k in self.case.comorbidities]
        names += [self.case.surgery.split("|")[0]] if self.case.surgery else []
        return (
            bulleted(names, self.dice)
            if names
            else self.dice.pick(("No significant past medical history.", "Previously well.", "Nil of note."))
        )

    def drugs(self):
        lines = order_lines(self.case.medicines, "en", self.dice)
        return bulleted(lines, self.dice) if lines else self.dice.pick(("None.", "No regular medication."))

    def allergies(self):
        c = self.case
        if not c.allergy:
            return self.dice.pick(("No known drug allergies.", "None known.", "NKDA."))
        return sentence(f"{say(ALLERGIES[c.allergy][0], 'en')} ({say(c.reaction, 'en')})")

    def social(self):
        c = self.case
        parts = [say(x, "en") for x in (c.work, c.home, c.smoking, c.drinking)]
        return " ".join(sentence(p) for p in parts) if self.dice.chance(0.5) else sentence("; ".join(parts))

    def signs(self, v):
        d, c = self.dice, self.case
        pressure = f"BP {v['sbp']:.0f}/{v['dbp']:.0f}" + d.pick(("", " mmHg"))
        temperature = d.pick(("T", "Temp", "Temperature")) + f" {v['t']:.1f} C"
        rest = [f"HR {v['hr']:.0f}/min", pressure, f"RR {v['rr']:.0f}/min", f"SpO2 {v['spo2']:.0f}% on room air"]
        return ", ".join([temperature] + rest) if d.chance(0.6) or not c else ", ".join(rest + [temperature])

    def exam(self):
        general = self.dice.pick(
            (
                "alert and oriented",
                "looks unwell" if self.case.severity > 0.6 else "comfortable at rest",
                "no acute distress" if self.case.severity < 0.5 else "in some distress",
            )
        )
        general = "drowsy" if self.case.condition.key == "epilepsy" else general
        found = self.all(self.case.condition.exam)
        return " ".join(sentence(line) for line in [self.signs(self.case.vitals), general] + found)

    def labs(self):
        lines = results(self.case, self.case.labs, "en") + self.all(self.case.condition.extra)
        return bulleted(lines, self.dice)

    def imaging(self):
        return " ".join(f"{say(MODALITIES[s.modality].name, 'en')}: {self.tell(s.findings)}" for s in self.case.studies)

    def differential(self):
        names = self.all(self.case.condition.differential)
        return self.dice.pick(
            (
                f"Differential diagnosis: {listed(names, 'or')}.",
                f"{sentence(listed(names))[:-1]} {'was' if len(names) == 1 else 'were'} considered less likely.",
                f"Less likely: {listed(names, 'or')}.",
            )
        )

    def assessment(self):
        d, name = self.dice, self.tell(self.case.condition.name)
        lead = d.pick(
            (
                f"{sentence(self.who)[:-1]} with {name}.",
                f"{sentence(name)}",
                f"Findings are most consistent with {name}.",
                f"Working diagnosis: {name}.",
            )
        )
        return f"{lead} {self.differential()}"

    def plan(self):
        c = self.case
        lines = order_lines(c.acute or c.discharge, "en", self.dice) + self.all(c.condition.measures)
        lines += [f"{self.tell(c.procedure[0])} on {c.procedure[1].isoformat()}"] if c.procedure else []
        lines += [f"{self.dice.pick(('hold', 'stop'))} {o.name('en')}" for o in c.stopped]
        return bulleted(lines, self.dice)
