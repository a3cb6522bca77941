"""Diseases of obstetrics and gynaecology."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "preeclampsia",
        "obstetrics and gynaecology",
        "severe pre-eclampsia|重度子痫前期",
        sex="F",
        ages="21-42",
        onset="1-4 days",
        stay="5-9",
        smoking=0.02,
        symptoms="headache visual_blurring; leg_swelling epigastric_pain nausea",
        absent="vaginal_bleeding fever seizure",
        story=(
            "The patient is {wk} weeks pregnant.|患者现孕{wk}周。; "
            "Fetal movements are as usual.|自觉胎动正常。; "
            "First pregnancy.|初孕。"
        ),
        never="htn dm lipid ihd af ckd gout",
        avoid="ras nsaid statin",
        vitals="sbp 162-184, dbp 108-120, hr 82-102",
        exam=(
            "brisk knee reflexes, two beats of clonus|膝反射亢进，踝阵挛2次; "
            "fundal height in keeping with dates|宫高与孕周相符; "
            "oedema of hands and legs|双手及双下肢水肿"
        ),
        labs="plt 142-82, alt 46-165, ast 48-150, protein 2.20-6.40, ua 370-520, hb 118-108, alb 36-28",
        extra="cardiotocography reassuring|胎心监护有反应型",
        studies=(
            Study(
                "usob",
                (
                    "Single live fetus, estimated weight {g} g. Normal umbilical artery flow. Amniotic fluid index "
                    "{afi} cm."
                    "|单活胎，估计胎儿体重{g}g，脐动脉血流正常，羊水指数{afi}cm。"
                ),
                "live fetus with normal umbilical flow|单活胎，脐血流正常",
                "fetus",
            ),
        ),
        slots={"wk": "35-37", "g": "2150-2750", "afi": "9-14"},
        acute="labetalol 50mg IVP STAT / nifedipine 30mg PO OD; magnesium 4g IVP STAT",
        home="labetalol 100mg PO TID / nifedipine 30mg PO OD; iron 200mg PO OD",
        procedure="caesarean section with a live baby|剖宫产术，娩一活婴|1",
        measures="hourly reflexes and urine output|每小时监测膝反射及尿量; fetal monitoring|胎心监护",
        course=(
            "Blood pressure stayed below 150/100 after delivery.|产后血压控制在150/100mmHg以下。; "
            "Mother and baby were well.|母婴情况良好。"
        ),
        differential=(
            "gestational hypertension|妊娠期高血压; HELLP syndrome|HELLP综合征; chronic kidney disease|慢性肾病"
        ),
        lay="pre-eclampsia: the pregnancy has driven the blood pressure up|子痫前期，怀孕引起的血压升高",
        advice="measure blood pressure daily|每天测血压; come at once with headache or flashes|头痛、眼花立即就诊",
        followup="1 week: postnatal blood pressure check|1周: 产后门诊复查血压",
    ),
    Condition(
        "ectopic",
        "obstetrics and gynaecology",
        "tubal ectopic pregnancy|输卵管妊娠",
        sex="F",
        ages="20-42",
        onset="1-4 days",
        stay="2-4",
        symptoms="pelvic_pain vaginal_bleeding; missed_period dizziness nausea",
        absent="fever dysuria diarrhoea",
        story=(
            "The last period was {wk} weeks ago.|末次月经距今{wk}周。; "
            "A home pregnancy test was positive.|自测尿妊娠试验阳性。"
        ),
        never="htn dm lipid ihd af ckd osteoporosis",
        vitals="hr 88-118, sbp 116-94",
        exam=(
            "tenderness in the {side} iliac fossa|{side}下腹压痛; "
            "cervical motion tenderness|宫颈举痛; "
            "uterus not enlarged|子宫未见明显增大"
        ),
        labs="hcg 1250-6800, hb 118-92",
        studies=(
            Study(
                "uspelvis",
                (
                    "Empty uterus. {side} adnexal ring-like mass of {mm} mm and a little free fluid."
                    "|宫腔内未见孕囊，{side}附件区见{mm}mm环状包块，盆腔少量积液。"
                ),
                "{side} tubal pregnancy|{side}输卵管妊娠可能性大",
                "uterus adnexa",
            ),
        ),
        slots={"side": SIDE, "mm": "16-34", "wk": "6-8"},
        acute="saline 1000ml IV STAT; paracetamol 1g IV Q6H",
        home="iron 200mg PO OD x28d; paracetamol 1g PO PRN",
        procedure="laparoscopic {side} salpingectomy|腹腔镜{side}输卵管切除术|0",
        measures="crossmatch two units|交叉配血2单位; nil by mouth|禁食水",
        course=(
            "The tube had not ruptured and little blood was lost.|术中见输卵管未破裂，出血少。; "
            "beta-hCG fell by more than half.|术后β-hCG下降超过一半。"
        ),
        differential="threatened miscarriage|先兆流产; ovarian torsion|卵巢囊肿蒂扭转; appendicitis|急性阑尾炎",
        lay="a pregnancy that has settled in the tube instead of the womb|宫外孕，胚胎着床在输卵管里了",
        advice=(
            "weekly blood test until it is negative|每周查hCG至转阴; early scan in any next pregnancy|再次怀孕尽早做B超"
        ),
        followup="1 week: beta-hCG|1周: 复查β-hCG",
    ),
    Condition(
        "pid",
        "obstetrics and gynaecology",
        "pelvic inflammatory disease|盆腔炎性疾病",
        sex="F",
        ages="18-40",
        onset="3-8 days",
        stay="3-6",
        symptoms="pelvic_pain discharge; fever dysuria nausea",
        absent="missed_period haematuria diarrhoea",
        story=(
            "A coil was fitted a month ago.|1个月前放置宫内节育器。; Pain is worse during intercourse.|性交时疼痛加重。"
        ),
        vitals="t 37.8-38.9, hr 86-108",
        exam=(
            "cervical motion tenderness|宫颈举痛; "
            "bilateral adnexal tenderness|双侧附件区压痛; "
            "purulent cervical discharge|宫颈口脓性分泌物"
        ),
        labs="wbc 11.4-17.2, crp 34-140, hcg 0-2",
        studies=(
            Study(
                "uspelvis",
                (
                    "Thickened fluid-filled tubes on both sides, no abscess. Uterus normal."
                    "|双侧输卵管增粗、积液，未见脓肿，子宫未见异常。"
                ),
                "salpingitis without abscess|双侧输卵管炎，未见脓肿",
                "adnexa",
            ),
        ),
        acute=(
            "ceftriaxone 1g IV OD / clindamycin 900mg IV Q8H; "
            "doxycycline 100mg PO BID x14d; "
            "metronidazole 500mg IV Q12H"
        ),
        home="doxycycline 100mg PO BID x10d; metronidazole 400mg PO BID x10d",
        measures="partner treatment|性伴侣同治",
        course=(
            "Pain and fever settled by day 3.|第3天腹痛、发热缓解。; Chlamydia test was positive.|衣原体检测阳性。"
        ),
        differential="ectopic pregnancy|异位妊娠; appendicitis|急性阑尾炎; ovarian cyst accident|卵巢囊肿破裂",
        lay="an infection of the womb and tubes|盆腔炎",
        advice="no intercourse until both are treated|双方治愈前禁性生活; finish all tablets|按疗程服完药",
        followup="2 weeks: gynaecology clinic|2周: 妇科门诊复诊",
    ),
)
