"""What stands on the pages of a Chinese chart: discharge records, consultations, reports, and how they are laid out."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import COMORBIDITIES
from .chinese import Chinese, stop
from .imaging import MODALITIES, normals
from .note import Note, bulleted, changes, names_of, order_lines
from .words import say

HEADINGS = {
    "complaint": ("主诉",), "history": ("现病史",), "past": ("既往史",), "drugs": ("入院前用药", "长期用药"), "allergies": ("过敏史",),
    "social": ("个人史",), "exam": ("体格检查", "查体"), "labs": ("实验室检查", "化验"), "imaging": ("辅助检查", "影像及其他检查"),
    "assessment": ("初步诊断", "诊断及鉴别诊断"), "plan": ("诊疗计划", "处理"), "dates": ("住院日期",), "diagnoses": ("出院诊断",),
    "presentation": ("入院情况",), "course": ("诊疗经过",), "results": ("主要检查结果",), "discharge_drugs": ("出院带药",),
    "condition": ("出院情况",), "followup": ("复诊安排",), "advice": ("出院医嘱",), "study": ("检查项目",), "indication": ("临床资料",),
    "technique": ("检查方法",), "findings": ("检查所见", "影像所见"), "impression": ("检查意见", "诊断意见"), "reason": ("会诊目的",),
    "opinion": ("会诊意见", "诊断意见"), "recommendations": ("建议", "处理建议"),
}  # fmt: skip


class ChinesePage(Chinese):
    """The sections of one case that only some kinds of notes have."""

    def dates(self):
        c = self.case
        return self.dice.pick(
            (
                f"入院日期：{c.admitted}，出院日期：{c.discharged}，住院{c.stay}天。",
                f"{c.admitted}入院，{c.discharged}出院，共住院{c.stay}天。",
            )
        )

    def diagnoses(self):
        names = [self.tell(self.case.condition.name)] + [
            say(COMORBIDITIES[k].name, "zh") for k in self.case.comorbidities
        ]
        return bulleted(names, self.dice, "zh")

    def presentation(self):
        c = self.case
        return f"{self.who}，因“{'、'.join(self.names(c.mains))}{self.lasting}”入院。{stop(self.tell(self.dice.pick(c.story)))}"

    def course(self):
        c, d = self.case, self.dice
        given = "、".join(names_of(c.acute, "zh"))
        lines = [d.pick((f"入院后予{given}治疗", f"入院后给予{given}等治疗", f"予{given}治疗"))] if given else []
        if c.procedure:
            lines.append(
                f"{c.procedure[1]}（住院第{(c.procedure[1] - c.admitted).days + 1}天）行{self.tell(c.procedure[0])}"
            )
        lines += self.all(c.condition.course)
        lines += [f"住院期间停用{'、'.join(o.name('zh') for o in c.stopped)}"] if c.stopped else []
        return "".join(stop(line) for line in lines)

    def results(self):
        studies = "".join(
            f"{say(MODALITIES[s.modality].name, 'zh')}：{stop(self.tell(s.impression))}" for s in self.case.studies
        )
        moved = changes(self.case, "zh")
        return ("；".join(moved) + "。" if moved else "") + studies

    def discharge_drugs(self):
        c, d = self.case, self.dice
        short = d.chance(0.4)
        lines = [o.write("zh", short) + "（新加）" for o in c.discharge] + [
            o.write("zh", short) + "（继用）" for o in c.kept
        ]
        lines += [f"停用：{o.name('zh')}" for o in c.stopped]
        return bulleted(lines, d, "zh") if lines else "无。"

    def condition(self):
        return self.dice.pick(("病情好转。", "症状明显缓解，一般情况可。", "患者一般情况良好。")) + self.signs(
            self.case.after
        )

    def followup(self):
        day, what = self.case.followup
        return f"{day}{stop(say(what, 'zh'))}"

    def advice(self):
        return bulleted(self.all(self.case.condition.advice), self.dice, "zh")

    def indication(self):
        c = self.case
        doubt = self.dice.pick(self.all(c.condition.differential) + [self.tell(c.condition.name)])
        mains = "、".join(self.names(c.mains))
        return self.dice.pick(
            (
                f"{self.sex}，{c.age}岁，{mains}{self.lasting}。",
                f"{mains}{self.lasting}，{doubt}？",
                f"{self.who}，{mains}，请除外{doubt}。",
            )
        )

    def findings(self, study):
        rest = [say(x, "zh") for x in self.dice.some(normals(study), 1, 5)]
        return "".join([stop(self.tell(study.findings))] + self.dice.shuffled(rest))

    def reason(self):
        mains = "、".join(self.names(self.case.mains))
        return self.dice.pick(
            (
                f"{self.who}，{mains}{self.lasting}，请协助明确诊断及治疗。",
                f"{mains}{self.lasting}，请会诊指导诊治。",
                f"{self.who}，因{mains}就诊，请贵科会诊。",
            )
        )

    def recommendations(self):
        c = self.case
        day, what = c.followup
        lines = order_lines(c.acute if c.inpatient else c.discharge, "zh", self.dice) + self.all(c.condition.measures)
        lines += [] if c.inpatient else self.dice.some(self.all(c.condition.advice), 1, 2)
        return bulleted(lines + [f"{day}{say(what, 'zh')}"], self.dice, "zh")


LAYOUTS = {
    "admission": "complaint history past drugs allergies social exam labs imaging assessment plan",
    "discharge": "dates diagnoses presentation course results condition discharge_drugs allergies advice followup",
    "consultation": "reason history past allergies exam labs imaging opinion recommendations",
}
STYLES = ("{0}：{1}", "【{0}】{1}", "【{0}】\n{1}", "{0}：\n{1}")


def lay_out(hand, keys, bodies):
    """Headings and bodies on the page, in one of four house styles."""
    style = hand.dice.pick(STYLES)
    parts = []
    for key, body in zip(keys, bodies, strict=True):
        parts.append((key, hand.dice.pick(HEADINGS[key]), body))
    texts = []
    for _, heading, body in parts:
        block = body[:2] == "- " or body[:2] == "1."
        texts.append(style.format(heading, ("\n" if block and "\n" not in style else "") + body))
    return parts, "\n".join(texts)


def write(case, kind, seed):
    """One note of a kind ("admission", "discharge", "consultation", "radiology")."""
    hand = ChinesePage(case, kind, seed)
    if kind == "radiology":
        study = hand.dice.pick([s for s in case.studies if MODALITIES[s.modality].technique])
        modality = MODALITIES[study.modality]
        keys = ["study", "indication", "technique", "findings", "impression"]
        bodies = [f"{say(modality.name, 'zh')}，{case.admitted}", hand.indication(), say(modality.technique, "zh"),
                  hand.findings(study), stop(hand.tell(study.impression))]  # fmt: skip
        if hand.dice.chance(0.3):
            del keys[2], bodies[2]
    else:
        keys = [k for k in LAYOUTS[kind].split() if k not in ("social", "drugs", "advice") or hand.dice.chance(0.85)]
        keys = [k for k in keys if (k != "labs" or case.labs) and (k != "imaging" or case.studies)]
        keys = [k for k in keys if k != "results" or case.studies or changes(case, "zh")]
        bodies = [hand.assessment() if k == "opinion" else getattr(hand, k)() for k in keys]
    parts, text = lay_out(hand, keys, bodies)
    return Note(f"{case.name}-{kind}", "zh", kind, case.condition.specialty, parts, text)
