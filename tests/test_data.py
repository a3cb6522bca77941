"""The corpus that ships with us: same bytes everywhere, honest labels, and notes that do not contradict themselves.

The medical checks read the finished text and compare it with small tables written here, not with the generator's own: a
mistake in a table of data/clinic must not be able to excuse itself.
"""

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[1] / "data"
NAMES = ("notes.jsonl", "pairs.jsonl")
TYPES = {"admission", "discharge", "radiology", "consultation", "dialogue"}
HAN = re.compile(r"[\u4e00-\u9fff]")
ISO = r"(\d{4}-\d\d-\d\d)"

# drugs a patient with this allergy (as the notes word it) must not be prescribed
FORBIDDEN = {
    r"[Pp]enicillin|青霉素过敏": "amoxicillin amoxicillin-clavulanate flucloxacillin piperacillin-tazobactam "
    "ceftriaxone cefuroxime 阿莫西林 阿莫西林克拉维酸钾 氟氯西林 头孢曲松 头孢呋辛",
    r"[Cc]ephalosporins|头孢菌素": "ceftriaxone cefuroxime 头孢曲松 头孢呋辛",
    r"[Ss]ulfonamides|磺胺类": "co-trimoxazole 复方磺胺甲噁唑",
    r"other NSAIDs|其他非甾体抗炎药": "aspirin ibuprofen naproxen celecoxib etoricoxib "
    "阿司匹林 布洛芬 萘普生 塞来昔布 依托考昔",
    r"[Cc]odeine|可待因": "morphine tramadol 吗啡 曲马多",
    r"[Cc]larithromycin \(|克拉霉素过敏": "azithromycin clarithromycin 阿奇霉素 克拉霉素",
    r"[Ll]evofloxacin \(|左氧氟沙星过敏": "levofloxacin moxifloxacin 左氧氟沙星 莫西沙星",
}

# low, high of some tests, men then women, from textbooks and not from clinic/measures.py
RANGES = {
    ("Hb", "血红蛋白"): ((130, 170), (115, 150)),
    ("Creatinine", "肌酐"): ((60, 105), (45, 84)),
    ("WBC", "白细胞"): ((4.0, 10.0), (4.0, 10.0)),
    ("Platelets", "血小板"): ((125, 350), (125, 350)),
    ("Na", "血钠"): ((135, 145), (135, 145)),
    ("K", "血钾"): ((3.5, 5.2), (3.5, 5.2)),
    ("CRP", "C反应蛋白"): ((0, 8), (0, 8)),
    ("Glucose", "血糖"): ((3.9, 7.8), (3.9, 7.8)),
    ("Urate", "血尿酸"): ((210, 420), (150, 360)),
    ("TSH", "TSH"): ((0.3, 4.5), (0.3, 4.5)),
    ("INR", "INR"): ((0.8, 1.2), (0.8, 1.2)),
}
WOMEN_ONLY = (
    r"pregnan|uterus|uterine|ovar|adnexa|menstrual|vaginal|periods|ectopic|eclampsia|caesarean|"
    r"妊娠|子宫|附件区|月经|剖宫产|宫颈|停经"
)
MEN_ONLY = r"prostat|testic|testis|scrotal|前列腺|睾丸|阴囊"
FEMALE = r"year-old woman|\bShe\b|患者，女|患者女性|^女，|[：】\n]女，"
MALE = r"year-old man|\bHe\b|患者，男|患者男性|^男，|[：】\n]男，"
# these name the other sex's disease as a thing to think of, or warn about it in general words
EXCUSED = r"(Differential|considered less likely|Less likely|鉴别|应除外|Query|\?|请除外|pregnant women|接触孕妇).*"


def load(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def notes():
    return load("notes.jsonl")


@pytest.fixture(scope="module")
def pairs():
    return load("pairs.jsonl")


@pytest.fixture(scope="module")
def generate():
    """The generator as a module; its folder is on the path only while these tests run."""
    sys.path.insert(0, str(DATA))
    yield importlib.import_module("generate")
    sys.path.remove(str(DATA))


def of(notes, *types):
    found = [n for n in notes if n["type"] in types]
    assert len(found) > 20, types  # a check of nothing proves nothing
    return found


def patient(note):
    return note["id"].rsplit("-", 1)[0]


def run(*arguments, hashseed="0"):
    env = {**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONUTF8": "1"}
    command = [sys.executable, str(DATA / "generate.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_regenerated_output_is_the_committed_bytes():
    for hashseed in ("1", "31337"):
        done = run("--check", hashseed=hashseed)
        assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


def test_check_says_no_when_a_byte_differs_or_a_file_is_missing(tmp_path):
    (tmp_path / "notes.jsonl").write_bytes((DATA / "notes.jsonl").read_bytes().replace(b"CRP", b"CRQ", 1))
    done = run("--check", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "notes.jsonl: differs" in done.stderr and "pairs.jsonl: missing" in done.stderr


def test_another_seed_gives_other_patients(generate, notes):
    sizes = {"en": 3, "zh": 3}
    first, again, other = (generate.build(seed, sizes)[0] for seed in (0, 0, 1))
    assert first == again
    assert not {n["text"] for n in first} & {n["text"] for n in other}


def test_writing_is_all_or_nothing(generate, tmp_path, monkeypatch):
    target = tmp_path / "notes.jsonl"
    generate.write(target, b"old\n")

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(generate.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        generate.write(target, b"new\n")
    assert target.read_bytes() == b"old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["notes.jsonl"]


def test_help_and_a_wrong_argument():
    assert "never medical advice" in run("--help").stdout
    assert run("--sed", "x").returncode == 2


def test_examples_in_docstrings(generate):
    for name in ("dice", "words", "drugs"):
        result = doctest.testmod(importlib.import_module(f"clinic.{name}"))
        assert result.attempted and not result.failed


def test_size():
    sizes = [(DATA / name).stat().st_size for name in NAMES]
    assert 3_500_000 <= sum(sizes) <= 4_000_000
    everything = sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert everything <= 4_200_000


def test_readme_states_what_was_measured(generate):
    def without_zlib(text):  # zlib builds differ in the last digit; the number itself is checked below
        return re.sub(r"\| \d\.\d\d \|", "| zlib |", text)

    readme = (DATA / "README.md").read_text(encoding="utf-8")
    stated = readme.split("<!-- generate.py --card -->\n")[1].split("\n<!-- end of card -->")[0]
    measured = generate.table({name: (DATA / name).read_bytes() for name in NAMES})
    assert without_zlib(stated) == without_zlib(measured)
    numbers = [[float(x) for x in re.findall(r"\| (\d\.\d\d) \|", text)] for text in (stated, measured)]
    assert len(numbers[0]) == 2 and numbers[0] == pytest.approx(numbers[1], rel=0.03)
    assert "synthetic" in readme.lower() and "never medical advice" in readme


def test_lines_fields_and_labels(notes, pairs, generate):
    for name in NAMES:
        raw = (DATA / name).read_bytes()
        assert b"\r" not in raw and b"\\u" not in raw and raw.endswith(b"}\n")
    specialties = {c.specialty for c in generate.build.__globals__["CONDITIONS"]}
    assert len(specialties) >= 8
    for n in notes:
        assert list(n) == ["id", "language", "type", "specialty", "sections", "text"]
        assert n["language"] in ("en", "zh") and n["type"] in TYPES and n["specialty"] in specialties
        assert n["id"].startswith(n["language"] + "-") and n["id"].endswith("-" + n["type"])
        at = 0
        for heading in n["sections"]:  # the headings stand in the text, in this order
            at = n["text"].index(heading, at) + len(heading)
        assert n["sections"] and "{" not in n["text"] and "None," not in n["text"]
    for p in pairs:
        assert list(p) == ["id", "note_id", "language", "task", "specialty", "prompt", "response"]
        assert p["task"] in ("qa", "instruction") and p["response"].strip()
    assert {n["specialty"] for n in notes} == specialties
    assert {(n["language"], n["type"]) for n in notes} == {(lang, t) for lang in ("en", "zh") for t in TYPES}


def test_every_condition_is_met_in_both_languages(generate, notes):
    conditions = generate.build.__globals__["CONDITIONS"]
    assert len(conditions) >= 40
    assert len({c.key for c in conditions}) == len(conditions)
    for index, language in enumerate(("en", "zh")):
        text = "\n".join(n["text"].lower() for n in notes if n["language"] == language)
        for c in conditions:
            assert c.name.split("|")[index].lower()[-8:] in text, (c.key, language)


def test_nothing_stands_twice(notes, pairs):
    for records, key in ((notes, "id"), (notes, "text"), (pairs, "id"), (pairs, "prompt")):
        values = [r[key] for r in records]
        assert len(set(values)) == len(values), key


def test_languages(notes):
    share = {}
    for language in ("en", "zh"):
        share[language] = sum(len(n["text"].encode()) for n in notes if n["language"] == language)
    assert 0.58 < share["en"] / sum(share.values()) < 0.67
    for n in notes:
        han = len(HAN.findall(n["text"]))
        if n["language"] == "en":
            assert han == 0 and n["text"].isascii(), n["id"]
        else:
            assert han > 0.35 * len(re.sub(r"[\s\d]", "", n["text"])), n["id"]
            assert not re.search(r"[a-z]{4,} [a-z]{4,}", n["text"]), n["id"]


def test_no_identifiers(notes):
    for n in notes:
        assert not re.search(r"\d{7}|@|\b(Mr|Mrs|Ms|Dr)\b|先生|女士", n["text"]), n["id"]


def test_sex_fits_the_disease(notes):
    seen = {"F": 0, "M": 0}
    sexes = {}
    for n in notes:
        text = "\n".join(re.sub(EXCUSED, "", line) for line in n["text"].split("\n"))
        female, male = bool(re.search(FEMALE, text)), bool(re.search(MALE, text))
        assert not (female and male), n["id"]
        if female or male:
            assert sexes.setdefault(patient(n), female) == female, n["id"]  # all notes of a patient agree
    for n in notes:
        text = "\n".join(re.sub(EXCUSED, "", line) for line in n["text"].split("\n"))
        if patient(n) in sexes and n["type"] in ("admission", "discharge"):
            wrong = re.search(MEN_ONLY if sexes[patient(n)] else WOMEN_ONLY, text)
            assert not wrong, (n["id"], wrong)
            seen["F" if sexes[patient(n)] else "M"] += 1
    assert min(seen.values()) > 100


def test_ages(notes):
    ages = defaultdict(set)
    for n in notes:
        for age in re.findall(r"(\d+)-year-old|患者[^。]{1,3}，(\d+)岁", n["text"]):
            ages[patient(n)].add(int("".join(age)))
    assert len(ages) > 600
    for name, found in ages.items():
        assert len(found) == 1 and 18 <= min(found) <= 92, (name, found)


def test_no_drug_against_the_stated_allergy(notes):
    told = defaultdict(str)
    for n in of(notes, "admission", "discharge", "consultation"):
        allergies = [h for h in n["sections"] if h.lower() == "allergies" or h == "过敏史"]
        for heading in allergies:
            after = n["text"].split(heading, 1)[1].lstrip("：】: \n")
            told[patient(n)] += after.split("\n")[0]
    checked = 0
    for n in notes:
        for allergy, drugs in FORBIDDEN.items():
            if re.search(allergy, told[patient(n)]):
                checked += 1
                for drug in drugs.split():
                    assert not re.search(rf"(?<![\w-]){drug} \d", n["text"], re.I), (n["id"], drug)
    assert checked > 100


def results(text, names):
    """(value, flag) of one laboratory test in a text; in English "(H)", in Chinese "↑"."""
    name = names[0] if text.isascii() else names[1]
    before, unit, mark = r"(?:^|[\n;；。：】] ?|- |\d\. |: )", r"(?: ?[^;；\n。(↑↓>→]*)", r"(\([HL]\)|[↑↓])?"
    found = re.findall(rf"{before}{name} ([\d.]+){unit}{mark}", text)
    return [(float(value), flag.translate(str.maketrans("↑↓()", "HL  ")).strip()) for value, flag in found]


def test_flags_agree_with_values(notes):
    sexes = {}
    for n in notes:
        if found := re.search(f"({FEMALE})|({MALE})", n["text"]):
            sexes[patient(n)] = 1 if found.group(1) else 0
    marks = defaultdict(int)
    for n in of(notes, "admission", "consultation"):
        for names, ranges in RANGES.items():
            if ranges[0] != ranges[1] and patient(n) not in sexes:
                continue
            low, high = ranges[sexes.get(patient(n), 0)]
            for value, mark in results(n["text"], names):
                expected = "H" if value > high else "L" if value < low else ""
                assert mark == expected, (n["id"], names[0], value, mark)
                marks[names[0], mark] += 1
    assert len({name for name, _ in marks}) == len(RANGES)
    assert sum(count for (_, mark), count in marks.items() if mark) > 300


def test_dates_add_up(notes):
    visits = {}
    for n in of(notes, "discharge"):
        days = [date.fromisoformat(x) for x in re.findall(ISO, n["text"])]
        stay = int(re.search(r"(?:Length of stay: |，共?住院)(\d+)", n["text"]).group(1))
        admitted, discharged = days[0], days[1]
        assert (discharged - admitted).days == stay >= 1, n["id"]
        assert days[-1] > discharged, n["id"]  # follow-up
        for day, number in re.findall(rf"{ISO} ?[(（](?:day |住院第)(\d+)", n["text"]):
            assert (date.fromisoformat(day) - admitted).days + 1 == int(number) <= stay + 1, n["id"]
        visits[patient(n)] = admitted, discharged, days[-1]
    compared = 0
    for n in notes:
        if patient(n) in visits and n["type"] != "discharge":
            days = [date.fromisoformat(x) for x in re.findall(ISO, n["text"])]
            admitted, discharged, back = visits[patient(n)]
            assert all(admitted <= day <= discharged or day == back for day in days), n["id"]
            compared += bool(days)
    assert compared > 300


def by_patient(notes, first, second):
    """[(note of the first type, note of the second type)] of the same patient."""
    one, two = ({patient(n): n for n in notes if n["type"] == t} for t in (first, second))
    both = [(one[p], two[p]) for p in one if p in two]
    assert len(both) > 50
    return both


def test_discharge_repeats_the_admission(notes):
    values = 0
    for admission, discharge in by_patient(notes, "admission", "discharge"):
        for name, value in re.findall(r"([A-Z][\w-]{1,11}) ([\d.]+) ?[^;>\n]*?\([HL]\) ->", discharge["text"]):
            same = re.search(rf"{name} {re.escape(value)}(?!\d)", admission["text"], re.I)
            assert same, (discharge["id"], name, value)
            values += 1
        home = admission["text"].lower()
        for drug in re.findall(r"([a-z/-]+) [\d.]+ [^\n;]*\((?:continued)\)", discharge["text"].lower()):
            if any(h in admission["sections"] for h in ("Medications on admission", "Meds", "Current medication")):
                assert drug in home, (discharge["id"], drug)
        for drug in re.findall(r"STOPPED: ([a-z]+)", discharge["text"]):
            assert not re.search(rf"{drug} \d", discharge["text"]), (discharge["id"], drug)
    assert values > 100


def test_fever_is_told_as_it_is_measured(notes):
    told = {True: 0, False: 0}
    for n in of(notes, "admission"):
        degrees = float(re.search(r"(\d\d\.\d)(?: C|℃)", n["text"]).group(1))
        denied = re.search(r"(denies|No|has been no) [^.\n]*fever|(否认|。无|病程中无)[^。]*发热", n["text"])
        first = n["text"].split(n["sections"][1])[0]  # the chief complaint
        if denied:
            assert degrees < 37.5, n["id"]
        elif "fever" in first.lower() or "发热" in first:
            assert degrees >= 37.3, n["id"]
        else:
            continue
        told[bool(denied)] += 1
    assert min(told.values()) > 20


def test_no_two_drugs_of_one_kind_to_take_home(notes):
    kinds = (
        "perindopril ramipril valsartan losartan 培哚普利 雷米普利 缬沙坦 氯沙坦",
        "atorvastatin rosuvastatin 阿托伐他汀 瑞舒伐他汀",
        "apixaban rivaroxaban 阿哌沙班 利伐沙班",
        "ibuprofen naproxen celecoxib etoricoxib 布洛芬 萘普生 塞来昔布 依托考昔",
        "bisoprolol metoprolol propranolol labetalol 比索洛尔 美托洛尔 普萘洛尔 拉贝洛尔",
        "omeprazole pantoprazole 奥美拉唑 泮托拉唑",
    )
    found = 0
    for n in of(notes, "discharge"):
        lines = re.findall(r"[^\n;；。：】]*(?:\(new\)|\(continued\)|（新加）|（继用）)", n["text"])
        for kind in kinds:
            same = [line for line in lines if any(re.search(rf"(?<!/){drug} \d", line, re.I) for drug in kind.split())]
            assert len(same) <= 1, (n["id"], same)
            found += len(same)
    assert found > 100


def test_sides_agree_from_findings_to_impression(notes):
    compared = 0
    for n in of(notes, "radiology"):
        report = n["text"].lower()
        last = report.rsplit("\n", 1)[1]
        body = re.split(r"findings|检查所见|影像所见", report)[-1].rsplit("\n", 1)[0]
        for left, right in (("left", "right"), ("左", "右")):
            for side, other in ((left, right), (right, left)):
                if side in last and other not in last and "ventric" not in last and "心" not in last:
                    assert side in body, n["id"]
                    compared += 1
    assert compared > 60


def test_findings_that_determine_the_impression(notes):
    """What a reader concludes from a finding is what the report concludes."""
    rules = {
        "airspace consolidation": "pneumonia",
        "filling defects in the": "pulmonary embolism",
        "no colour flow": "torsion",
        "实变影": "肺炎",
        "充盈缺损": "栓塞",
        "肝脏缩小，表面呈结节状": "肝硬化",
        "femoral neck": "femoral neck fracture",
    }
    met = set()
    for n in of(notes, "radiology"):
        text = n["text"].lower()
        for finding, conclusion in rules.items():
            if re.search(rf"(?<!no ){finding}", text) and "未见实变" not in text:
                assert conclusion in text.rsplit("\n", 1)[1], (n["id"], finding)
                met.add(finding)
    assert len(met) >= 5


def test_dialogues_take_turns(notes):
    for n in of(notes, "dialogue"):
        body = n["text"].split("\n\n")[0].split("\n")[1:]
        speakers = [re.match(r"(Doctor|Patient|医生|患者)[:：]", line).group(1) for line in body]
        assert speakers[0] in ("Doctor", "医生") and len(speakers) >= 12, n["id"]
        assert all(a != b for a, b in zip(speakers, speakers[1:], strict=False)), n["id"]


def test_pairs_belong_to_their_notes(notes, pairs):
    known = {n["id"]: n for n in notes}
    for p in pairs:
        note = known[p["note_id"]]
        assert (p["language"], p["specialty"]) == (note["language"], note["specialty"]), p["id"]
        if p["task"] == "qa":
            assert p["response"] in p["prompt"], p["id"]
            passage = p["prompt"].rsplit("\n\n", 1)[0]
            assert (
                p["response"] in passage
                and passage[:40] in note["text"].replace(":\n", ": ")
                or passage in note["text"]
            )


def test_instructions_are_answered_from_the_note(notes, pairs):
    known = {n["id"]: n["text"] for n in notes}
    counts = defaultdict(int)
    for p in pairs:
        prompt, response, text = p["prompt"], p["response"].rstrip(".。"), known[p["note_id"]]
        if re.match(r"Write the impression|What is the conclusion|请根据以下检查所见|请为以下影像", prompt):
            assert text.rstrip(".。").endswith(response), p["id"]
            counts["impression"] += 1
        elif re.match(r"List the abnormal|Which results are|请列出异常|哪些结果", prompt):
            listed = re.split("; |；", p["response"])
            assert all(item in prompt for item in listed), p["id"]
            assert len(listed) == len(re.findall(r"\([HL]\)|[↑↓]", prompt)), p["id"]
            counts["abnormal"] += 1
        elif re.match(r"List the discharge|Which drugs|请列出出院带药|患者出院带", prompt):
            names = [x.strip().lower() for x in re.split(r", | and |、", response)]
            lines = len(re.findall(r"\((?:new|continued)\)|（新加）|（继用）", prompt))
            assert len(names) == lines and all(x in prompt.lower() for x in names), p["id"]
            counts["drugs"] += 1
    assert len(counts) == 3 and min(counts.values()) > 20
