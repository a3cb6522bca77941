"""Diseases of urology."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "stone",
        "urology",
        "ureteric stone with renal colic|输尿管结石伴肾绞痛",
        ages="22-62",
        onset="2-12 hours",
        stay="1-3",
        symptoms="flank_pain haematuria; nausea vomiting",
        absent="fever dysuria chills",
        story=(
            "The pain comes in waves and goes to the groin.|疼痛呈阵发性，向会阴部放射。; "
            "The patient cannot lie still.|患者辗转不安。; "
            "A stone was passed five years ago.|5年前曾排出结石。"
        ),
        risks="gout",
        never="ckd",
        vitals="hr 88-110, sbp 132-152",
        exam="{side} renal angle tenderness|{side}肾区叩击痛阳性; abdomen soft|腹软，无反跳痛",
        labs="wbc 8.8-11.6, cr 74-102, urinerbc 18-120",
        studies=(
            Study(
                "ctabd",
                (
                    "Stone of {mm} mm in the {side} distal ureter with mild hydronephrosis."
                    "|{side}输尿管下段见{mm}mm高密度结石，其上输尿管及肾盂轻度扩张积水。"
                ),
                (
                    "{side} distal ureteric stone, {mm} mm, with mild hydronephrosis"
                    "|{side}输尿管下段结石（{mm}mm）伴轻度肾积水"
                ),
                "kidneys",
            ),
            Study(
                "usrenal",
                (
                    "Mild {side} hydronephrosis. Echogenic focus of {mm} mm at the vesicoureteric junction."
                    "|{side}肾轻度积水，输尿管膀胱壁内段见{mm}mm强回声。"
                ),
                "{side} ureteric stone with mild hydronephrosis|{side}输尿管结石伴轻度肾积水",
                "kidneys",
            ),
        ),
        slots={"side": SIDE, "mm": "4-8"},
        acute="ibuprofen 400mg PO TID / tramadol 100mg IM PRN / paracetamol 1g IV Q6H; ondansetron 4mg IV PRN",
        home="tamsulosin 0.4mg PO ON x28d; naproxen 500mg PO PRN / paracetamol 1g PO PRN",
        measures="strain the urine|过滤尿液留取结石",
        course="Pain settled on regular analgesia.|规律止痛后疼痛缓解。; Renal function stayed normal.|肾功能正常。",
        differential="pyelonephritis|急性肾盂肾炎; appendicitis|阑尾炎; ruptured aortic aneurysm|腹主动脉瘤破裂",
        lay="a kidney stone on its way to the bladder|输尿管结石",
        advice="drink two to three litres a day|每日饮水2到3升; come at once if you get a fever|如发热立即就诊",
        followup="4 weeks: urology clinic with imaging|4周: 泌尿外科门诊复查影像",
    ),
    Condition(
        "bph",
        "urology",
        "acute urinary retention due to benign prostatic hyperplasia|良性前列腺增生伴急性尿潴留",
        sex="M",
        ages="58-88",
        onset="6-20 hours",
        stay="2-4",
        symptoms="retention weak_stream; frequency pelvic_pain",
        absent="fever haematuria back_pain",
        story=(
            "It followed a cold remedy bought at the pharmacy.|自服感冒药后出现。; "
            "Getting up at night {n} times for a year.|近1年夜尿{n}次。"
        ),
        risks="htn",
        never="bph",
        vitals="hr 84-102, sbp 138-160",
        exam=(
            "bladder palpable to the navel|膀胱充盈，上缘平脐; "
            "smooth, enlarged prostate, no nodule|前列腺增大，表面光滑，未触及结节; "
            "no perianal numbness|会阴部感觉正常"
        ),
        labs="cr 92-128, psa 4.2-6.9",
        studies=(
            Study(
                "usrenal",
                (
                    "Prostate volume {ml} ml. Bladder wall thickened. Mild bilateral hydronephrosis."
                    "|前列腺体积约{ml}ml，膀胱壁增厚，双肾轻度积水。"
                ),
                "benign prostatic enlargement with mild back-pressure|前列腺增生，双肾轻度积水",
                "kidneys bladder",
            ),
        ),
        slots={"n": "3-5", "ml": "48-86"},
        acute="tamsulosin 0.4mg PO ON",
        home="tamsulosin 0.4mg PO ON; finasteride 5mg PO OD",
        procedure="urethral catheterisation|留置导尿术|0",
        measures="trial without catheter after three days of tamsulosin|服坦索罗辛3天后试拔尿管",
        course=(
            "Voided well after the catheter came out, residual 60 ml.|拔除尿管后排尿通畅，残余尿60ml。; "
            "Creatinine returned to normal.|肌酐恢复正常。"
        ),
        differential="prostate cancer|前列腺癌; urethral stricture|尿道狭窄; cauda equina syndrome|马尾综合征",
        lay="an enlarged prostate that blocks the way out of the bladder|前列腺增生把尿道压住了",
        advice="avoid cold remedies with decongestants|避免服含减充血剂的感冒药; do not hold your water|不要憋尿",
        followup="2 weeks: urology clinic|2周: 泌尿外科门诊复诊",
    ),
    Condition(
        "torsion",
        "urology",
        "testicular torsion|睾丸扭转",
        sex="M",
        ages="18-26",
        onset="2-6 hours",
        stay="1-3",
        symptoms="testicular_pain nausea; vomiting",
        absent="dysuria fever haematuria",
        story="The pain woke the patient from sleep.|睡眠中突发痛醒。; It began during football.|踢球时突然发生。",
        vitals="hr 86-108",
        exam=(
            "high-riding, tender {side} testis lying transversely|{side}睾丸位置上移，横位，触痛明显; "
            "cremasteric reflex absent on the {side}|{side}提睾反射消失"
        ),
        studies=(
            Study(
                "usscrotum",
                (
                    "No colour flow in the enlarged {side} testis; "
                    "twisted spermatic cord.|{side}睾丸增大，内未见血流信号，精索呈漩涡状。"
                ),
                "{side} testicular torsion|{side}睾丸扭转",
                "testes",
            ),
        ),
        slots={"side": SIDE},
        acute="morphine 5mg IVP STAT / paracetamol 1g IV Q6H; ondansetron 4mg IV PRN",
        home="paracetamol 1g PO QID x5d",
        procedure=(
            "emergency scrotal exploration, detorsion and bilateral orchidopexy"
            "|急诊阴囊探查、睾丸复位及双侧睾丸固定术|0"
        ),
        measures="nil by mouth|禁食水",
        course=(
            "The testis regained its colour after untwisting.|复位后睾丸血运恢复。; "
            "Wound clean at discharge.|出院时切口干洁。"
        ),
        differential=(
            "epididymo-orchitis|附睾睾丸炎; torsion of the appendix testis|睾丸附件扭转; incarcerated hernia|嵌顿疝"
        ),
        lay="a twisted testicle, which has to be untwisted now|睾丸扭转，必须马上手术复位",
        advice="supportive underwear for two weeks|2周内穿紧身内裤托起阴囊; no sport for four weeks|4周内不做运动",
        followup="2 weeks: wound check|2周: 泌尿外科门诊查看切口",
    ),
    Condition(
        "pyelo",
        "urology",
        "acute pyelonephritis|急性肾盂肾炎",
        sex="F",
        ages="19-78",
        onset="1-4 days",
        stay="3-6",
        symptoms="fever flank_pain; chills dysuria frequency nausea",
        absent="discharge diarrhoea cough",
        story=(
            "Burning on passing water came first.|先有排尿不适。; "
            "There was a bladder infection two months ago.|2个月前曾患膀胱炎。"
        ),
        risks="dm",
        vitals="t 38.3-39.7, hr 94-122, sbp 122-98",
        exam="{side} renal angle tenderness|{side}肾区叩击痛阳性; abdomen soft|腹软",
        labs="wbc 12.4-20.6, neut 80-93, crp 72-240, pct 0.45-6.50, urinewbc 40-220",
        extra="urine culture: Escherichia coli|尿培养：大肠埃希菌; urine nitrite positive|尿亚硝酸盐阳性",
        studies=(
            Study(
                "usrenal",
                (
                    "{side} kidney slightly enlarged. No stone, hydronephrosis or abscess."
                    "|{side}肾稍增大，未见结石、积水及脓肿。"
                ),
                "{side} pyelonephritis without obstruction|{side}肾盂肾炎改变，无梗阻",
                "kidneys",
            ),
        ),
        slots={"side": SIDE},
        acute="ceftriaxone 2g IV OD / levofloxacin 500mg IV OD / meropenem 1g IV Q8H; paracetamol 1g PO PRN",
        home="levofloxacin 500mg PO OD x7d / cefuroxime 500mg PO BID x10d / cotrimoxazole 960mg PO BID x10d",
        measures="encourage fluids|鼓励多饮水",
        course=(
            "Fever settled on day 2.|第2天体温恢复正常。; "
            "The organism was sensitive to the chosen antibiotic.|药敏提示所用抗生素敏感。"
        ),
        differential="renal colic|肾绞痛; appendicitis|急性阑尾炎; pelvic inflammatory disease|盆腔炎",
        lay="a kidney infection|肾盂肾炎，细菌感染到肾脏了",
        advice="finish the antibiotics|按疗程服完抗生素; drink plenty|多喝水，勤排尿",
        followup="2 weeks: urine culture|2周: 复查尿培养",
    ),
)
