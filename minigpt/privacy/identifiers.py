"""Does a text look as if it named somebody?  Counted by kind, in English and Chinese; the values are never kept.

Each kind is a pattern and, where numbers are made to be checked, the check:

resident ID   d1 ... d17 c: a province, a date, and sum_i d_i 2^(18-i) + c = 1 (mod 11), X = 10   ISO 7064 MOD 11-2
              GB 11643-1999; the fifteen digits of before have a province and a date, but nothing to check
bank card     every second digit from the right, the last left out, doubled and 9 taken off if above 9: sum = 0 (mod 10)
the others    the form of the number, and often a word before it: a date is no date of birth, a dose no telephone

A heuristic, made so that a result or a dose is seldom counted. It sees no name that stands in a sentence.
"""

import re
from calendar import monthrange
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

# As written by a Chinese keyboard; not NFKC, which makes digits of ① and ² too.
_WIDE = {ord("０") + i: str(i) for i in range(10)} | {ord("Ａ") + i: chr(65 + i) for i in range(26)}
_WIDE |= {ord("ａ") + i: chr(97 + i) for i in range(26)}
_WIDE |= dict(zip(map(ord, "：－—＠＋．／（）＃　"), ":--@+./()# ", strict=True))

_COLON = r"[ \t]*(?:[:=#]|is|was|为|是)?[ \t]*"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    r"(?:(?:19|20)\d\d[ ]?[-/.年][ ]?\d{1,2}(?:[ ]?[-/.月][ ]?\d{1,2}日?|月)|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d\d"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ -]{_MONTH}[ ,.-]+\d{{2,4}}|{_MONTH}[ .]+\d{{1,2}}(?:st|nd|rd|th)?,?[ ]+\d{{4}}"
    r"|(?:19|20)\d{6})(?!\d)"
)
_NOT_INSIDE = r"(?<![\d.,:/_A-Za-z-])"  # a number that is no part of a longer one
_ENDS = r"(?![\d_A-Za-z]|[-.,/][\d])"
_UNIT = r"(?![ ]?(?:[%‰×^/]|x[ ]?10|copies|拷贝|单位|个|次|元|iu\b|u\b|cfu|cells|mg|ml|[kmµu]?g\b|l\b))"
_PROVINCES = {11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46}
_PROVINCES |= {50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83}
_HAN = r"\u3400-\u9fff"
_NOBODY = r"(?!.{0,3}[某×xX*＊_]|不详|未|无|保密|同上|匿名|略|隐去|已|性别|年龄|患者|职业)"
_TITLE = r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\b\.?[ ]"
_WHOSE = r"(?:patient|pt|full|first|last|family|given|maiden|mother|father|guardian|contact|doctor|physician|nurse)"


def resident_18(number: str) -> bool:
    """Whether eighteen digits (the last perhaps X) are a Chinese resident ID.

    >>> resident_18("11010519491231002X"), resident_18("110105194912310021"), resident_18("990105194912310021")
    (True, False, False)
    """
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(number[:17]))
    check = 10 if number[17] in "xX" else int(number[17])
    return (total + check) % 11 == 1 and int(number[:2]) in _PROVINCES and _is_day(number[6:14])


def resident_15(number: str) -> bool:
    """Whether fifteen digits could be one of before 1999."""
    return int(number[:2]) in _PROVINCES and _is_day("19" + number[6:12])


def luhn(number: str) -> bool:
    """Whether the digits, blanks and dashes left out, check as those of a card do.

    >>> luhn("4111 1111 1111 1111"), luhn("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(d) for d in number if d.isdigit()][::-1]
    doubled = [2 * d - 9 * (d > 4) for d in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _is_day(text: str) -> bool:
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:])
    return 1880 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]


class Kind(NamedTuple):
    """A pattern, and what its match must be besides."""

    name: str
    pattern: re.Pattern
    holds: Callable[[str], bool] | None = None


def _kind(name: str, *patterns: str, holds: Callable[[str], bool] | None = None, flags: int = re.I) -> Kind:
    return Kind(name, re.compile("|".join(patterns), flags | re.M), holds)


# In this order, and what one has found the next does not see: a resident ID holds a date, a card may hold a telephone.
KINDS = (
    _kind("e-mail address", r"(?<![a-zA-Z0-9_.+-])[a-z0-9_.+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24}(?![a-z\d])"),
    _kind("Chinese resident ID", rf"{_NOT_INSIDE}\d{{17}}[\dxX]{_ENDS}", holds=resident_18),
    _kind("Chinese resident ID", rf"{_NOT_INSIDE}\d{{15}}{_ENDS}", holds=resident_15),
    _kind(
        "medical record number",
        rf"\b(?:mrn|m\.r\.n\.?|(?:medical[ ]record|hospital|chart|nhs|patient[ ]id|patient|admission|encounter)[ ]?"
        rf"(?:number|no\b\.?|num\b|#|id\b)|patient[ ]id){_COLON}(?:[a-z]{{0,3}}-?)?\d[\d -]{{2,}}\d",
        rf"(?:病历|病案|住院|门诊|登记|就诊卡?|就诊流水|医保卡?|社保卡?|诊疗卡|影像|检查|病理|X线|CT|MRI?)(?:编?号码?|ID)"
        rf"{_COLON}[a-z]{{0,3}}-?\d[\d-]{{2,}}\d",
    ),
    _kind("US social security number",
          rf"{_NOT_INSIDE}(?!000|666|9\d\d)\d{{3}}-(?!00)\d\d-(?!0000)\d{{4}}{_ENDS}",
          rf"\b(?:ssn|social[ ]security(?:[ ](?:number|no\.?))?){_COLON}\d{{3}}[ -]?\d\d[ -]?\d{{4}}{_ENDS}"),
    _kind("bank card", rf"{_NOT_INSIDE}[3-6]\d{{3}}(?:[ -]?\d{{4}}){{2}}(?:[ -]?\d{{2,4}})(?:[ -]?\d{{1,3}})?{_ENDS}",
          holds=luhn),
    _kind(
        "date of birth",
        rf"\b(?:d\.?o\.?b\b\.?|date[ ]of[ ]birth|birth[ ]?(?:date|day)|born(?:[ ]on)?){_COLON}{_DATE}",
        rf"(?:出生日期|出生年月日?|出生时间|生日|出生于|生于){_COLON}{_DATE}",
        rf"{_DATE}[ ]?出生",
    ),
    _kind(
        "phone number",
        rf"{_NOT_INSIDE}(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_ENDS}{_UNIT}",
        rf"{_NOT_INSIDE}(?:0(?:10|2\d|[3-9]\d\d)-|\(0(?:10|2\d|[3-9]\d\d)\)[ ]?)[2-9]\d{{6,7}}{_ENDS}",
        rf"{_NOT_INSIDE}(?:\+?1[-. ])?(?:\([2-9]\d\d\)[ ]?[2-9]\d\d[-. ]|[2-9]\d\d(?P<_>[-.])[2-9]\d\d(?P=_))"
        rf"\d{{4}}{_ENDS}",
        r"(?<![\w+])\+[1-9]\d{0,2}(?:[ -]?\(?\d{2,4}\)?){2,5}(?![\d])(?<=\d)",
        rf"(?:\b(?:tele?phone|phone|tel|fax|mobile|cell|pager)\b\.?[ ]?(?:number|no\b\.?)?|电话|手机|联系方式|传真)"
        rf"(?:号码?)?{_COLON}\(?\d[\d ()-]{{5,14}}\d(?!\d)",
    ),
    _kind(
        "address",
        r"\b\d{1,5}[ ](?:[A-Z][a-z]+[ ]){1,3}(?:Street|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Terrace)\b",
        rf"(?:(?:家庭|现|户籍|通讯|联系)?(?:住址|地址)):[ ]*{_NOBODY}[{_HAN}][{_HAN}\dA-Za-z-]{{4,}}",
        rf"[{_HAN}]{{2,8}}(?:路|街|大道|巷|弄|胡同|小区)\d{{1,5}}(?:号|弄|栋|幢|单元)(?!线)",
        flags=0,
    ),
    _kind(
        "name",
        rf"(?:^|[;,.|\t；，。])[ \t]*(?:(?i:{_WHOSE})(?:'s)?[ ])?(?i:name):[ \t]*(?:{_TITLE})?"
        r"[A-Z][A-Za-z'-]+[ ,]+[A-Z][A-Za-z'-]*",
        rf"{_TITLE}(?!Name)[A-Z][a-z'-]+",
        rf"(?:姓名|联系人|家属签名|医师签名|患者签名|签名|经治医师|主治医师|主管医师)[ ]*:[ ]*{_NOBODY}"
        rf"[{_HAN}]{{2,4}}(?![{_HAN}])",
        flags=0,
    ),
)  # fmt: skip


def find(text: str) -> Counter:
    """How many of each kind the text seems to hold.

    >>> dict(find("Name: Ann Example, tel 212-555-0187; WBC 13.8, seen 2021-03-05"))
    {'phone number': 1, 'name': 1}
    >>> dict(find("住院号：００１２３４５，电话 13800138000，血小板 138×10^9/L"))
    {'medical record number': 1, 'phone number': 1}
    """
    counts, text = Counter(), text.translate(_WIDE)
    for kind in KINDS:

        def replaced(match: re.Match, kind: Kind = kind) -> str:
            if kind.holds is not None and not kind.holds(match[0]):
                return match[0]
            counts[kind.name] += 1
            return " | "

        text = kind.pattern.sub(replaced, text)
    return counts


class Tally:
    """What `find` found in many texts: sums, and in how many texts; no text, no place, no value.

    >>> tally = Tally(); tally.add("DOB: 03/05/1961"); tally.add("no cough"); tally.record()
    {'texts': 2, 'with': 1, 'counts': {'date of birth': 1}}
    """

    def __init__(self):
        self.texts = self.found_in = 0
        self.counts = Counter()

    def add(self, text: str) -> None:
        found = find(text)
        self.texts += 1
        self.found_in += bool(found)
        self.counts += found

    def record(self) -> dict:
        return {"texts": self.texts, "with": self.found_in, "counts": dict(sorted(self.counts.items()))}


def warning(record: dict | None) -> str:
    """One sentence for a person, of a tally's record; empty if it found nothing.

    >>> warning({"texts": 9, "with": 2, "counts": {"name": 2}})
    'has what looks like identifiers in 2 of 9 documents: 2 name: remove them first; a model can repeat them'
    """
    if not record or not record["counts"]:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in record["counts"].items())
    where = f"{record['with']:,} of {record['texts']:,} documents"
    return f"has what looks like identifiers in {where}: {kinds}: remove them first; a model can repeat them"
