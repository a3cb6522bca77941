"""Drugs, prescriptions and who must not have which.

# ruff: noqa: E501  a sentence and its translation stay on one line

A prescription in a table reads as a doctor writes it, "ceftriaxone 2g IV OD x5d"; several after " / " are alternatives in
order of preference. Doses are usual adult doses, in round numbers.
"""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from dataclasses import dataclass

# key: (english, chinese, classes); a class is what allergies, other diseases and double prescriptions are checked by
DRUGS = {
    "aspirin": ("aspirin", "阿司匹林", "antiplatelet aspirin"),
    "clopidogrel": ("clopidogrel", "氯吡格雷", "p2y12"),
    "ticagrelor": ("ticagrelor", "替格瑞洛", "p2y12"),
    "enoxaparin": ("enoxaparin", "依诺肝素", "anticoagulant"),
    "heparin": ("unfractionated heparin", "普通肝素", "anticoagulant"),
    "rivaroxaban": ("rivaroxaban", "利伐沙班", "anticoagulant"),
    "apixaban": ("apixaban", "阿哌沙班", "anticoagulant"),
    "alteplase": ("alteplase", "阿替普酶", "thrombolytic"),
    "atorvastatin": ("atorvastatin", "阿托伐他汀", "statin"),
    "rosuvastatin": ("rosuvastatin", "瑞舒伐他汀", "statin"),
    "bisoprolol": ("bisoprolol", "比索洛尔", "betablocker antihypertensive"),
    "metoprolol": ("metoprolol", "美托洛尔", "betablocker antihypertensive"),
    "propranolol": ("propranolol", "普萘洛尔", "betablocker antihypertensive"),
    "labetalol": ("labetalol", "拉贝洛尔", "betablocker antihypertensive"),
    "diltiazem": ("diltiazem", "地尔硫卓", "ccb antihypertensive"),
    "amlodipine": ("amlodipine", "氨氯地平", "ccb antihypertensive"),
    "nifedipine": ("nifedipine modified-release", "硝苯地平控释片", "ccb antihypertensive"),
    "perindopril": ("perindopril", "培哚普利", "ras acei antihypertensive"),
    "ramipril": ("ramipril", "雷米普利", "ras acei antihypertensive"),
    "valsartan": ("valsartan", "缬沙坦", "ras arb antihypertensive"),
    "losartan": ("losartan", "氯沙坦", "ras arb antihypertensive"),
    "sacubitril": ("sacubitril/valsartan", "沙库巴曲缬沙坦", "ras arb antihypertensive"),
    "furosemide": ("furosemide", "呋塞米", "loop diuretic"),
    "spironolactone": ("spironolactone", "螺内酯", "mra diuretic"),
    "dapagliflozin": ("dapagliflozin", "达格列净", "sglt2"),
    "nitroglycerin": ("glyceryl trinitrate", "硝酸甘油", "nitrate"),
    "colchicine": ("colchicine", "秋水仙碱", "colchicine"),
    "ibuprofen": ("ibuprofen", "布洛芬", "nsaid"),
    "naproxen": ("naproxen", "萘普生", "nsaid"),
    "celecoxib": ("celecoxib", "塞来昔布", "nsaid"),
    "etoricoxib": ("etoricoxib", "依托考昔", "nsaid"),
    "paracetamol": ("paracetamol", "对乙酰氨基酚", "paracetamol"),
    "morphine": ("morphine", "吗啡", "opioid"),
    "tramadol": ("tramadol", "曲马多", "opioid"),
    "amoxiclav": ("amoxicillin-clavulanate", "阿莫西林克拉维酸钾", "penicillin antibiotic"),
    "amoxicillin": ("amoxicillin", "阿莫西林", "penicillin antibiotic"),
    "flucloxacillin": ("flucloxacillin", "氟氯西林", "penicillin antibiotic"),
    "piptazo": ("piperacillin-tazobactam", "哌拉西林他唑巴坦", "penicillin antibiotic"),
    "ceftriaxone": ("ceftriaxone", "头孢曲松", "cephalosporin antibiotic"),
    "cefuroxime": ("cefuroxime", "头孢呋辛", "cephalosporin antibiotic"),
    "levofloxacin": ("levofloxacin", "左氧氟沙星", "quinolone antibiotic"),
    "moxifloxacin": ("moxifloxacin", "莫西沙星", "quinolone antibiotic"),
    "azithromycin": ("azithromycin", "阿奇霉素", "macrolide antibiotic"),
    "clarithromycin": ("clarithromycin", "克拉霉素", "macrolide antibiotic"),
    "doxycycline": ("doxycycline", "多西环素", "tetracycline antibiotic"),
    "clindamycin": ("clindamycin", "克林霉素", "lincosamide antibiotic"),
    "metronidazole": ("metronidazole", "甲硝唑", "nitroimidazole antibiotic"),
    "vancomycin": ("vancomycin", "万古霉素", "glycopeptide antibiotic"),
    "meropenem": ("meropenem", "美罗培南", "carbapenem antibiotic"),
    "cotrimoxazole": ("co-trimoxazole", "复方磺胺甲噁唑", "sulfonamide antibiotic"),
    "nitrofurantoin": ("nitrofurantoin", "呋喃妥因", "nitrofuran antibiotic"),
    "bismuth": ("bismuth subcitrate", "枸橼酸铋钾", "bismuth"),
    "tetracycline": ("tetracycline", "四环素", "tetracycline antibiotic"),
    "isoniazid": ("isoniazid", "异烟肼", "isoniazid"),
    "rifampicin": ("rifampicin", "利福平", "rifamycin"),
    "pyrazinamide": ("pyrazinamide", "吡嗪酰胺", "pyrazinamide"),
    "ethambutol": ("ethambutol", "乙胺丁醇", "ethambutol"),
    "oseltamivir": ("oseltamivir", "奥司他韦", "antiviral"),
    "valaciclovir": ("valaciclovir", "伐昔洛韦", "antiviral"),
    "aciclovir": ("aciclovir", "阿昔洛韦", "antiviral"),
    "salbutamol": ("salbutamol", "沙丁胺醇", "saba"),
    "ipratropium": ("ipratropium", "异丙托溴铵", "sama"),
    "tiotropium": ("tiotropium", "噻托溴铵", "lama"),
    "budform": ("budesonide/formoterol", "布地奈德福莫特罗", "ics"),
    "prednisolone": ("prednisolone", "泼尼松龙", "steroid"),
    "hydrocortisone": ("hydrocortisone", "氢化可的松", "steroid"),
    "methylpred": ("methylprednisolone", "甲泼尼龙", "steroid"),
    "dexamethasone": ("dexamethasone", "地塞米松", "steroid"),
    "omeprazole": ("omeprazole", "奥美拉唑", "ppi"),
    "pantoprazole": ("pantoprazole", "泮托拉唑", "ppi"),
    "octreotide": ("octreotide", "奥曲肽", "octreotide"),
    "mesalazine": ("mesalazine", "美沙拉秦", "asa5"),
    "lactulose": ("lactulose", "乳果糖", "laxative"),
    "ondansetron": ("ondansetron", "昂丹司琼", "antiemetic"),
    "metoclopramide": ("metoclopramide", "甲氧氯普胺", "antiemetic"),
    "alginate": ("sodium alginate", "海藻酸钠", "alginate"),
    "hyoscine": ("hyoscine butylbromide", "丁溴东莨菪碱", "antispasmodic"),
    "rizatriptan": ("rizatriptan", "利扎曲普坦", "triptan"),
    "levetiracetam": ("levetiracetam", "左乙拉西坦", "antiseizure"),
    "lorazepam": ("lorazepam", "劳拉西泮", "benzodiazepine"),
    "betahistine": ("betahistine", "倍他司汀", "betahistine"),
    "levodopa": ("levodopa/benserazide", "多巴丝肼", "levodopa"),
    "pregabalin": ("pregabalin", "普瑞巴林", "gabapentinoid"),
    "insulin": ("soluble insulin infusion", "短效胰岛素持续静脉泵入", "infusion"),
    "glargine": ("insulin glargine", "甘精胰岛素", "basal"),
    "aspart": ("insulin aspart", "门冬胰岛素", "bolus"),
    "metformin": ("metformin", "二甲双胍", "biguanide"),
    "gliclazide": ("gliclazide", "格列齐特", "sulfonylurea"),
    "sitagliptin": ("sitagliptin", "西格列汀", "dpp4"),
    "methimazole": ("methimazole", "甲巯咪唑", "antithyroid"),
    "levothyroxine": ("levothyroxine", "左甲状腺素", "thyroxine"),
    "saline": ("sodium chloride 0.9%", "0.9%氯化钠注射液", "fluid"),
    "calcium": ("calcium gluconate 10%", "10%葡萄糖酸钙", "calcium"),
    "potassium": ("potassium chloride", "氯化钾", "potassium"),
    "iron": ("ferrous sulfate", "硫酸亚铁", "iron"),
    "ivig": ("intravenous immunoglobulin", "静脉注射用人免疫球蛋白", "immunoglobulin"),
    "albumin": ("human albumin 20%", "20%人血白蛋白", "albumin"),
    "tamsulosin": ("tamsulosin", "坦索罗辛", "alphablocker"),
    "finasteride": ("finasteride", "非那雄胺", "reductase"),
    "allopurinol": ("allopurinol", "别嘌醇", "urate"),
    "febuxostat": ("febuxostat", "非布司他", "urate"),
    "methotrexate": ("methotrexate", "甲氨蝶呤", "methotrexate"),
    "folate": ("folic acid", "叶酸", "folate"),
    "hydroxychloroquine": ("hydroxychloroquine", "羟氯喹", "antimalarial"),
    "mycophenolate": ("mycophenolate mofetil", "吗替麦考酚酯", "mycophenolate"),
    "magnesium": ("magnesium sulfate", "硫酸镁", "magnesium"),
    "alendronate": ("alendronic acid", "阿仑膦酸钠", "bisphosphonate"),
    "vitamind": ("calcium carbonate/vitamin D3", "碳酸钙D3", "vitamind"),
    "betamethasone": ("betamethasone ointment", "倍他米松软膏", "topical"),
    "calcipotriol": ("calcipotriol ointment", "卡泊三醇软膏", "vitdtopical"),
    "hydrocort_cream": ("hydrocortisone 1% cream", "1%氢化可的松乳膏", "topical"),
    "emollient": ("emollient cream", "保湿润肤剂", "emollient"),
    "cetirizine": ("cetirizine", "西替利嗪", "antihistamine"),
    "sertraline": ("sertraline", "舍曲林", "ssri"),
    "escitalopram": ("escitalopram", "艾司西酞普兰", "ssri"),
    "guaifenesin": ("guaifenesin", "愈创甘油醚", "expectorant"),
}

ROUTES = {
    "PO": ("orally", "口服"), "IV": ("intravenously", "静脉滴注"), "IVP": ("as an intravenous bolus", "静脉注射"),
    "SC": ("subcutaneously", "皮下注射"), "IM": ("intramuscularly", "肌内注射"), "INH": ("inhaled", "吸入"),
    "NEB": ("nebulised", "雾化吸入"), "TOP": ("topically", "外用"), "SL": ("sublingually", "舌下含服"),
}  # fmt: skip

FREQUENCIES = {
    "OD": ("once daily", "每日1次", "qd"), "BID": ("twice daily", "每日2次", "bid"),
    "TID": ("three times daily", "每日3次", "tid"), "QID": ("four times daily", "每日4次", "qid"),
    "ON": ("at night", "每晚1次", "qn"), "Q4H": ("every 4 hours", "每4小时1次", "q4h"),
    "Q6H": ("every 6 hours", "每6小时1次", "q6h"), "Q8H": ("every 8 hours", "每8小时1次", "q8h"),
    "Q12H": ("every 12 hours", "每12小时1次", "q12h"), "QW": ("once weekly", "每周1次", "qw"),
    "PRN": ("as needed", "必要时", "prn"), "STAT": ("once", "立即1次", "st"),
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """One prescription: drug key, dose with unit, route, frequency, and days (0: until further notice)."""

    drug: str
    dose: str
    route: str
    frequency: str
    days: int = 0

    @property
    def classes(self):
        return DRUGS[self.drug][2].split()

    def name(self, language):
        """The drug's name in a note."""
        return DRUGS[self.drug][language == "zh"]

    def write(self, language, short=True):
        """The whole prescription: "aspirin 75 mg PO OD", or with short=False "aspirin 75 mg orally once daily"."""
        if language == "en":
            how = f"{self.route.replace('IVP', 'IV')} {self.frequency}"
            if not short:
                how = f"{ROUTES[self.route][0]} {FREQUENCIES[self.frequency][0]}"
            return f"{self.name('en')} {self.dose} {how}" + (f" for {self.days} days" if self.days else "")
        how = FREQUENCIES[self.frequency][2 if short else 1]
        dose = self.dose.replace(" units", "单位").replace(" puffs", "喷").replace(" puff", "喷")
        dose = dose.replace("thin layer", "适量").replace(" tablets", "片").replace(" sachet", "袋")
        return f"{self.name('zh')} {dose} {ROUTES[self.route][1]} {how}" + (f"，共{self.days}天" if self.days else "")


def order(text):
    """Read one prescription.

    >>> order("enoxaparin 60mg SC Q12H x5d").write("en")
    'enoxaparin 60 mg SC Q12H for 5 days'
    """
    words = text.split()
    days = int(words.pop()[1:-1]) if words[-1].startswith("x") else 0
    drug, dose, route, frequency = words[0], " ".join(words[1:-2]), words[-2], words[-1]
    head = dose.rstrip("abcdefghijklmnopqrstuvwxyz/")
    unit = dose[len(head) :]
    if head and unit and not head.endswith(" "):
        dose = f"{head} {unit}"
    return DRUGS[drug] and ROUTES[route] and FREQUENCIES[frequency] and Order(drug, dose, route, frequency, days)


def choose(text, avoid):
    """The first alternative of "a / b / c" that belongs to none of the classes to avoid, or None."""
    for alternative in text.split(" / "):
        candidate = order(alternative)
        if not any(kind in avoid for kind in candidate.classes):
            return candidate
    return None
