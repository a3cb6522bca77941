"""A case talked through in English: the doctor asks, the patient answers, both in their own words."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import ALLERGIES, COMORBIDITIES
from .english import English
from .imaging import MODALITIES
from .note import Note, spoken
from .symptoms import clinical, lay
from .words import listed, say, sentence

OPEN = (
    "Good morning. What brings you in today?", "Hello, please sit down. How can I help?", "Hi there. Tell me what has been going on.",
    "Good afternoon. What seems to be the trouble?", "I have read the referral, but tell me in your own words.", "Hello. What made you come in today?",
)  # fmt: skip
NO = ("No, nothing like that.", "No.", "Not that I have noticed.", "No, I don't think so.", "Nope.", "No, none.")
YES = (
    "Yes, I've had {0}.",
    "Now that you mention it, yes, I've had {0}.",
    "Yes. I've had {0} as well.",
    "A bit, yes. I've had {0}.",
)
THANKS = (
    "Thank you, doctor.",
    "All right. Thanks for explaining.",
    "Okay, I'll do that. Thank you.",
    "That makes sense, thank you.",
    "I feel better knowing what it is. Thanks.",
)
CLOSE = (
    "Take care.",
    "Any more questions, just ask.",
    "You're welcome. See you soon.",
    "Call us if anything gets worse.",
    "We will look after you.",
)
AFRAID = (
    ("Is it serious?", "It needs treatment, but we know what to do about it."), ("Will I get better?", "Most people do well with this treatment."),
    ("Did I do something wrong?", "No, this is not your fault."), ("How sure are you?", "The tests and the examination point the same way, so fairly sure."),
    ("Could it be something worse?", "I have thought about {other}, and it does not fit as well."),
)  # fmt: skip


class TalkEn:
    """Turns of one conversation; every method returns a list of (speaker, text)."""

    def __init__(self, case, seed):
        self.case = case
        self.hand = English(case, "dialogue", seed)
        self.dice = self.hand.dice

    def ask(self, *choices):
        return ("Doctor", self.dice.pick(choices))

    def answer(self, *choices):
        return ("Patient", self.dice.pick(choices))

    def opening(self):
        c, d = self.case, self.dice
        complaints = [self.hand.tell(lay(key)) for key in c.mains]
        first = d.pick(
            (
                "I've had {0}.",
                "Well, I've had {0}.",
                "It's been awful. I've had {0}.",
                "I don't feel right. I've had {0}.",
            )
        )
        turns = [("Doctor", d.pick(OPEN)), ("Patient", first.format(listed(complaints)))]
        turns += [self.ask("How long has this been going on?", "When did it start?", "Since when?"),
                  self.answer(f"About {self.hand.lasting}.", f"It started {self.hand.lasting} ago.", f"{sentence(self.hand.lasting)[:-1]} now.")]  # fmt: skip
        return turns

    def symptoms(self):
        c, d = self.case, self.dice
        turns = []
        for key in d.shuffled(c.others + c.absent):
            name = self.hand.tell(clinical(key).replace("{side} ", ""))
            turns.append(self.ask(f"Any {name}?", f"Have you had any {name}?", f"What about {name}?", f"And {name}?"))
            reply = d.pick(YES).format(self.hand.tell(lay(key))) if key in c.others else d.pick(NO)
            turns.append(("Patient", reply))
        return turns

    def past(self):
        c, d = self.case, self.dice
        names = [say(COMORBIDITIES[k].name, "en") for k in c.comorbidities]
        turns = [self.ask("Do you have any other medical conditions?", "Any other illnesses I should know of?", "How is your health otherwise?"),
                 self.answer(f"I have {listed(names)}.", f"Only {listed(names)}.") if names else self.answer("No, I'm usually well.", "Nothing else.", "I'm healthy otherwise.")]  # fmt: skip
        drugs = [o.name("en") for o in c.medicines]
        turns += [self.ask("What medicines do you take?", "Do you take anything regularly?"),
                  self.answer(f"I take {listed(drugs)}.", f"{sentence(listed(drugs))}", f"Let me think. {sentence(listed(drugs))}") if drugs else self.answer("None.", "Nothing regular.", "No tablets at all.")]  # fmt: skip
        allergy = ("No.", "Not that I know of.", "None.")
        if c.allergy:
            name, reaction = say(ALLERGIES[c.allergy][0], "en"), say(c.reaction, "en")
            allergy = (
                f"Yes, {name}. The reaction was {reaction}.",
                f"I'm allergic to {name}. Last time the reaction was {reaction}.",
            )
        turns += [self.ask("Are you allergic to anything?", "Any drug allergies?"), self.answer(*allergy)]
        if d.chance(0.6):
            turns += [self.ask("Do you smoke?", "Are you a smoker?"), self.answer(*self.smoking())]
        if d.chance(0.4):
            turns += [
                self.ask("What do you do for a living?", "And what is your work?"),
                self.answer(f"I'm {'a ' if say(c.work, 'en')[0] not in 'aeiou' else 'an '}{say(c.work, 'en')}."),
            ]
        return turns

    def smoking(self):
        text = say(self.case.smoking, "en")
        if text.startswith("never"):
            return ("No, never.", "I have never smoked.")
        if text.startswith("ex"):
            return (f"I used to. I {text.split(', ')[1]}.",)
        return (
            (f"Yes, {text.split(', ')[1]}.",) if "cigarettes" in text else ("Yes, I'm afraid I do.", "Yes, for years.")
        )

    def verdict(self):
        c, d = self.case, self.dice
        turns = []
        if c.studies:
            study = c.studies[0]
            turns.append(self.ask(f"The {say(MODALITIES[study.modality].name, 'en')} shows {self.hand.tell(study.impression)}.",
                                  f"Your {say(MODALITIES[study.modality].name, 'en')} is back: {self.hand.tell(study.impression)}."))  # fmt: skip
            turns.append(self.answer("What does that mean?", "Is that bad?", "I see. So what is it?"))
        else:
            turns.append(self.ask("I have finished examining you.", "Thank you, you can sit up again."))
            turns.append(self.answer("What do you think it is?", "So what is it?"))
        turns.append(
            self.ask(
                f"This is {self.hand.tell(c.condition.lay)}. In the notes I will call it {self.hand.tell(c.condition.name)}.",
                f"I think this is {self.hand.tell(c.condition.lay)}.",
            )
        )
        worry, reply = d.pick(AFRAID)
        turns += [("Patient", worry), ("Doctor", reply.format(other=d.pick(self.hand.all(c.condition.differential))))]
        return turns

    def plan(self):
        c, d = self.case, self.dice
        orders = c.acute if c.inpatient else c.discharge
        given = listed([o.write("en", short=False) for o in orders[:3]])
        stay = "You will need to stay in hospital. " if c.inpatient else ""
        turns = [
            (
                "Doctor",
                stay
                + (
                    d.pick((f"We will treat you with {given}.", f"I am prescribing {given}."))
                    if given
                    else "The main thing is rest."
                ),
            )
        ]
        if c.procedure:
            turns += [
                self.answer("Will I need an operation or anything like that?", "What happens next?"),
                ("Doctor", f"We plan this: {self.hand.tell(c.procedure[0])}."),
            ]
        if c.stopped:
            turns.append(("Doctor", f"Please do not take {listed([o.name('en') for o in c.stopped], 'or')} for now."))
        turns += [self.answer("Is there anything I should watch for?", "What can I do myself?", "Anything else I should do?"),
                  ("Doctor", " ".join(sentence(x) for x in self.hand.all(c.condition.advice)))]  # fmt: skip
        day, what = c.followup
        turns.append(
            self.ask(
                f"We will see you again on {day} for this: {say(what, 'en')}.",
                f"Your next appointment is on {day}: {say(what, 'en')}.",
            )
        )
        return turns + [("Patient", d.pick(THANKS))] + ([("Doctor", d.pick(CLOSE))] if d.chance(0.6) else [])

    def summary(self):
        c = self.case
        return f"{self.hand.who}, {self.hand.lasting} of {listed(self.hand.names(c.mains))}. Diagnosis: {self.hand.tell(c.condition.name)}."


def converse(case, seed):
    """The dialogue note of a case; sometimes with the doctor's summary line under it."""
    talk = TalkEn(case, seed)
    middle = [talk.symptoms(), talk.past()]
    turns = talk.opening() + sum(middle if talk.dice.chance(0.8) else middle[::-1], []) + talk.verdict() + talk.plan()
    parts = [("dialogue", "Conversation", spoken(turns, ": "))]
    if talk.dice.chance(0.35):
        parts.append(("summary", "Summary", talk.summary()))
    text = "\n\n".join(f"{heading}\n{body}" for _, heading, body in parts)
    return Note(f"{case.name}-dialogue", "en", "dialogue", case.condition.specialty, parts, text)
