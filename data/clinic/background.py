"""What a patient brings along: other diseases with their medicines, allergies, habits, work."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from dataclasses import dataclass


@dataclass(frozen=True)
class Comorbidity:
    """A long-standing disease. `tests` are results it moves, `avoid` drug classes it rules out."""

    name: str
    short: str
    since: int  # youngest age
    weight: float  # chance at 70 where the condition does not mention it
    medicines: str  # ";" all of them, " / " one of them
    tests: str = ""
    avoid: str = ""
    sex: str = ""


COMORBIDITIES = {
    "htn": Comorbidity("hypertension|高血压病", "HTN", 35, 0.4, "amlodipine 5mg PO OD / losartan 50mg PO OD"),
    "dm": Comorbidity(
        "type 2 diabetes|2型糖尿病", "T2DM", 35, 0.22, "metformin 500mg PO BID / sitagliptin 100mg PO OD",
        tests="glu 8.2-12.8, hba1c 6.8-8.9",
    ),
    "lipid": Comorbidity("hyperlipidaemia|高脂血症", "HLD", 35, 0.25, "atorvastatin 20mg PO ON / rosuvastatin 10mg PO ON"),
    "ihd": Comorbidity(
        "ischaemic heart disease|冠心病", "IHD", 48, 0.15, "aspirin 75mg PO OD / clopidogrel 75mg PO OD; atorvastatin 40mg PO ON"
    ),
    "af": Comorbidity("atrial fibrillation|心房颤动", "AF", 55, 0.1, "apixaban 5mg PO BID; bisoprolol 2.5mg PO OD / diltiazem 60mg PO TID"),
    "ckd": Comorbidity(
        "chronic kidney disease stage 3|慢性肾脏病3期", "CKD3", 50, 0.1, "amlodipine 5mg PO OD",
        tests="cr 118-158, egfr 54-34, urea 8.2-12.5", avoid="nsaid biguanide",
    ),
    "copd": Comorbidity("COPD|慢性阻塞性肺疾病", "COPD", 50, 0.1, "tiotropium 18mcg INH OD"),
    "asthma": Comorbidity("asthma|支气管哮喘", "asthma", 16, 0.08, "budform 1 puff INH BID", avoid="betablocker nsaid aspirin"),
    "hypothyroid": Comorbidity("hypothyroidism|甲状腺功能减退症", "hypothyroidism", 30, 0.08, "levothyroxine 75mcg PO OD"),
    "oa": Comorbidity("osteoarthritis|骨关节炎", "OA", 52, 0.18, "paracetamol 1g PO PRN / celecoxib 200mg PO OD"),
    "gord": Comorbidity("gastro-oesophageal reflux disease|胃食管反流病", "GORD", 28, 0.12, "omeprazole 20mg PO OD"),
    "bph": Comorbidity("benign prostatic hyperplasia|良性前列腺增生", "BPH", 55, 0.2, "tamsulosin 0.4mg PO ON", sex="M"),
    "gout": Comorbidity("gout|痛风", "gout", 40, 0.06, "allopurinol 100mg PO OD / febuxostat 40mg PO OD"),
    "osteoporosis": Comorbidity(
        "osteoporosis|骨质疏松症", "osteoporosis", 62, 0.2, "alendronate 70mg PO QW; vitamind 600mg PO OD", sex="F"
    ),
    "depression": Comorbidity("depression|抑郁症", "depression", 20, 0.07, "sertraline 50mg PO OD / escitalopram 10mg PO OD"),
    "gallstones": Comorbidity("gallstones|胆囊结石", "gallstones", 35, 0.08, ""),
    "migraine": Comorbidity("migraine|偏头痛", "migraine", 18, 0.04, ""),
    "cirrhosis": Comorbidity("cirrhosis|肝硬化", "cirrhosis", 42, 0.0, "propranolol 20mg PO BID", avoid="nsaid"),
}  # fmt: skip

# name, reaction, classes of drugs that must not be given
ALLERGIES = {
    "penicillin": (
        "penicillin|青霉素",
        "rash|皮疹; facial swelling|面部肿胀; anaphylaxis|过敏性休克",
        "penicillin cephalosporin",
    ),
    "cephalosporin": ("cephalosporins|头孢菌素", "urticaria|荨麻疹; rash|皮疹", "cephalosporin penicillin"),
    "sulfonamide": ("sulfonamides|磺胺类", "widespread rash|全身皮疹; urticaria|荨麻疹", "sulfonamide"),
    "nsaid": (
        "aspirin and other NSAIDs|阿司匹林及其他非甾体抗炎药",
        "wheeze|喘息; urticaria|荨麻疹",
        "nsaid aspirin asa5",
    ),
    "quinolone": ("levofloxacin|左氧氟沙星", "itching and rash|皮疹伴瘙痒", "quinolone"),
    "opioid": ("codeine and morphine|可待因及吗啡", "vomiting and itching|呕吐及瘙痒", "opioid"),
    "macrolide": ("clarithromycin|克拉霉素", "rash|皮疹", "macrolide"),
    "metoclopramide": ("metoclopramide|甲氧氯普胺", "acute dystonia|急性肌张力障碍", "antiemetic"),
    "seafood": ("shellfish|海鲜", "hives|荨麻疹", ""),
    "latex": ("latex|乳胶", "contact rash|接触性皮疹", ""),
}

WORK_YOUNG = (
    "secondary school teacher|中学教师; warehouse worker|仓库工人; software developer|软件工程师; bus driver|公交车司机; "
    "shop assistant|商店营业员; nurse|护士; accountant|会计; farmer|农民; cook|厨师; electrician|电工; office clerk|公司职员; "
    "hairdresser|理发师; delivery rider|外卖员; university student|大学生; construction worker|建筑工人"
)
WORK_OLD = (
    "retired teacher|退休教师; retired factory worker|退休工人; retired farmer|务农，现已退休; retired clerk|退休职员; "
    "retired driver|退休司机; retired engineer|退休工程师; retired tailor|退休裁缝"
)
HOME = (
    "lives with a partner|与配偶同住; lives alone|独居; lives with family|与家人同住; lives with a daughter|与女儿同住; "
    "shares a flat|与他人合租"
)
SURGERY = (
    "appendicectomy {n} years ago|{n}年前行阑尾切除术; inguinal hernia repair {n} years ago|{n}年前行腹股沟疝修补术; "
    "cataract surgery {n} years ago|{n}年前行白内障手术; tonsillectomy in childhood|幼时行扁桃体切除术; "
    "fracture of the ankle {n} years ago, treated in plaster|{n}年前踝部骨折，石膏固定治疗"
)
