"""What looks like somebody's name or number: each kind seen, its look-alikes not, and no value told anywhere."""

# ruff: noqa: E501  the examples of a kind stay together

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.corpus import prepare
from minigpt.privacy.identifiers import find, luhn, resident_18

ROOT = Path(__file__).resolve().parent.parent
SEEN = {
    "e-mail address": ["write to ann.example@clinic.example.org.", "邮箱zhang_3@example.com。", "Ａnn＠example.com"],
    "Chinese resident ID": [
        "身份证号11010519491231002X，", "ID 440524188001010014", "１１０１０５１９４９１２３１００２Ｘ", "旧证 110105491231002 已换",
    ],
    "US social security number": ["SSN 078-05-1120", "078-05-1120, married", "social security number: 078051120"],
    "medical record number": [
        "MRN: 0012345", "mrn 3-8-4-9-2-0 .", "Medical record number is 123546", "住院号：００１２３４５", "病案号 A-889912",
        "门诊号:20210077",
    ],
    "bank card": ["card 4111 1111 1111 1111", "卡号6222021234567890128。", "378282246310005 paid", "5500-0055-5555-5559"],
    "date of birth": [
        "DOB 3/5/1961", "date of birth is january 15th 1962 .", "出生日期：１９６２年３月５日", "born on October 31, 2008.",
        "D.O.B.: 05-03-61", "1962年3月5日出生", "born 5 March 1961",
    ],
    "phone number": [
        "13800138000", "电话：138 0013 8000", "+86 138-0013-8000", "010-62345678", "(0571) 87654321", "call 212-555-0187",
        "(212) 555-0187", "1-800-555-0187", "+44 20 7946 0958", "tel. 555 0187 22", "fax: 62345678", "１３８００１３８０００",
    ],
    "address": ["lives at 12 Old Mill Road, Leeds", "住址：浙江省安宁县城关镇12号", "家住北京路12号", "解放大道1095号"],
    "name": [
        "Name: Ann Example", "NAME: EXAMPLE, ANN", "Patient's name: Example, Ann", "姓名：张三", "联系人：李四光，",
        "Mrs. Example reports", "seen with Dr. Example",
    ],
}  # fmt: skip
NOT = [
    "WBC 13.8 x10^9/L, Hb 138 g/L, platelets 250-300, CRP 5-10 mg/L", "amoxicillin 500 mg TID 7 days, 0.5-1 g q6h",
    "BP 138/80, HR 72, 37.5-38.5", "HIV 13800138000 copies/mL", "0.13800138000", "HBV-DNA 13800138000 IU/ml",
    "seen on 2021-03-05 at 10:30, review 05/03/2021", "出生后3天黄疸", "于2021年3月5日入院", "born at 38 weeks, 3200 g",
    "身份证号110105194912310021", "990105194912310021", "PMID 123456789012345", "1234567890123456 units in the lot",
    "4111 1111 1111 1112", "000-12-3456, 666-12-3456, 912-34-5678", "12-34-5678", "code 1078-05-1120",
    "住院号：未记录", "住院3天", "CT 64排", "MRI 1.5T", "门诊随访12个月", "hospital number of beds 12",
    "Drug name: Aspirin Protect", "generic name: Amoxicillin Clavulanate", "Name: as above", "姓名：不详", "姓名：张某某",
    "姓名：患者拒绝提供", "地址：不详", "the 4 Left Lower lobes", "2 Chest CT", "通路3期", "ICD-10 M54.5, SNOMED 22298006",
    "@ 10 ml/h", "5mg@8am", "2x10@home", "GFR 212.555", "ejection fraction 55-60%", "010-2 mg", "batch 212-555-01877",
    "Phone consultation 3 days ago", "电话随访3次", "Drs. of the ward", "Miss a dose", "mr imaging", "version 10.212.555.0187",
    "1 2 3 4 5 6 7 8 9 10 11 12", "20210305 10 30", "体温36.5℃，脉搏138次/分，血压138/80mmHg", "红细胞13800138000个/L",
    "0000 0000 0000 0000", "+1 +2 +3 oedema", "CD4+ 350 cells", "1962年3月5日起病",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SEEN.items() for text in texts])
def test_seen(kind, text):
    assert dict(find(text)) == {kind: 1}


@pytest.mark.parametrize("text", NOT)
def test_look_alikes(text):
    assert not find(text)


def test_every_wrong_check_character_is_seen():
    """ISO 7064 MOD 11-2 and Luhn find every single wrong digit: ten of eleven, nine of ten are no IDs."""
    right = "11010519491231002X"
    assert [c for c in "0123456789X" if resident_18(right[:17] + c)] == ["X"]
    card = "6222021234567890128"
    for place in range(len(card)):
        assert sum(luhn(card[:place] + str(d) + card[place + 1 :]) for d in range(10)) == 1


def test_check_characters_by_the_recursive_rule():
    """ISO 7064's other form: p = 2 (p + digit) mod 11 from the left; then (p + check) mod 11 = 1."""
    draw = random.Random(0)
    for _ in range(200):
        body = f"{draw.choice([11, 31, 44, 65])}{draw.randint(0, 9999):04}19{draw.randint(10, 99)}0{draw.randint(1, 9)}"
        body += f"1{draw.randint(0, 9)}{draw.randint(0, 999):03}"
        p = 0
        for digit in body:
            p = 2 * (p + int(digit)) % 11
        check = (1 - p) % 11
        assert resident_18(body + ("X" if check == 10 else str(check)))
        assert not resident_18(body + str((check + 1) % 10)) or check == 10


def test_a_number_counts_once_and_beside_others():
    found = find(
        "姓名：张三，身份证号11010519491231002X，电话13800138000、13900139000；Name: Ann Example; DOB 1/2/1960"
    )
    assert dict(found) == {"Chinese resident ID": 1, "date of birth": 1, "phone number": 2, "name": 2}


def written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".bin"]


def test_no_value_is_told(tmp_path):
    """On no channel and in no file but the tokens and the vocabulary, which are the text."""
    values = [
        "13800138000",
        "11010519491231002X",
        "0012345",
        "ann@example.org",
        "Zebedee",
        "4111111111111111",
        "张三丰",
    ]
    notes = [f"Name: Zebedee Example {i}, 电话 13800138000, MRN: 0012345" for i in range(5)]
    notes += ["11010519491231002X ann@example.org 4111111111111111 姓名：张三丰", *(f"no cough {i}" for i in range(30))]
    source = tmp_path / "notes.jsonl"
    source.write_text(
        "".join(json.dumps({"note": note}, ensure_ascii=False) + "\n" for note in notes), encoding="utf-8"
    )
    words = [
        sys.executable,
        ROOT / "data/prepare.py",
        source,
        tmp_path / "out",
        "--field",
        "note",
        "--vocab-size",
        "300",
    ]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0 and "has what looks like identifiers in 6 of 36 documents" in done.stderr
    assert "5 medical record number, 6 name, 5 phone number" in done.stderr
    told = done.stdout + done.stderr + (tmp_path / "out/manifest.json").read_text(encoding="utf-8")
    assert not [value for value in values if value.lower() in told.lower()]
    assert json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["identifiers"]["with"] == 6


def test_can_be_switched_off_and_on_again(tmp_path):
    source = tmp_path / "notes.jsonl"
    source.write_text("".join(json.dumps({"note": f"Name: Ann Example {i}"}) + "\n" for i in range(9)))
    options = {"field": "note", "vocab_size": 300, "progress": False}
    assert prepare(source, tmp_path / "out", **options, identifiers_check=False)["identifiers"] is None
    assert prepare(source, tmp_path / "out", **options)["identifiers"]["counts"] == {"name": 9}
