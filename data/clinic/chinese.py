"""A case written down in Chinese, in the order and the wording of a Chinese ward."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import ALLERGIES, COMORBIDITIES
from .case import UNITS
from .dice import Dice
from .imaging import MODALITIES
from .note import bulleted, order_lines, results
from .symptoms import clinical
from .words import items, say


def stop(text):
    """End with a Chinese full stop."""
    return text if text[-1:] in "。？！" else text + "。"


class Chinese:
    """The sections of one case in Chinese; `dice` is the hand that writes."""

    def __init__(self, case, kind, seed):
        self.case, self.kind = case, kind
        self.dice = Dice(f"{seed}/{case.name}/{kind}")

    def tell(self, both):
        return self.case.say(both, "zh")

    def all(self, text):
        return [self.tell(item) for item in items(text)]

    @property
    def sex(self):
        return "女" if self.case.sex == "F" else "男"

    @property
    def who(self):
        return self.dice.pick((f"患者，{self.sex}，{self.case.age}岁", f"患者{self.sex}性，{self.case.age}岁"))

    @property
    def lasting(self):
        amount, unit = self.case.duration
        return f"{amount}{UNITS[unit][1]}"

    def names(self, keys):
        return [self.tell(clinical(key)) for key in keys]

    def lacking(self):
        """What the patient does not have; a symptom that is absent has no side."""
        return [self.tell(clinical(key).replace("|{side}", "|")) for key in self.case.absent]

    def complaint(self):
        mains = "、".join(self.names(self.case.mains))
        return self.dice.pick(
            (
                f"{mains}{self.lasting}。",
                f"{mains}{self.lasting}。",
                f"{'伴'.join(self.names(self.case.mains))}{self.lasting}。",
            )
        )

    def history(self):
        c, d = self.case, self.dice
        mains, others = "、".join(self.names(c.mains)), "、".join(self.names(c.others))
        cause = d.pick(("", "无明显诱因", ""))
        first = d.pick(
            (
                f"{self.who}，{self.lasting}前{cause}出现{mains}",
                f"患者于{self.lasting}前{cause}出现{mains}",
                f"{self.lasting}前患者{cause}开始出现{mains}",
            )
        )
        first += d.pick((f"，伴{others}", f"，伴有{others}", f"，同时有{others}")) if others else ""
        lines = [first] + d.shuffled([self.tell(x) for x in c.story])
        absent = "、".join(self.lacking())
        lines.append(d.pick((f"无{absent}", f"病程中无{absent}", f"否认{absent}")))
        if d.chance(0.4):
            lines.append(
                d.pick(
                    (
                        "病来精神尚可，睡眠一般",
                        "发病以来食欲、睡眠欠佳",
                        "近期体力较前下降",
                        "起病后未予特殊处理",
                        "自行休息后未见好转",
                    )
                )
            )
        lines.append(
            d.pick(
                ("为进一步诊治收入院", "今为求诊治来院，门诊以上述原因收住院")
                if c.inpatient
                else ("今来我院门诊就诊", "为明确诊断来诊")
            )
        )
        return "".join(stop(line) for line in lines)

    def past(self):
        c = self.case
        names = [say(COMORBIDITIES[k].name, "zh") for k in c.comorbidities]
        text = (
            self.dice.pick((f"有{'、'.join(names)}病史。", f"既往有{'、'.join(names)}。"))
            if names
            else self.dice.pick(("既往体健。", "否认慢性病史。", "平素身体健康。"))
        )
        return text + (
            stop(say(c.surgery, "zh"))
            if c.surgery
            else self.dice.pick(
                ("", "否认手术外伤史。", "否认肝炎、结核等传染病史。") if c.condition.key != "obstruction" else ("",)
            )
        )

    def drugs(self):
        lines = order_lines(self.case.medicines, "zh", self.dice)
        return bulleted(lines, self.dice, "zh") if lines else self.dice.pick(("无。", "无长期用药。"))

    def allergies(self):
        c = self.case
        if not c.allergy:
            return self.dice.pick(("否认药物及食物过敏史。", "无药物过敏史。", "未发现药物过敏。"))
        return f"{say(ALLERGIES[c.allergy][0], 'zh')}过敏，表现为{say(c.reaction, 'zh')}。"

    def social(self):
        c = self.case
        return "，".join(say(x, "zh") for x in (c.work, c.home, c.smoking, c.drinking)) + "。"

    def signs(self, v):
        d = self.dice
        spo2 = d.pick((f"SpO2 {v['spo2']:.0f}%（未吸氧）", f"血氧饱和度{v['spo2']:.0f}%"))
        if d.chance(0.6):
            return f"T {v['t']:.1f}℃，P {v['hr']:.0f}次/分，R {v['rr']:.0f}次/分，BP {v['sbp']:.0f}/{v['dbp']:.0f}mmHg，{spo2}。"
        return f"体温{v['t']:.1f}℃，脉搏{v['hr']:.0f}次/分，呼吸{v['rr']:.0f}次/分，血压{v['sbp']:.0f}/{v['dbp']:.0f}mmHg，{spo2}。"

    def exam(self):
        c, d = self.case, self.dice
        general = (
            d.pick(("神志清，急性病容", "神清，精神差"))
            if c.severity > 0.6
            else d.pick(("神志清，精神可", "神清，一般情况可", "神清语利"))
        )
        general = (
            "神志清，精神差" if c.condition.key == "stroke" else "精神差" if c.condition.key == "epilepsy" else general
        )
        return self.signs(c.vitals) + general + "，" + "，".join(self.all(c.condition.exam)) + "。"

    def labs(self):
        lines = results(self.case, self.case.labs, "zh") + self.all(self.case.condition.extra)
        return bulleted(lines, self.dice, "zh")

    def imaging(self):
        return "".join(
            f"{say(MODALITIES[s.modality].name, 'zh')}：{stop(self.tell(s.findings))}" for s in self.case.studies
        )

    def assessment(self):
        names = self.all(self.case.condition.differential)
        name = self.tell(self.case.condition.name)
        lead = self.dice.pick((f"{name}。", f"考虑{name}。", f"结合病史、体征及检查，符合{name}。"))
        return lead + self.dice.pick(
            (f"需与{'、'.join(names)}鉴别。", f"鉴别诊断：{'、'.join(names)}。", f"应除外{'、'.join(names)}。")
        )

    def plan(self):
        c = self.case
        lines = order_lines(c.acute or c.discharge, "zh", self.dice) + self.all(c.condition.measures)
        lines += [f"{c.procedure[1]}行{self.tell(c.procedure[0])}"] if c.procedure else []
        lines += [f"停用{o.name('zh')}" for o in c.stopped]
        return bulleted(lines, self.dice, "zh")
