"""Diseases of infectious diseases."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "meningitis",
        "infectious diseases",
        "bacterial meningitis|细菌性脑膜炎",
        ages="18-62",
        onset="1-3 days",
        stay="10-15",
        symptoms="headache fever; neck_stiffness photophobia vomiting confusion",
        absent="seizure cough diarrhoea",
        story=(
            "An ear infection was treated the week before.|1周前有中耳炎病史。; "
            "The headache became unbearable overnight.|夜间头痛进行性加重。"
        ),
        avoid="opioid",
        vitals="t 38.6-40.1, hr 98-128, sbp 126-102, rr 18-25",
        exam=(
            "neck stiffness, Kernig's sign positive|颈强直，Kernig征阳性; "
            "no rash|未见皮疹; "
            "no focal neurological deficit|无神经系统定位体征"
        ),
        labs=(
            "wbc 14.2-24.5, neut 84-95, crp 110-320, pct 1.80-14.00, csfwbc 900-4200, csfprot 1.20-4.10, csfglu 2.2-0.8"
        ),
        extra=(
            "CSF Gram stain: Gram-positive diplococci|脑脊液涂片：革兰阳性双球菌; CSF pressure raised|脑脊液压力升高"
        ),
        studies=(
            Study(
                "cthead",
                (
                    "No mass effect, hydrocephalus or haemorrhage. Mastoid air cells partly opacified."
                    "|未见占位效应、脑积水及出血，乳突气房密度增高。"
                ),
                "no contraindication to lumbar puncture; mastoid opacification|无腰穿禁忌，乳突炎改变",
                "white",
            ),
        ),
        acute="dexamethasone 10mg IV Q6H x4d; ceftriaxone 2g IV Q12H / meropenem 2g IV Q8H; vancomycin 1g IV Q12H",
        home="paracetamol 1g PO PRN",
        procedure="lumbar puncture|腰椎穿刺术|0",
        measures="isolation for 24 hours|隔离24小时; neurological observations every 2 hours|每2小时神经系统观察",
        course=(
            "Fever and headache settled by day 4.|第4天体温正常，头痛缓解。; "
            "Antibiotics were completed in hospital.|住院期间完成抗生素疗程。; "
            "Hearing was normal to the whispered voice.|听力粗测正常。"
        ),
        differential="viral meningitis|病毒性脑膜炎; subarachnoid haemorrhage|蛛网膜下腔出血; brain abscess|脑脓肿",
        lay="meningitis, an infection of the lining of the brain|脑膜炎，脑膜感染了",
        advice="have a hearing test|复查听力; return at once with fever or drowsiness|如发热或嗜睡立即就诊",
        followup="4 weeks: infectious diseases clinic and audiometry|4周: 感染科门诊复诊并行听力检查",
    ),
    Condition(
        "cellulitis",
        "infectious diseases",
        "cellulitis of the leg|下肢蜂窝织炎",
        ages="30-84",
        onset="2-5 days",
        stay="3-6",
        symptoms="hot_leg fever; chills fatigue",
        absent="sob calf_pain joint_pain",
        story=(
            "The skin between the toes had cracked.|此前趾间皮肤皲裂。; "
            "Redness has spread by a hand's breadth since yesterday.|红肿范围较昨日扩大约一掌宽。"
        ),
        risks="dm",
        vitals="t 37.8-39.2, hr 88-114",
        exam=(
            "spreading tender erythema of the {side} lower leg, {cm} cm across"
            "|{side}小腿片状红斑，约{cm}cm，边界不清，触痛、皮温高; "
            "no crepitus or bullae|无捻发感及大疱; "
            "tinea between the toes|趾间足癣"
        ),
        labs="wbc 11.2-17.8, neut 77-90, crp 54-190",
        extra="blood cultures: no growth|血培养阴性",
        studies=(
            Study(
                "doppler",
                (
                    "Subcutaneous oedema of the {side} calf. Deep veins compressible throughout."
                    "|{side}小腿皮下软组织水肿，深静脉全程可压闭。"
                ),
                "no deep vein thrombosis; subcutaneous oedema|未见深静脉血栓，皮下水肿",
                "veins",
            ),
        ),
        slots={"side": SIDE, "cm": "12-24"},
        acute="flucloxacillin 2g IV Q6H / clindamycin 600mg IV Q8H",
        home="flucloxacillin 500mg PO QID x7d / clindamycin 300mg PO QID x7d",
        measures="mark the edge of the redness|标记红肿边界; leg elevation|抬高患肢",
        course=(
            "Redness withdrew from the marked line within two days.|2天内红肿退至标记线内。; "
            "Changed to tablets on day 3.|第3天改为口服抗生素。"
        ),
        differential="deep vein thrombosis|深静脉血栓; gout|痛风; necrotising fasciitis|坏死性筋膜炎",
        lay="an infection of the skin of the leg|腿上皮肤感染，叫蜂窝织炎",
        advice="keep the leg up|抬高患肢; treat the athlete's foot|同时治疗足癣",
        followup="1 week: check of the leg|1周: 感染科门诊复查",
    ),
    Condition(
        "tb",
        "infectious diseases",
        "pulmonary tuberculosis|肺结核",
        ages="20-74",
        onset="4-12 weeks",
        stay="8-14",
        symptoms="productive_cough night_sweats; weight_loss fever haemoptysis fatigue",
        absent="sore_throat wheeze leg_swelling",
        story=(
            "A flatmate was treated for tuberculosis last year.|去年同住者曾患肺结核。; "
            "An antibiotic course a month ago did not help.|1个月前普通抗感染治疗无效。"
        ),
        risks="dm",
        never="cirrhosis gout af lipid ihd",
        avoid="urate anticoagulant statin",
        vitals="t 37.3-38.3, hr 82-104",
        exam=(
            "thin|体型消瘦; "
            "crackles over the {side} upper zone|{side}上肺可闻及湿啰音; "
            "small cervical lymph nodes|颈部可触及小淋巴结"
        ),
        labs="esr 38-96, crp 18-74, hb 122-98, alb 38-31, alt 14-32",
        extra=(
            "sputum acid-fast bacilli positive|痰涂片抗酸杆菌阳性; "
            "Xpert MTB/RIF: rifampicin resistance not detected|Xpert MTB/RIF：未检出利福平耐药; "
            "HIV test negative|HIV抗体阴性"
        ),
        studies=(
            Study(
                "ctchest",
                (
                    "Cavitating nodules and tree-in-bud change in the {side} upper lobe; "
                    "largest cavity {mm} mm.|{side}上肺叶见多发结节及树芽征，部分空洞形成，最大约{mm}mm。"
                ),
                "active {side} upper lobe tuberculosis with cavitation|{side}上肺继发性肺结核，空洞形成",
                "lungs nodes",
            ),
            Study(
                "cxr",
                (
                    "Patchy and nodular opacities with a cavity in the {side} upper zone."
                    "|{side}上肺野斑片、结节影，内见空洞。"
                ),
                "{side} upper zone cavitating disease, suspicious of tuberculosis|{side}上肺空洞性病变，结核可能",
                "lungs",
            ),
        ),
        slots={"side": SIDE, "mm": "14-32"},
        acute="isoniazid 300mg PO OD; rifampicin 600mg PO OD; pyrazinamide 1.5g PO OD; ethambutol 750mg PO OD",
        home="isoniazid 300mg PO OD; rifampicin 600mg PO OD; pyrazinamide 1.5g PO OD; ethambutol 750mg PO OD",
        measures="airborne isolation|呼吸道隔离; contact tracing|密切接触者筛查; colour vision test|检查色觉",
        course=(
            "Cough lessened and the temperature settled in the second week.|第2周咳嗽减轻，体温正常。; "
            "Liver tests stayed normal on treatment.|治疗期间肝功能正常。"
        ),
        differential="lung cancer|肺癌; lung abscess|肺脓肿; fungal infection|肺真菌病",
        lay="tuberculosis of the lung, which can be cured|肺结核，规律治疗能治好",
        advice=(
            "take every dose for six months|坚持规律服药6个月; "
            "report yellow eyes or blurred sight|如眼黄或视物模糊及时就诊"
        ),
        followup="2 weeks: tuberculosis clinic with liver tests|2周: 结核门诊复查肝功能",
    ),
    Condition(
        "flu",
        "infectious diseases",
        "influenza A|甲型流感",
        ages="18-70",
        onset="1-2 days",
        symptoms="fever myalgia; cough sore_throat headache chills fatigue rhinorrhoea",
        absent="sob chest_pain diarrhoea",
        story=(
            "Colleagues at work have been ill.|单位同事有类似症状。; No flu vaccine this season.|本季未接种流感疫苗。"
        ),
        never="copd",
        vitals="t 38.2-39.6, hr 88-108",
        exam="red throat without exudate|咽部充血，扁桃体无渗出; lungs clear|双肺呼吸音清",
        labs="wbc 5.8-4.2, lymph 1.0-0.6, crp 6-24",
        extra="influenza A antigen positive|甲型流感抗原阳性",
        studies=(
            Study(
                "cxr",
                "Clear lungs, no consolidation.|双肺野清晰，未见实变。",
                "no pneumonia|未见肺炎",
                "lungs",
            ),
        ),
        home="oseltamivir 75mg PO BID x5d; paracetamol 500mg PO PRN",
        measures="stay at home for five days|居家休息5天",
        differential="COVID-19|新型冠状病毒感染; streptococcal pharyngitis|链球菌性咽炎; pneumonia|肺炎",
        lay="the flu|甲流",
        advice="rest and drink plenty|多休息多喝水; come back if you get breathless|如气促及时就诊",
        followup="1 week: only if not better|1周: 如无好转随诊",
    ),
)
