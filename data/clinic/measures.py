"""Laboratory values and vital signs: names, units, reference ranges, and how a disease moves them.

A disease says "crp 60-260": 60 in the mildest case, 260 in the worst. Everything else stays inside the reference range.
The flag is never written down in a table; it is computed from value and range, so it cannot disagree with them.
"""

from dataclasses import dataclass

from .words import span


@dataclass(frozen=True)
class Test:
    """A laboratory test. `low`..`high` is the reference range, `women` replaces it where sexes differ, `pace` is the
    share of the way back to normal that an abnormal value goes within one admission."""

    en: str
    zh: str
    unit: str
    low: float
    high: float
    digits: int = 0
    women: tuple = ()
    pace: float = 0.85

    def range(self, sex):
        return self.women if self.women and sex == "F" else (self.low, self.high)


TESTS = {
    "wbc": Test("WBC", "白细胞", "x10^9/L", 4.0, 10.0, 1),
    "neut": Test("Neutrophils", "中性粒细胞比例", "%", 40, 75),
    "lymph": Test("Lymphocytes", "淋巴细胞计数", "x10^9/L", 1.0, 3.5, 1),
    "eos": Test("Eosinophils", "嗜酸性粒细胞", "x10^9/L", 0.02, 0.50, 2),
    "hb": Test("Hb", "血红蛋白", "g/L", 130, 170, 0, (115, 150), pace=0.3),
    "mcv": Test("MCV", "平均红细胞体积", "fL", 80, 98, pace=0),
    "plt": Test("Platelets", "血小板", "x10^9/L", 125, 350),
    "na": Test("Na", "血钠", "mmol/L", 135, 145),
    "k": Test("K", "血钾", "mmol/L", 3.5, 5.2, 1),
    "urea": Test("Urea", "尿素", "mmol/L", 2.8, 7.8, 1),
    "cr": Test("Creatinine", "肌酐", "umol/L", 60, 105, 0, (45, 84)),
    "egfr": Test("eGFR", "eGFR", "mL/min/1.73m2", 90, 130, pace=0.6),
    "glu": Test("Glucose", "血糖", "mmol/L", 3.9, 7.8, 1),
    "hba1c": Test("HbA1c", "糖化血红蛋白", "%", 4.0, 6.0, 1, pace=0),
    "ketone": Test("Beta-hydroxybutyrate", "β-羟丁酸", "mmol/L", 0.0, 0.6, 1),
    "ph": Test("Arterial pH", "动脉血pH", "", 7.35, 7.45, 2),
    "pco2": Test("PaCO2", "PaCO2", "mmHg", 35, 45),
    "po2": Test("PaO2", "PaO2", "mmHg", 80, 100),
    "hco3": Test("HCO3", "碳酸氢根", "mmol/L", 22, 27),
    "lactate": Test("Lactate", "乳酸", "mmol/L", 0.5, 2.0, 1),
    "crp": Test("CRP", "C反应蛋白", "mg/L", 0, 8),
    "pct": Test("Procalcitonin", "降钙素原", "ng/mL", 0.00, 0.10, 2),
    "esr": Test("ESR", "血沉", "mm/h", 0, 20, pace=0),
    "tnt": Test("hs-Troponin T", "超敏肌钙蛋白T", "ng/L", 0, 14),
    "bnp": Test("NT-proBNP", "NT-proBNP", "pg/mL", 0, 300),
    "ddimer": Test("D-dimer", "D-二聚体", "mg/L", 0.00, 0.50, 2),
    "inr": Test("INR", "INR", "", 0.8, 1.2, 1),
    "aptt": Test("APTT", "APTT", "s", 25, 37, pace=0),
    "alt": Test("ALT", "丙氨酸氨基转移酶", "U/L", 7, 40),
    "ast": Test("AST", "天门冬氨酸氨基转移酶", "U/L", 13, 40),
    "alp": Test("ALP", "碱性磷酸酶", "U/L", 45, 125),
    "ggt": Test("GGT", "γ-谷氨酰转移酶", "U/L", 10, 60),
    "bili": Test("Bilirubin", "总胆红素", "umol/L", 3, 21),
    "alb": Test("Albumin", "白蛋白", "g/L", 40, 55, pace=0),
    "ammonia": Test("Ammonia", "血氨", "umol/L", 10, 47),
    "amylase": Test("Amylase", "血淀粉酶", "U/L", 35, 135),
    "lipase": Test("Lipase", "脂肪酶", "U/L", 10, 60),
    "ldl": Test("LDL-C", "低密度脂蛋白胆固醇", "mmol/L", 1.5, 3.4, 1, pace=0),
    "chol": Test("Total cholesterol", "总胆固醇", "mmol/L", 2.8, 5.2, 1, pace=0),
    "tg": Test("Triglycerides", "甘油三酯", "mmol/L", 0.5, 1.7, 1),
    "tsh": Test("TSH", "TSH", "mIU/L", 0.30, 4.50, 2, pace=0),
    "ft4": Test("Free T4", "FT4", "pmol/L", 12.0, 22.0, 1, pace=0),
    "ferritin": Test("Ferritin", "铁蛋白", "ug/L", 30, 300, 0, (15, 200), pace=0),
    "ua": Test("Urate", "血尿酸", "umol/L", 210, 420, 0, (150, 360), pace=0),
    "calcium": Test("Calcium", "血钙", "mmol/L", 2.11, 2.52, 2),
    "protein": Test("24-h urinary protein", "24小时尿蛋白定量", "g", 0.00, 0.15, 2, pace=0),
    "globulin": Test("Globulin", "球蛋白", "g/L", 20, 35, pace=0),
    "rf": Test("Rheumatoid factor", "类风湿因子", "IU/mL", 0, 20, pace=0),
    "ccp": Test("Anti-CCP", "抗CCP抗体", "U/mL", 0, 17, pace=0),
    "c3": Test("Complement C3", "补体C3", "g/L", 0.80, 1.60, 2, pace=0),
    "hcg": Test("beta-hCG", "血β-hCG", "IU/L", 0, 5),
    "psa": Test("PSA", "PSA", "ng/mL", 0.0, 4.0, 1, pace=0),
    "ck": Test("CK", "肌酸激酶", "U/L", 40, 200),
    "csfwbc": Test("CSF white cells", "脑脊液白细胞", "x10^6/L", 0, 5, pace=0),
    "csfprot": Test("CSF protein", "脑脊液蛋白", "g/L", 0.15, 0.45, 2, pace=0),
    "csfglu": Test("CSF glucose", "脑脊液葡萄糖", "mmol/L", 2.5, 4.5, 1, pace=0),
    "urinewbc": Test("Urine white cells", "尿白细胞", "/HPF", 0, 5),
    "urinerbc": Test("Urine red cells", "尿红细胞", "/HPF", 0, 3),
}

ROUTINE = ("wbc", "hb", "plt", "na", "k", "cr", "glu", "alt", "crp", "urea")

VITALS = {"t": (36.2, 36.9), "hr": (64, 88), "rr": (13, 18), "sbp": (112, 134), "dbp": (66, 82), "spo2": (99, 96)}


def flag(key, value, sex):
    """ "H", "L" or "" for a value against the reference range of that sex."""
    low, high = TESTS[key].range(sex)
    return "H" if value > high else "L" if value < low else ""


def shown(key, value):
    """The number as it stands in every note."""
    return f"{value:.{TESTS[key].digits}f}"


def parse(text):
    """{"crp": (60.0, 260.0), ...} of "crp 60-260, wbc 11-21"."""
    return {part.split()[0]: span(part.split()[1]) for part in text.split(",") if part.strip()}


def draw(bounds, severity, dice, digits=0):
    """A value between mild and severe, near the case's severity, rounded as it will be printed."""
    share = min(1.0, max(0.0, severity + dice.between(-0.15, 0.15)))
    return round(bounds[0] + (bounds[1] - bounds[0]) * share, digits)


def normal(key, sex, dice):
    """An unremarkable value: inside the reference range, away from its ends."""
    low, high = TESTS[key].range(sex)
    return round(dice.between(low + 0.12 * (high - low), low + 0.85 * (high - low)), TESTS[key].digits)


def recovered(key, value, sex, dice):
    """The value before discharge: an abnormal one has moved back by about its `pace`."""
    if not TESTS[key].pace or not flag(key, value, sex):
        return value
    low, high = TESTS[key].range(sex)
    share = min(1.0, TESTS[key].pace + dice.between(-0.12, 0.15))
    goal = dice.between(low + 0.5 * (high - low), high) if value > high else dice.between(low, low + 0.5 * (high - low))
    return round(value + (goal - value) * share, TESTS[key].digits)
