"""A case talked through in Chinese: 医生 asks, 患者 answers, both in spoken language."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from .background import ALLERGIES, COMORBIDITIES
from .chinese import Chinese, stop
from .imaging import MODALITIES
from .note import Note, spoken
from .symptoms import clinical, lay
from .words import say

OPEN = (
    "您好，哪里不舒服？",
    "请坐，今天怎么来看病了？",
    "您好，说说您的情况吧。",
    "您好，有什么不舒服？",
    "来，坐下慢慢说，怎么了？",
)
NO = ("没有。", "这个没有。", "没注意到，应该没有。", "没有，都挺正常的。", "那倒没有。")
YES = ("有，{0}。", "有的，{0}。", "对，{0}。", "您这么一说还真有，{0}。", "嗯，{0}。")
THANKS = ("好的，谢谢医生。", "明白了，谢谢您。", "行，我记住了，谢谢大夫。", "好，听您的。", "知道了，这下放心了。")
CLOSE = ("不客气，有问题随时联系。", "好，祝您早日康复。", "不客气，按时复查。", "有不舒服随时来。")
AFRAID = (
    ("严重吗？", "需要治疗，但不用太担心。"), ("能治好吗？", "按这个方案治疗，多数人恢复得不错。"), ("怎么会得这个病呢？", "原因不止一个，不是您做错了什么。"),
    ("会不会是别的病？", "也考虑过{other}，但不太符合。"), ("确定吗？", "检查和查体结果都支持，基本可以确定。"),
)  # fmt: skip


class TalkZh:
    """Turns of one conversation; every method returns a list of (speaker, text)."""

    def __init__(self, case, seed):
        self.case = case
        self.hand = Chinese(case, "dialogue", seed)
        self.dice = self.hand.dice

    def ask(self, *choices):
        return ("医生", self.dice.pick(choices))

    def answer(self, *choices):
        return ("患者", self.dice.pick(choices))

    def opening(self):
        d = self.dice
        complaints = "，".join(self.hand.tell(lay(key)) for key in self.case.mains)
        first = d.pick(("医生您好，我{0}。", "大夫，我最近{0}。", "我{0}，难受得很。", "我这阵子{0}。"))
        return [("医生", d.pick(OPEN)), ("患者", first.format(complaints)),
                self.ask("有多久了？", "什么时候开始的？", "这样多长时间了？"),
                self.answer(f"差不多{self.hand.lasting}了。", f"有{self.hand.lasting}了。", f"{self.hand.lasting}前开始的。")]  # fmt: skip

    def symptoms(self):
        c, d = self.case, self.dice
        turns = []
        for key in d.shuffled(c.others + c.absent):
            name = self.hand.tell(clinical(key).replace("|{side}", "|"))
            turns.append(self.ask(f"有没有{name}？", f"{name}有吗？", f"还有{name}吗？", f"有{name}的情况吗？"))
            turns.append(("患者", d.pick(YES).format(self.hand.tell(lay(key))) if key in c.others else d.pick(NO)))
        return turns

    def past(self):
        c, d = self.case, self.dice
        names = "、".join(say(COMORBIDITIES[k].name, "zh") for k in c.comorbidities)
        drugs = "、".join(o.name("zh") for o in c.medicines)
        turns = [self.ask("以前有什么慢性病吗？", "既往身体怎么样？", "以前得过什么病没有？"),
                 self.answer(f"有{names}。", f"查出过{names}。") if names else self.answer("身体一直挺好。", "没什么病。"),
                 self.ask("平时吃什么药吗？", "现在在吃什么药？"),
                 self.answer(f"在吃{drugs}。", f"一直吃着{drugs}。") if drugs else self.answer("没吃药。", "什么药都没吃。")]  # fmt: skip
        allergy = ("没有。", "没发现过敏的。")
        if c.allergy:
            name, reaction = say(ALLERGIES[c.allergy][0], "zh"), say(c.reaction, "zh")
            allergy = (f"我对{name}过敏，用了会{reaction}。", f"有，{name}，以前出现过{reaction}。")
        turns += [self.ask("对什么药物过敏吗？", "有药物过敏史吗？"), self.answer(*allergy)]
        if d.chance(0.6):
            turns += [
                self.ask("抽烟吗？", "平时吸烟喝酒吗？"),
                self.answer(f"{say(c.smoking, 'zh')}，{say(c.drinking, 'zh')}。"),
            ]
        if d.chance(0.35):
            turns += [self.ask("您做什么工作？", "平时是做什么的？"), self.answer(f"{say(c.work, 'zh')}。")]
        return turns

    def verdict(self):
        c, d = self.case, self.dice
        if c.studies:
            name, seen = say(MODALITIES[c.studies[0].modality].name, "zh"), self.hand.tell(c.studies[0].impression)
            turns = [
                self.ask(f"{name}结果出来了：{seen}。", f"您的{name}提示{seen}。"),
                self.answer("这是什么意思？", "那是什么病？", "我看不懂，您给讲讲。"),
            ]
        else:
            turns = [
                self.ask("查体做完了，您起来吧。", "好，检查完了。"),
                self.answer("我这是什么病啊？", "您看是什么问题？"),
            ]
        name, plain = self.hand.tell(c.condition.name), self.hand.tell(c.condition.lay)
        turns.append(
            self.ask(
                f"这是{plain}。病历上写的是{name}。", f"考虑是{name}，{plain}。", f"诊断是{name}，简单说就是{plain}。"
            )
        )
        worry, reply = d.pick(AFRAID)
        return turns + [("患者", worry), ("医生", reply.format(other=d.pick(self.hand.all(c.condition.differential))))]

    def plan(self):
        c, d = self.case, self.dice
        given = "，".join(o.write("zh", short=False) for o in (c.acute if c.inpatient else c.discharge)[:3])
        stay = d.pick(("需要住院治疗。", "得住几天院。")) if c.inpatient else ""
        turns = [("医生", stay + (d.pick((f"先用{given}。", f"给您开{given}。")) if given else "主要是注意休息。"))]
        if c.procedure:
            turns += [
                self.answer("要做手术或者别的处理吗？", "接下来怎么安排？"),
                ("医生", f"需要做{self.hand.tell(c.procedure[0])}。"),
            ]
        if c.stopped:
            turns.append(("医生", f"{'、'.join(o.name('zh') for o in c.stopped)}先停用。"))
        turns += [self.answer("平时要注意什么？", "还有什么要注意的吗？", "我自己需要注意些什么？"),
                  ("医生", "，".join(self.hand.all(c.condition.advice)) + "。")]  # fmt: skip
        day, what = c.followup
        turns.append(self.ask(f"{day}{say(what, 'zh')}。", f"记得{day}{say(what, 'zh')}。"))
        return turns + [("患者", d.pick(THANKS))] + ([("医生", d.pick(CLOSE))] if d.chance(0.6) else [])

    def summary(self):
        c = self.case
        return stop(
            f"{self.hand.sex}，{c.age}岁，{'、'.join(self.hand.names(c.mains))}{self.hand.lasting}，诊断：{self.hand.tell(c.condition.name)}"
        )


def converse(case, seed):
    """The dialogue note of a case; sometimes with the doctor's summary line under it."""
    talk = TalkZh(case, seed)
    middle = [talk.symptoms(), talk.past()]
    turns = talk.opening() + sum(middle if talk.dice.chance(0.8) else middle[::-1], []) + talk.verdict() + talk.plan()
    parts = [("dialogue", "问诊对话", spoken(turns, "："))]
    if talk.dice.chance(0.35):
        parts.append(("summary", "小结", talk.summary()))
    text = "\n\n".join(f"{heading}\n{body}" for _, heading, body in parts)
    return Note(f"{case.name}-dialogue", "zh", "dialogue", case.condition.specialty, parts, text)
