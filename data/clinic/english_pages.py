"""What stands on the pages of an English chart: discharge letters, referrals, reports, and how they are laid out."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import COMORBIDITIES
from .english import English
from .imaging import MODALITIES, normals
from .note import Note, bulleted, changes, names_of, order_lines
from .words import article, listed, say, sentence

HEADINGS = {
    "complaint": ("Chief complaint", "CC", "Presenting complaint"), "history": ("History of present illness", "HPI", "History"),
    "past": ("Past medical history", "PMH", "Background"), "drugs": ("Medications on admission", "Meds", "Current medication"),
    "allergies": ("Allergies",), "social": ("Social history", "SH"), "exam": ("Physical examination", "Exam", "On examination"),
    "labs": ("Laboratory results", "Labs", "Bloods"), "imaging": ("Imaging and other tests", "Investigations"),
    "assessment": ("Assessment", "Impression and differential"), "plan": ("Plan", "Management"), "dates": ("Dates", "Admission details"),
    "diagnoses": ("Diagnoses", "Discharge diagnosis"), "presentation": ("Presentation", "Reason for admission"),
    "course": ("Hospital course", "Course"), "results": ("Key results", "Results in brief"), "discharge_drugs": ("Discharge medications", "Medication at discharge"),
    "condition": ("Condition at discharge",), "followup": ("Follow-up",), "advice": ("Advice", "Instructions"), "study": ("Examination", "Study"),
    "indication": ("Indication", "Clinical information"), "technique": ("Technique",), "findings": ("Findings",), "impression": ("Impression", "Conclusion"),
    "reason": ("Reason for referral", "Question"), "opinion": ("Opinion", "Assessment"), "recommendations": ("Recommendations", "Suggestions"),
}  # fmt: skip


class EnglishPage(English):
    """The sections of one case that only some kinds of notes have."""

    def dates(self):
        c = self.case
        return self.dice.pick((
            f"Admitted {c.admitted}, discharged {c.discharged}. Length of stay: {c.stay} day{'s' * (c.stay != 1)}.",
            f"Date of admission: {c.admitted}\nDate of discharge: {c.discharged}\nLength of stay: {c.stay} day{'s' * (c.stay != 1)}",
        ))  # fmt: skip

    def diagnoses(self):
        return bulleted(
            [self.tell(self.case.condition.name)] + [say(COMORBIDITIES[k].name, "en") for k in self.case.comorbidities],
            self.dice,
        )

    def presentation(self):
        return f"{article(self.who).capitalize()} {self.who} was admitted with {self.lasting} of {listed(self.names(self.case.mains))}. {self.dice.pick(self.story())}"

    def course(self):
        c, d = self.case, self.dice
        given = listed(names_of(c.acute, "en"))
        lines = (
            [
                d.pick(
                    (
                        f"Treated with {given}",
                        f"Treatment with {given} was started on the day of admission",
                        f"{self.he} received {given}",
                    )
                )
            ]
            if given
            else []
        )
        if c.procedure:
            day = (c.procedure[1] - c.admitted).days + 1
            lines.append(
                d.pick(
                    (
                        f"On {c.procedure[1]} (day {day}): {self.tell(c.procedure[0])}",
                        f"{self.tell(c.procedure[0])} was performed on day {day}",
                    )
                )
            )
        lines += self.all(c.condition.course)
        lines += (
            [f"{listed([o.name('en') for o in c.stopped])} {'was' if len(c.stopped) == 1 else 'were'} stopped"]
            if c.stopped
            else []
        )
        return " ".join(sentence(line) for line in lines)

    def changes(self):
        """Abnormal results and what became of them, admission -> discharge."""
        return changes(self.case, "en")

    def results(self):
        studies = " ".join(
            f"{say(MODALITIES[s.modality].name, 'en')}: {self.tell(s.impression)}." for s in self.case.studies
        )
        return (sentence("; ".join(self.changes())) + " " if self.changes() else "") + studies

    def discharge_drugs(self):
        c, d = self.case, self.dice
        short = d.chance(0.55)
        new, kept = [o.write("en", short) for o in c.discharge], [o.write("en", short) for o in c.kept]
        lines = (
            [f"{x} (new)" for x in new]
            + [f"{x} (continued)" for x in kept]
            + [f"STOPPED: {o.name('en')}" for o in c.stopped]
        )
        return bulleted(lines, d) if lines else "None."

    def condition(self):
        return f"{self.dice.pick(('Stable', 'Improved', 'Well and mobile', 'Good'))}. {self.signs(self.case.after)}."

    def followup(self):
        day, what = self.case.followup
        return f"{sentence(say(what, 'en'))[:-1]} on {day.isoformat()}."

    def advice(self):
        return bulleted([sentence(x)[:-1] for x in self.all(self.case.condition.advice)], self.dice)

    def indication(self):
        mains = listed(self.names(self.case.mains))
        doubt = self.dice.pick(self.all(self.case.condition.differential) + [self.tell(self.case.condition.name)])
        return self.dice.pick(
            (
                f"{sentence(self.who)[:-1]} with {self.lasting} of {mains}.",
                f"{sentence(mains)} Query {doubt}.",
                f"{sentence(mains)[:-1]} for {self.lasting}, ?{doubt}.",
            )
        )

    def findings(self, study):
        rest = [say(x, "en") for x in self.dice.some(normals(study), 1, 5)]
        return " ".join([sentence(self.tell(study.findings))] + self.dice.shuffled(rest))

    def reason(self):
        c, d = self.case, self.dice
        return sentence(
            d.pick(
                (
                    f"Opinion on {listed(self.names(c.mains))} in {article(self.who)} {self.who}",
                    f"{self.who} with {listed(self.names(c.mains))}, please advise on diagnosis and management",
                    f"Thank you for seeing this {self.who} with {self.lasting} of {self.names(c.mains)[0]}",
                )
            )
        )

    def recommendations(self):
        c = self.case
        day, what = c.followup
        orders = order_lines(c.acute if c.inpatient else c.discharge, "en", self.dice)
        tips = [] if c.inpatient else self.dice.some(self.all(c.condition.advice), 1, 2)
        lines = orders + self.all(c.condition.measures) + tips + [f"{say(what, 'en')} on {day}"]
        return bulleted([sentence(x)[:-1] for x in lines], self.dice)


LAYOUTS = {
    "admission": "complaint history past drugs allergies social exam labs imaging assessment plan",
    "discharge": "dates diagnoses presentation course results condition discharge_drugs allergies followup advice",
    "consultation": "reason history past drugs allergies exam labs imaging opinion recommendations",
}


def shorten(text, pairs):
    for long, short in pairs:
        text = text.replace(long, short)
    return text


def lay_out(hand, keys, bodies, headings):
    """Headings and bodies on the page, in one of four house styles."""
    style = hand.dice.integer(0, 3)
    parts = []
    for key, body in zip(keys, bodies, strict=True):
        heading = hand.dice.pick(headings[key]) if hand.dice.chance(0.4) else headings[key][0]
        parts.append((key, heading.upper() if style == 1 else heading, shorten(body, hand.short)))
    mark = {0: "{0}:\n{1}", 1: "{0}:\n{1}", 2: "{0}: {1}", 3: "## {0}\n{1}"}[style]
    text = ("\n" if style == 2 else "\n\n").join(mark.format(heading, body) for _, heading, body in parts)
    return parts, text.replace(": - ", ":\n- ").replace(": 1. ", ":\n1. ")


def write(case, kind, seed):
    """One note of a kind ("admission", "discharge", "consultation", "radiology")."""
    hand = EnglishPage(case, kind, seed)
    if kind == "radiology":
        study = hand.dice.pick([s for s in case.studies if MODALITIES[s.modality].technique])
        modality = MODALITIES[study.modality]
        keys = ["study", "indication", "technique", "findings", "impression"]
        bodies = [f"{sentence(say(modality.name, 'en'))[:-1]}, {case.admitted}.", hand.indication(), say(modality.technique, "en"),
                  hand.findings(study), sentence(hand.tell(study.impression))]  # fmt: skip
        if hand.dice.chance(0.3):
            del keys[2], bodies[2]
    else:
        keys = [k for k in LAYOUTS[kind].split() if k not in ("social", "drugs", "advice") or hand.dice.chance(0.85)]
        keys = [
            k
            for k in keys
            if (k != "labs" or case.labs)
            and (k != "imaging" or case.studies)
            and (k != "results" or case.studies or hand.changes())
        ]
        bodies = [{"opinion": hand.assessment}.get(k) or getattr(hand, k) for k in keys]
        bodies = [make() for make in bodies]
    parts, text = lay_out(hand, keys, bodies, HEADINGS)
    return Note(f"{case.name}-{kind}", "en", kind, case.condition.specialty, parts, text)
