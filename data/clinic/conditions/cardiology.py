"""Diseases of cardiology."""

from ..condition import Condition, Study

CONDITIONS = (
    Condition(
        "stemi",
        "cardiology",
        "acute inferior ST-elevation myocardial infarction|急性下壁ST段抬高型心肌梗死",
        ages="46-84",
        onset="1-10 hours",
        stay="4-8",
        smoking=0.5,
        symptoms="chest_pain sweating; nausea sob dizziness",
        absent="cough fever syncope",
        story=(
            "The pain spreads to the left arm and jaw.|疼痛向左上肢及下颌部放射。; "
            "It came on at rest and did not ease with rest or change of position."
            "|静息时突发，休息及改变体位均不能缓解。; "
            "There were shorter spells of exertional chest tightness over the past month."
            "|近1个月活动后曾有短暂胸闷发作。"
        ),
        risks="htn dm lipid",
        never="ihd af",
        avoid="nitrate ccb",
        vitals="hr 58-104, sbp 138-96, rr 17-24, spo2 97-92",
        exam=(
            "pale and clammy|面色苍白，皮肤湿冷; "
            "heart sounds normal, no murmur|心音尚可，未闻及杂音; "
            "lungs clear to auscultation|双肺呼吸音清，未闻及啰音"
        ),
        labs="tnt 90-3200, ck 280-2100, wbc 10.2-13.5, ldl 3.5-4.9",
        studies=(
            Study(
                "ecg",
                (
                    "ST-segment elevation of {mm} mm in leads II, III and aVF with reciprocal depression in I and "
                    "aVL."
                    "|II、III、aVF导联ST段抬高{mm}mm，I、aVL导联对应性压低。"
                ),
                "acute inferior myocardial infarction|急性下壁心肌梗死",
            ),
            Study(
                "echo",
                (
                    "Hypokinesia of the inferior wall. Left ventricular ejection fraction {ef}%."
                    "|左室下壁运动减弱，左室射血分数{ef}%。"
                ),
                "inferior wall motion abnormality, ejection fraction {ef}%|左室下壁节段性运动异常，射血分数{ef}%",
                "lv",
            ),
        ),
        slots={"mm": "2-4", "ef": "44-54", "vessel": "right coronary artery|右冠状动脉"},
        acute="aspirin 300mg PO STAT; ticagrelor 180mg PO STAT; heparin 5000 units IVP STAT; atorvastatin 80mg PO ON",
        home=(
            "aspirin 75mg PO OD; "
            "ticagrelor 90mg PO BID; "
            "atorvastatin 80mg PO ON; "
            "bisoprolol 2.5mg PO OD; "
            "ramipril 2.5mg PO OD"
        ),
        procedure=(
            "primary angioplasty with one drug-eluting stent to the {vessel}"
            "|{vessel}急诊介入治疗并植入药物洗脱支架1枚|0"
        ),
        measures="continuous cardiac monitoring|持续心电监护; bed rest for 24 hours|绝对卧床24小时",
        course=(
            "Pain resolved after the artery was opened and ST segments came down by more than half."
            "|血管开通后胸痛缓解，ST段回落大于50%。; "
            "No arrhythmia was seen on telemetry.|监护期间未见恶性心律失常。"
        ),
        differential="acute pericarditis|急性心包炎; aortic dissection|主动脉夹层; pulmonary embolism|肺栓塞",
        lay="a heart attack: one artery of the heart is blocked|心肌梗死，心脏的一根血管堵住了",
        advice=(
            "never stop the two antiplatelet tablets without asking|两种抗血小板药不要自行停用; "
            "stop smoking|戒烟; "
            "take part in cardiac rehabilitation|参加心脏康复"
        ),
        followup="4 weeks: cardiology clinic with echocardiogram|4周: 心内科门诊复查心脏超声",
    ),
    Condition(
        "hf",
        "cardiology",
        "acute decompensated heart failure|急性失代偿性心力衰竭",
        ages="58-90",
        onset="4-14 days",
        stay="5-11",
        symptoms="sob leg_swelling; orthopnoea exertional_sob fatigue",
        absent="chest_pain fever haemoptysis",
        story=(
            "Weight has gone up by {kg} kg since the symptoms began.|发病以来体重增加{kg}kg。; "
            "Salt restriction had lapsed in recent weeks.|近期未严格限盐。; "
            "Sleeps in a chair for the last few nights.|近几晚只能坐位入睡。"
        ),
        risks="htn ihd af dm ckd",
        avoid="nsaid ccb alphablocker",
        vitals="hr 86-118, sbp 148-108, rr 20-30, spo2 95-88",
        exam=(
            "raised jugular venous pressure|颈静脉怒张; "
            "bibasal fine crackles|双肺底可闻及细湿啰音; "
            "pitting oedema to the {level}|双下肢凹陷性水肿达{level}; "
            "third heart sound at the apex|心尖部可闻及第三心音"
        ),
        labs="bnp 2200-14500, tnt 18-46, na 136-128, cr 88-136, bili 16-34",
        studies=(
            Study(
                "cxr",
                (
                    "The heart is enlarged. Upper lobe venous diversion, Kerley B lines and small bilateral "
                    "pleural effusions."
                    "|心影增大，肺上野血管影增粗，可见Kerley B线，双侧少量胸腔积液。"
                ),
                (
                    "cardiomegaly with pulmonary venous congestion and small bilateral effusions"
                    "|心影增大伴肺淤血，双侧少量胸腔积液"
                ),
                "heart effusion lungs",
            ),
            Study(
                "echo",
                (
                    "The left ventricle is dilated with globally reduced contraction. Ejection fraction {ef}%. "
                    "Moderate functional mitral regurgitation."
                    "|左室扩大，室壁运动普遍减弱，射血分数{ef}%，二尖瓣中度功能性反流。"
                ),
                "dilated left ventricle, ejection fraction {ef}%|左室扩大，射血分数{ef}%",
                "lv valves",
            ),
        ),
        slots={"kg": "3-7", "ef": "25-38", "level": "ankles|踝部; mid-shins|小腿中段; knees|膝部"},
        acute="furosemide 40mg IVP BID; enoxaparin 40mg SC OD",
        home=(
            "furosemide 40mg PO OD; "
            "sacubitril 50mg PO BID; "
            "bisoprolol 1.25mg PO OD; "
            "spironolactone 20mg PO OD; "
            "dapagliflozin 10mg PO OD"
        ),
        measures=(
            "fluid restriction to 1.5 L a day|每日入量限制在1.5L; "
            "daily weight|每日测体重; "
            "oxygen to keep SpO2 above 94%|吸氧维持SpO2>94%"
        ),
        course=(
            "Lost {kg} kg with intravenous diuretics and could lie flat again."
            "|静脉利尿后体重下降{kg}kg，可平卧入睡。; "
            "Oedema had settled to a trace.|双下肢水肿基本消退。"
        ),
        differential="pneumonia|肺炎; COPD exacerbation|慢阻肺急性加重; pulmonary embolism|肺栓塞",
        lay=(
            "heart failure: the heart pumps too weakly and water collects in the lungs and legs"
            "|心力衰竭，心脏泵血没力气，水都积在肺里和腿上了"
        ),
        advice=(
            "weigh yourself every morning and call if you gain 2 kg in 3 days|每天早晨称体重，3天增加2kg及时就诊; "
            "keep salt below 5 g a day|每日食盐少于5g"
        ),
        followup="2 weeks: heart failure clinic with renal function and potassium|2周: 心衰门诊复查肾功能及血钾",
    ),
    Condition(
        "af",
        "cardiology",
        "atrial fibrillation with rapid ventricular response|心房颤动伴快速心室率",
        ages="55-86",
        onset="6-40 hours",
        stay="2-4",
        symptoms="palpitations dizziness; sob fatigue",
        absent="chest_pain syncope limb_weakness",
        story=(
            "The heartbeat is described as fast and irregular.|自觉心跳快而不齐。; "
            "It started after a night of poor sleep.|于夜间睡眠不佳后出现。"
        ),
        risks="htn lipid",
        never="af hf asthma",
        vitals="hr 122-164, sbp 134-104, rr 17-23, spo2 98-94",
        exam=(
            "irregularly irregular pulse|脉搏短绌，心律绝对不齐; "
            "first heart sound of varying intensity|第一心音强弱不等; "
            "lungs clear|双肺呼吸音清"
        ),
        labs="bnp 420-1900, tsh 1.0-2.4, k 4.4-3.6, tnt 6-13",
        studies=(
            Study(
                "ecg",
                (
                    "No P waves, irregular narrow-complex rhythm at a ventricular rate of about {rate}/min."
                    "|P波消失，代之以f波，QRS波不宽，心室率约{rate}次/分。"
                ),
                "atrial fibrillation with rapid ventricular response|心房颤动伴快速心室率",
            ),
            Study(
                "echo",
                (
                    "Left atrial diameter {la} mm. Ejection fraction {ef}%. No valvular stenosis."
                    "|左房前后径{la}mm，射血分数{ef}%，未见瓣膜狭窄。"
                ),
                "mild left atrial enlargement, preserved ejection fraction|左房轻度增大，左室收缩功能正常",
                "lv",
            ),
        ),
        slots={"rate": "128-160", "la": "41-48", "ef": "55-64"},
        acute="metoprolol 5mg IVP STAT / diltiazem 20mg IVP STAT; apixaban 5mg PO BID",
        home="metoprolol 25mg PO BID / diltiazem 60mg PO TID; apixaban 5mg PO BID",
        measures="continuous cardiac monitoring|持续心电监护",
        course=(
            "Ventricular rate fell below 100/min within a day.|1天内心室率降至100次/分以下。; "
            "CHA2DS2-VASc score was reviewed and anticoagulation agreed.|评估CHA2DS2-VASc评分后同意长期抗凝。"
        ),
        differential=(
            "atrial flutter|心房扑动; supraventricular tachycardia|室上性心动过速; thyrotoxicosis|甲状腺功能亢进"
        ),
        lay="an irregular heartbeat called atrial fibrillation|房颤，就是心跳乱了、不规律",
        advice=(
            "take the blood thinner every day and report bleeding|每天按时服抗凝药，有出血及时就诊; "
            "limit alcohol and coffee|少饮酒和咖啡"
        ),
        followup="4 weeks: cardiology clinic to discuss rhythm control|4周: 心内科门诊评估是否复律",
    ),
    Condition(
        "hypertension",
        "cardiology",
        "severe uncontrolled hypertension|高血压病3级（很高危）",
        ages="38-80",
        onset="2-7 days",
        stay="3-6",
        symptoms="headache dizziness; visual_blurring palpitations insomnia",
        absent="limb_weakness speech chest_pain",
        story=(
            "Home readings have been above 180 mmHg systolic.|自测收缩压多次超过180mmHg。; "
            "Tablets were stopped two months ago because the patient felt well.|2个月前因自觉无不适自行停用降压药。"
        ),
        risks="lipid dm",
        never="htn",
        avoid="nsaid",
        vitals="sbp 178-214, dbp 102-122, hr 74-98",
        exam=(
            "no neurological deficit|神经系统查体无定位体征; "
            "fundi: arteriolar narrowing without papilloedema|眼底动脉变细，无视乳头水肿; "
            "loud second heart sound|主动脉瓣区第二心音亢进"
        ),
        labs="cr 78-104, k 4.2-3.6, ldl 3.2-4.4",
        studies=(
            Study(
                "ecg",
                "Sinus rhythm with voltage criteria for left ventricular hypertrophy.|窦性心律，左室高电压。",
                "left ventricular hypertrophy|左心室肥厚",
            ),
            Study(
                "cthead",
                (
                    "No intracranial haemorrhage. Scattered periventricular low attenuation."
                    "|颅内未见出血，侧脑室旁散在低密度影。"
                ),
                "no acute bleed; small-vessel change|未见急性出血，脑小血管病改变",
                "white",
            ),
        ),
        acute="amlodipine 5mg PO OD; valsartan 80mg PO OD",
        home="amlodipine 5mg PO OD; valsartan 80mg PO OD",
        measures="blood pressure four times a day|每日测血压4次; low-salt diet|低盐饮食",
        course=(
            "Blood pressure came down by about a quarter over the first day and then gradually."
            "|首日血压下降约25%，其后逐步达标。; "
            "Headache cleared.|头痛消失。"
        ),
        differential="acute stroke|急性脑卒中; phaeochromocytoma|嗜铬细胞瘤; renal artery stenosis|肾动脉狭窄",
        lay="very high blood pressure|血压太高了",
        advice=(
            "measure blood pressure twice a day and write it down|每日早晚测血压并记录; "
            "do not stop tablets when you feel well|感觉好也不要自行停药"
        ),
        followup="2 weeks: blood pressure clinic with home readings|2周: 心内科门诊，带血压记录本复诊",
    ),
    Condition(
        "pericarditis",
        "cardiology",
        "acute pericarditis|急性心包炎",
        ages="18-55",
        onset="1-4 days",
        stay="2-4",
        symptoms="pleuritic_pain fever; myalgia fatigue sob",
        absent="syncope leg_swelling haemoptysis",
        story=(
            "The pain is worse lying down and eases on sitting forward.|平卧时疼痛加重，坐位前倾时减轻。; "
            "There was a cold two weeks earlier.|2周前有上呼吸道感染史。"
        ),
        never="ckd cirrhosis",
        avoid="anticoagulant",
        vitals="t 37.6-38.5, hr 88-108, sbp 128-112",
        exam="pericardial friction rub at the left sternal edge|胸骨左缘可闻及心包摩擦音; no pulsus paradoxus|无奇脉",
        labs="crp 28-120, wbc 9.8-13.2, esr 28-60, tnt 8-26",
        studies=(
            Study(
                "ecg",
                "Widespread concave ST elevation with PR depression.|广泛导联ST段弓背向下抬高，PR段压低。",
                "acute pericarditis|急性心包炎改变",
            ),
            Study(
                "echo",
                (
                    "Pericardial effusion of {mm} mm without chamber collapse. Ejection fraction {ef}%."
                    "|心包积液，深约{mm}mm，无心腔塌陷，射血分数{ef}%。"
                ),
                "small pericardial effusion without tamponade|少量心包积液，无填塞征象",
                "pericardium lv",
            ),
        ),
        slots={"mm": "4-9", "ef": "58-66"},
        acute="ibuprofen 600mg PO TID / prednisolone 25mg PO OD; colchicine 0.5mg PO BID; omeprazole 20mg PO OD",
        home=(
            "ibuprofen 600mg PO TID x14d / prednisolone 25mg PO OD x14d; "
            "colchicine 0.5mg PO BID x90d; "
            "omeprazole 20mg PO OD x14d"
        ),
        measures="no strenuous exercise|避免剧烈运动",
        course=(
            "Pain settled within two days.|2天内胸痛明显缓解。; "
            "Repeat echocardiogram showed no growth of the effusion.|复查心脏超声积液未增加。"
        ),
        differential="myocardial infarction|心肌梗死; pulmonary embolism|肺栓塞; pleurisy|胸膜炎",
        lay="an inflammation of the sac around the heart|心脏外面那层包膜发炎了",
        advice=(
            "avoid sport for three months|3个月内避免剧烈运动; "
            "come back if you faint or feel breathless|如晕厥或气短立即就诊"
        ),
        followup="1 week: cardiology clinic with CRP|1周: 心内科门诊复查C反应蛋白",
    ),
)
