"""Diseases of nephrology."""

from ..condition import Condition, Study

CONDITIONS = (
    Condition(
        "aki",
        "nephrology",
        "acute kidney injury from volume depletion|急性肾损伤（肾前性）",
        ages="50-86",
        onset="2-5 days",
        stay="4-8",
        symptoms="oliguria vomiting; diarrhoea dizziness fatigue",
        absent="flank_pain haematuria frothy_urine",
        story=(
            "Ate little and drank little during a stomach upset.|因胃肠不适进食、饮水少。; "
            "Passed urine only twice since yesterday.|昨日至今仅排尿2次。"
        ),
        risks="htn dm",
        never="ckd hf",
        avoid="nsaid ras diuretic biguanide antihypertensive",
        vitals="hr 92-118, sbp 110-86, dbp 64-50",
        exam=(
            "dry mucous membranes, reduced skin turgor|口唇干燥，皮肤弹性差; "
            "jugular veins flat|颈静脉塌陷; "
            "no oedema|双下肢无水肿"
        ),
        labs="cr 210-520, urea 14.0-34.0, k 4.9-6.1, hco3 21-15, egfr 28-9",
        extra="urine sodium 12 mmol/L|尿钠12mmol/L; urine sediment bland|尿沉渣无异常",
        studies=(
            Study(
                "usrenal",
                (
                    "Kidneys of normal size and echogenicity. No hydronephrosis. Bladder almost empty."
                    "|双肾大小、回声正常，未见肾积水，膀胱充盈欠佳。"
                ),
                "no obstruction|未见尿路梗阻",
                "bladder kidneys",
            ),
        ),
        acute="saline 2000ml IV OD; ondansetron 4mg IV PRN",
        home="",
        measures="hourly urine output|记录每小时尿量; stop nephrotoxic drugs|停用肾毒性药物",
        course=(
            "Urine output recovered within 24 hours of fluids.|补液24小时内尿量恢复。; "
            "Creatinine fell steadily.|肌酐逐渐下降。"
        ),
        differential=(
            "acute tubular necrosis|急性肾小管坏死; urinary obstruction|尿路梗阻; glomerulonephritis|急进性肾小球肾炎"
        ),
        lay="kidneys that are not working because the body dried out|脱水引起的急性肾损伤",
        advice=(
            "drink rehydration fluid during a stomach upset|呕吐腹泻时及时补液; "
            "avoid anti-inflammatory painkillers|不用消炎止痛药"
        ),
        followup="1 week: creatinine and potassium|1周: 复查肌酐及血钾",
    ),
    Condition(
        "nephrotic",
        "nephrology",
        "nephrotic syndrome due to membranous nephropathy|肾病综合征（膜性肾病）",
        ages="32-72",
        onset="2-8 weeks",
        stay="6-10",
        symptoms="leg_swelling frothy_urine; periorbital_oedema fatigue weight_gain",
        absent="haematuria fever joint_pain",
        story="Shoes no longer fit in the evening.|傍晚时鞋子穿不进。; Weight rose by {kg} kg.|体重增加{kg}kg。",
        risks="htn",
        never="hf ckd cirrhosis",
        avoid="nsaid",
        vitals="sbp 132-156, dbp 80-96",
        exam=(
            "pitting oedema to the knees|双下肢膝以下凹陷性水肿; "
            "puffy eyelids|眼睑水肿; "
            "no shifting dullness|移动性浊音阴性"
        ),
        labs="alb 28-17, protein 4.20-11.50, chol 6.8-11.2, tg 2.1-4.8, cr 76-102",
        extra=(
            "anti-PLA2R antibody positive|抗PLA2R抗体阳性; renal biopsy: membranous nephropathy|肾穿刺病理：膜性肾病"
        ),
        studies=(
            Study(
                "usrenal",
                (
                    "Both kidneys slightly enlarged with mildly increased echogenicity. Renal veins patent."
                    "|双肾稍增大，实质回声稍增强，肾静脉血流通畅。"
                ),
                "medical renal disease, renal veins patent|双肾弥漫性病变，肾静脉通畅",
                "kidneys",
            ),
        ),
        slots={"kg": "4-9"},
        acute="furosemide 40mg IVP OD; enoxaparin 40mg SC OD; valsartan 80mg PO OD",
        home="valsartan 80mg PO OD; furosemide 40mg PO OD; atorvastatin 20mg PO ON; prednisolone 30mg PO OD",
        procedure="ultrasound-guided renal biopsy|超声引导下肾穿刺活检术|2",
        measures="low-salt diet|低盐饮食; daily weight|每日测体重",
        course=(
            "Oedema improved and weight fell by {kg} kg.|水肿消退，体重下降{kg}kg。; "
            "No bleeding after the biopsy.|穿刺后无出血。"
        ),
        differential="diabetic nephropathy|糖尿病肾病; minimal change disease|微小病变型肾病; amyloidosis|淀粉样变性",
        lay="kidneys that leak protein into the urine|肾脏漏蛋白，就是肾病综合征",
        advice="weigh yourself daily|每日称体重; avoid infections while on steroids|服激素期间注意预防感染",
        followup="2 weeks: renal clinic with urine protein|2周: 肾内科门诊复查尿蛋白",
    ),
)
