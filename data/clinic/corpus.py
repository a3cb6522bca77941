"""All cases in both languages, turned into the records of the two files."""

from . import chinese_pages, english_pages, talk_en, talk_zh
from .case import draw_case
from .conditions import CONDITIONS
from .dice import Dice
from .imaging import MODALITIES
from .pairs import write_pairs

# how many cases of each language: what fills the files to just under 4 MB
CASES = {"en": 458, "zh": 281}
PAIRS_PER_NOTE = 2
INPATIENT = (("admission", 0.72), ("discharge", 0.72), ("consultation", 0.4), ("radiology", 0.6), ("dialogue", 0.6))
OUTPATIENT = (("consultation", 1.0), ("radiology", 0.7), ("dialogue", 0.9))
WRITERS = {"en": (english_pages.write, talk_en.converse), "zh": (chinese_pages.write, talk_zh.converse)}


def kinds_of(case, dice):
    """Which notes were written about this patient."""
    reported = any(MODALITIES[s.modality].technique for s in case.studies)
    table = INPATIENT if case.inpatient else OUTPATIENT
    return [kind for kind, p in table if dice.chance(p) and (kind != "radiology" or reported)]


def cases(seed, sizes=None):
    """Every case with its language; the diseases take turns in a new order each round."""
    for language, count in (sizes or CASES).items():
        order = []
        for number in range(count):
            if not order:
                order = Dice(f"{seed}/{language}/{number}").shuffled(CONDITIONS)
            yield language, draw_case(f"{language}-{number:04d}", order.pop(), seed)


def build(seed=0, sizes=None):
    """(notes, pairs): lists of records; no text stands twice in either."""
    notes, pairs, seen = [], [], set()
    for language, case in cases(seed, sizes):
        write, converse = WRITERS[language]
        dice = Dice(f"{seed}/{case.name}/kinds")
        for kind in kinds_of(case, dice):
            note = converse(case, seed) if kind == "dialogue" else write(case, kind, seed)
            if note.text in seen:
                continue
            seen.add(note.text)
            notes.append(note.record())
            for pair in write_pairs(case, note, seed, dice.integer(0, PAIRS_PER_NOTE)):
                if pair["prompt"] not in seen:
                    seen.add(pair["prompt"])
                    pairs.append({"id": f"{language}-p{len(pairs):05d}", **pair})
    return notes, pairs
