"""Questions and instructions about a note, with answers that the case settles.

A question is asked about a passage that stands in the prompt, and its answer stands in that passage word for word. An
instruction asks for something to be written: the answer is rendered from the same case as the note.
"""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .case import UNITS
from .dice import Dice
from .measures import TESTS, flag
from .note import names_of, result, specialty_name
from .symptoms import clinical
from .words import article, items, listed, say, sentence

ASK = {
    "lab": ("What was the {0}?|{0}的结果是多少？; Give the result of {0}.|请给出{0}的检查结果。; {0} result?|{0}是多少？"),
    "dose": ("How is {0} prescribed?|{0}的用法用量是什么？; What is the dose of {0}?|{0}怎么用？"),
    "stay": ("How long was the hospital stay?|患者住院多少天？; Give the length of stay.|住院天数是多少？"),
    "out": ("On which date was the patient discharged?|患者哪天出院？; What is the discharge date?|出院日期是哪天？"),
    "in": ("On which date was the patient admitted?|患者哪天入院？; What is the admission date?|入院日期是哪天？"),
    "next": ("When is the follow-up?|复诊时间是哪天？; On which date should the patient come back?|患者应在哪天复诊？"),
    "age": ("How old is the patient?|患者多大年龄？; What is the patient's age?|患者年龄是多少？"),
    "since": ("How long have the symptoms been present?|症状持续多久了？; What is the duration of symptoms?|病程多长？"),
    "pressure": ("What was the blood pressure?|血压是多少？; Give the blood pressure.|请写出患者的血压值。"),
    "operation": ("On which date was the procedure done?|该操作是哪天进行的？; When was the procedure?|手术/操作日期是哪天？"),
    "impression": ("Write the impression for these findings.|请根据以下检查所见写出诊断意见。; What is the conclusion of this report?|请为以下影像所见写出结论。"),
    "drugs": ("List the discharge medications by name.|请列出出院带药的药名。; Which drugs does the patient take home?|患者出院带哪些药？"),
    "summary": ("Summarise in one sentence.|请用一句话概括病情。; Write a one-sentence summary of this patient.|请用一句话总结该患者。"),
    "specialty": ("Which specialty should see this patient?|该患者应就诊于哪个科室？; Name the specialty for this case.|请判断应由哪个专科诊治。"),
    "abnormal": ("List the abnormal results.|请列出异常的检查结果。; Which results are outside the reference range?|哪些结果超出参考范围？"),
    "differential": ("List the differential diagnoses.|请列出需要鉴别的疾病。; Which other diagnoses were considered?|还考虑了哪些鉴别诊断？"),
    "plain": ("Explain this diagnosis to the patient in plain words.|请用通俗的话向患者解释该诊断。; Tell the patient what this means.|请向患者说明这是什么病。"),
    "complaint": ("Write the chief complaint of this conversation.|请根据对话写出主诉。; Turn this into a chief complaint.|请把以下对话整理成主诉。"),
    "stopped": ("Which medicines were stopped?|停用了哪些药物？; Name the medicines that were stopped.|请写出停用的药物。"),
}  # fmt: skip
EXTRACTIVE = ["lab", "dose", "stay", "out", "in", "next", "age", "since", "pressure", "operation"]


def lasting(case, language):
    """The duration of symptoms as the notes print it."""
    amount, unit = case.duration
    word = UNITS[unit][language == "zh"]
    return f"{amount}{word}" if language == "zh" else f"{amount} {word}{'s' if amount != 1 else ''}"


def enumerate_(parts, language):
    return "、".join(parts) + "。" if language == "zh" else sentence(listed(parts))


def about_labs(case, note):
    """Single results, and all abnormal ones."""
    passage = note.body("labs")
    if not passage:
        return
    for key, value in case.labs.items():
        name = TESTS[key].zh if note.language == "zh" else TESTS[key].en
        yield "lab", name, passage, result(case, key, value, note.language, named=False)
    wrong = [result(case, k, v, note.language) for k, v in case.labs.items() if flag(k, v, case.sex)]
    if wrong:
        yield "abnormal", "", passage, ("；" if note.language == "zh" else "; ").join(wrong)


def about_drugs(case, note):
    """Doses in plans and discharge lists; names of what is taken home; what was stopped."""
    language = note.language
    for key, orders in (("plan", case.acute or case.discharge), ("discharge_drugs", case.discharge + case.kept)):
        passage = note.body(key)
        for o in orders:
            for short in (True, False):
                whole, name = o.write(language, short), o.name(language)
                if whole in passage and passage.count(name) == 1:
                    yield "dose", name, passage, whole.removeprefix(name).strip()
    passage = note.body("discharge_drugs")
    if passage and case.discharge + case.kept:
        yield "drugs", "", passage, enumerate_(names_of(case.discharge + case.kept, language), language)
    if passage and case.stopped:
        yield "stopped", "", passage, enumerate_(names_of(case.stopped, language), language)


def about_dates(case, note):
    """Admission, discharge, length of stay, procedure, follow-up."""
    if passage := note.body("dates"):
        yield "in", "", passage, case.admitted.isoformat()
        yield "out", "", passage, case.discharged.isoformat()
        yield (
            "stay",
            "",
            passage,
            f"{case.stay}天" if note.language == "zh" else f"{case.stay} day{'s' * (case.stay != 1)}",
        )
    if passage := note.body("followup"):
        yield "next", "", passage, case.followup[0].isoformat()
    if case.procedure and case.procedure[1].isoformat() in note.body("course"):
        yield "operation", "", note.body("course"), case.procedure[1].isoformat()


def about_patient(case, note):
    """Age, duration, blood pressure, specialty, one-sentence summary, differential."""
    language, history = note.language, note.body("history") or note.body("presentation")
    name = case.say(case.condition.name, language)
    age = f"{case.age}岁" if language == "zh" else f"{case.age}-year-old"
    if age in history:
        yield "age", "", history, age
    if lasting(case, language) in history:
        yield "since", "", history, lasting(case, language)
    if note.body("exam"):
        yield "pressure", "", note.body("exam"), f"{case.vitals['sbp']:.0f}/{case.vitals['dbp']:.0f}"
    if note.body("history"):
        yield "specialty", "", history, enumerate_([specialty_name(case.condition.specialty, language)], language)
    opinion = note.body("assessment") or note.body("opinion")
    if opinion and history and age in history:
        mains = [case.say(clinical(key), language) for key in case.mains]
        who = f"{case.age}-year-old {'woman' if case.sex == 'F' else 'man'}"
        text = (
            f"{article(who).capitalize()} {who} with {lasting(case, 'en')} of {listed(mains)}, diagnosed with {name}."
        )
        if language == "zh":
            text = f"{'女' if case.sex == 'F' else '男'}，{case.age}岁，{'、'.join(mains)}{lasting(case, 'zh')}，诊断为{name}。"
        yield "summary", "", f"{history}\n{opinion}", text
    if opinion:
        others = [case.say(item, language) for item in items(case.condition.differential)]
        yield "differential", "", opinion, enumerate_(others, language)


def about_report(case, note):
    """The impression of a radiology report; a diagnosis in plain words; a complaint out of a conversation."""
    language = note.language
    if note.body("findings"):
        study = f"{note.body('study')}\n{note.body('findings')}"
        yield "impression", "", study, note.body("impression")
    plain = case.say(case.condition.lay, language)
    name = case.say(case.condition.name, language)
    if note.body("diagnoses"):
        yield "plain", "", name, f"这是{plain}。" if language == "zh" else f"This is {plain}."
    if note.type == "dialogue":
        mains = [case.say(clinical(key), language) for key in case.mains]
        opening = "\n".join(note.body("dialogue").split("\n")[:4])
        text = (
            f"{'、'.join(mains)}{lasting(case, 'zh')}。"
            if language == "zh"
            else sentence(f"{listed(mains)} for {lasting(case, 'en')}")
        )
        yield "complaint", "", opening, text


def candidates(case, note):
    """Every pair this note could give: (kind, subject, passage, answer)."""
    for about in (about_labs, about_drugs, about_dates, about_patient, about_report):
        yield from about(case, note)


def write_pairs(case, note, seed, count):
    """Up to `count` pairs about one note, of different kinds, as records without an id."""
    dice = Dice(f"{seed}/{note.id}/pairs")
    chosen, kinds = [], []
    for kind, subject, passage, answer in dice.shuffled(list(candidates(case, note))):
        if kind in kinds or len(chosen) == count:
            continue
        kinds.append(kind)
        task = "qa" if kind in EXTRACTIVE else "instruction"
        question = say(dice.pick(items(ASK[kind])), note.language).format(subject)
        if task == "qa":
            label = dice.pick(("问题：", "")) if note.language == "zh" else dice.pick(("Question: ", "Q: ", ""))
            prompt = f"{passage}\n\n{label}{question}"
        else:
            prompt = f"{question}\n\n{passage}"
        chosen.append({"note_id": note.id, "language": note.language, "task": task, "specialty": note.specialty,
                       "prompt": prompt, "response": answer})  # fmt: skip
    return chosen
