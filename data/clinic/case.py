"""One invented patient: everything the notes need to know, drawn once, so that they all tell the same story."""

from dataclasses import dataclass
from datetime import date, timedelta

from . import background
from .background import ALLERGIES, COMORBIDITIES
from .condition import Condition
from .dice import Dice
from .drugs import choose
from .measures import ROUTINE, TESTS, VITALS, draw, normal, parse, recovered
from .words import LANGUAGES, fill, items, say, span

FIRST_DAY = date(2019, 1, 3)
UNITS = {"hours": ("hour", "小时"), "days": ("day", "天"), "weeks": ("week", "周"), "months": ("month", "个月")}
UNIT_DAYS = {"days": 1, "weeks": 7, "months": 28}
PARTICULARS = ("slots", "symptoms", "background", "allergy", "social", "numbers", "treatment")


@dataclass
class Case:
    """The latent patient. Texts are "english|chinese" until `say` turns them into one language."""

    name: str
    condition: Condition
    sex: str
    age: int
    severity: float
    admitted: date
    stay: int
    duration: tuple  # (amount, unit)
    slots: dict
    mains: list
    others: list
    absent: list
    story: list
    comorbidities: list
    allergy: str
    reaction: str
    smoking: str
    drinking: str
    work: str
    home: str
    surgery: str
    vitals: dict
    after: dict  # vital signs at discharge
    labs: dict
    later: dict  # laboratory values at discharge
    medicines: list  # orders taken before
    acute: list
    discharge: list  # new orders to go home with
    stopped: list  # of `medicines`, because of this disease
    studies: list

    def say(self, both, language):
        """One language's wording with this patient's particulars filled in."""
        return fill(say(both, language), self.slots[language])

    @property
    def inpatient(self):
        return self.stay > 0

    @property
    def discharged(self):
        return self.admitted + timedelta(days=self.stay)

    @property
    def followup(self):
        """(date, what for): counted from discharge, or from the visit."""
        when, what = self.condition.followup.split("|")[0].split(": ", 1)
        amount, unit = when.split()
        day = self.discharged + timedelta(days=int(amount) * UNIT_DAYS[unit.rstrip("s") + "s"])
        return day, f"{what}|{self.condition.followup.split('|')[1].split(': ', 1)[1]}"

    @property
    def procedure(self):
        """(text, date), or None."""
        if not self.condition.procedure:
            return None
        en, zh, day = self.condition.procedure.split("|")
        return f"{en}|{zh}", self.admitted + timedelta(days=int(day))

    @property
    def kept(self):
        """Earlier medicines that go on: neither stopped nor replaced by a new one of the same class."""
        new = [o.classes[0] for o in self.discharge]
        return [o for o in self.medicines if o not in self.stopped and o.classes[0] not in new]


def slots_of(condition, dice):
    """{"en": {...}, "zh": {...}}: numbers from "4-9", words from a list; each drawn once."""
    both = {"en": {"side": "one-sided"}, "zh": {"side": "一侧"}}
    for key, text in condition.slots.items():
        if text[0].isdigit():
            low, high = span(text)
            chosen = str(dice.integer(int(low), int(high)))
        else:
            chosen = dice.pick(items(text))
        for language in LANGUAGES:
            both[language][key] = say(chosen, language)
    return both


def treatable(condition, avoid):
    """Whether every prescription of the disease has an alternative outside the classes to avoid."""
    return all(choose(line, avoid) for line in items(condition.acute) + items(condition.home))


def draw_comorbidities(condition, sex, age, dice):
    """Up to four other diseases that fit sex, age, the disease and its treatment."""
    found, avoid = [], []
    for key in dice.shuffled(list(COMORBIDITIES)):
        other = COMORBIDITIES[key]
        likely = 0.5 if key in condition.risks.split() else other.weight * min(1.0, max(0.1, (age - 15) / 55))
        fits = age >= other.since and other.sex in ("", sex) and key not in condition.never.split()
        if len(found) < 4 and fits and dice.chance(likely) and treatable(condition, avoid + other.avoid.split()):
            found.append(key)
            avoid += other.avoid.split()
    return found, avoid


def draw_allergy(condition, avoid, dice):
    """(key, reaction) of an allergy that leaves the disease treatable, or ("", "")."""
    if not dice.chance(0.34):
        return "", ""
    key = dice.pick(list(ALLERGIES))
    if key in condition.never.split() or not treatable(condition, avoid + ALLERGIES[key][2].split()):
        return "", ""
    return key, dice.pick(items(ALLERGIES[key][1]))


def draw_medicines(comorbidities, avoid, dice):
    """Long-term medicines, one alternative each, never two of one class."""
    orders = []
    for key in comorbidities:
        for line in items(COMORBIDITIES[key].medicines):
            chosen = choose(" / ".join(dice.shuffled(line.split(" / "))), avoid)
            if chosen and not any(chosen.classes[0] == o.classes[0] for o in orders):
                orders.append(chosen)
    return orders


def draw_vitals(condition, comorbidities, severity, dice):
    """Vital signs now, and calmer ones for the day of discharge."""
    given = parse(condition.vitals)
    bounds = {**VITALS, **given}
    if "copd" in comorbidities and "spo2" not in given:
        bounds["spo2"] = (96, 93)
    now = {key: draw(bounds[key], severity, dice, 1 if key == "t" else 0) for key in VITALS}
    if "dbp" not in given:
        now["dbp"] = round(now["sbp"] * dice.between(0.57, 0.65))
    after = {key: draw(VITALS[key], dice.between(0, 1), dice, 1 if key == "t" else 0) for key in VITALS}
    if condition.key == "copd":
        after["spo2"] = dice.integer(91, 94)
    if condition.key in ("hypertension", "preeclampsia"):
        after["sbp"], after["dbp"] = dice.integer(132, 146), dice.integer(78, 88)
    return now, after


def draw_labs(condition, comorbidities, severity, sex, dice):
    """Values at presentation and before discharge: the disease first, then other diseases, then normal routine."""
    values = {}
    for key, bounds in parse(condition.labs).items():
        values[key] = draw(bounds, severity, dice, TESTS[key].digits)
    for other in comorbidities:
        for key, bounds in parse(COMORBIDITIES[other].tests).items():
            value = draw(bounds, dice.between(0, 1), dice, TESTS[key].digits)
            values[key] = max(value, values[key]) if key in values and key != "egfr" else value
    if values:
        for key in dice.some(ROUTINE, 3, 7):
            values.setdefault(key, normal(key, sex, dice))
    chronic = [key for other in comorbidities for key in parse(COMORBIDITIES[other].tests)]
    later = {key: v if key in chronic else recovered(key, v, sex, dice) for key, v in values.items()}
    order = [key for key in TESTS if key in values]
    return {key: values[key] for key in order}, {key: later[key] for key in order}


def draw_social(condition, age, dice):
    """Smoking, alcohol, work, home and past operations, as bilingual phrases."""
    if dice.chance(condition.smoking):
        years = dice.integer(4, max(5, min(45, age - 17)))
        smoking = dice.pick((
            f"smokes, {years} pack-years|吸烟史，{years}包年",
            f"current smoker, {dice.integer(5, 20)} cigarettes a day|每日吸烟{dice.integer(5, 20)}支，未戒",
            "ex-smoker, stopped {0} years ago|既往吸烟，已戒{0}年".format(dice.integer(1, max(2, (age - 18) // 2))),
        ))  # fmt: skip
    else:
        smoking = "never smoked|不吸烟"
    drinking = dice.pick(("no alcohol|不饮酒", "drinks socially|偶有饮酒", "a glass of wine at weekends|周末少量饮酒"))
    if condition.key == "cirrhosis":
        drinking = "heavy alcohol intake for many years|长期大量饮酒"
    work = dice.pick(items(background.WORK_OLD if age >= 64 else background.WORK_YOUNG))
    if age > 28 and work.startswith("university"):
        work = "office clerk|公司职员"
    surgery = ""
    if dice.chance(0.3) and condition.key not in ("appendicitis", "obstruction"):
        surgery = dice.pick(items(background.SURGERY)).replace("{n}", str(dice.integer(2, min(20, age - 14))))
        if "cataract" in surgery and age < 60:
            surgery = ""
    return smoking, drinking, work, dice.pick(items(background.HOME)), surgery


def draw_case(name, condition, seed):
    """One patient with this disease; the same name and seed give the same patient."""
    streams = {part: Dice(f"{seed}/{name}/{part}") for part in PARTICULARS}
    d = streams["numbers"]
    sex = condition.sex or d.pick("FM")
    low, high = span(condition.ages)
    age, severity = d.integer(int(low), int(high)), d.between(0.05, 0.95)
    amount, unit = condition.onset.split()
    shortest, longest = span(amount)
    nights = span(condition.stay) if condition.stay else (0, 0)
    stay = round(nights[0] + (nights[1] - nights[0]) * min(1, max(0, severity + d.between(-0.2, 0.2))))
    comorbidities, avoid = draw_comorbidities(condition, sex, age, streams["background"])
    allergy, reaction = draw_allergy(condition, avoid, streams["allergy"])
    avoid = avoid + (ALLERGIES[allergy][2].split() if allergy else [])
    medicines = draw_medicines(comorbidities, avoid, streams["treatment"])
    mains, others = (condition.symptoms.split("; ") + [""])[:2]
    vitals, after = draw_vitals(condition, comorbidities, severity, d)
    labs, later = draw_labs(condition, comorbidities, severity, sex, d)
    s = streams["symptoms"]
    studies = [x for x in condition.studies if x is condition.studies[0] or s.chance(0.6)]
    return Case(
        name, condition, sex, age, severity, FIRST_DAY + timedelta(days=d.integer(0, 2180)), stay,
        (d.integer(int(shortest), int(longest)), unit), slots_of(condition, streams["slots"]),
        mains.split(), s.some(others.split(), 1, 4), s.some(condition.absent.split(), 2, 3),
        s.some(items(condition.story), 1, 2), comorbidities, allergy, reaction,
        *draw_social(condition, age, streams["social"]), vitals, after, labs, later, medicines,
        [choose(line, avoid) for line in items(condition.acute)],
        [choose(line, avoid) for line in items(condition.home)],
        [o for o in medicines if any(kind in condition.avoid.split() for kind in o.classes)],
        studies,
    )  # fmt: skip
