"""Diseases of respiratory medicine."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"
LOBE = "right lower lobe|右肺下叶; left lower lobe|左肺下叶; right middle lobe|右肺中叶; left upper lobe|左肺上叶"

CONDITIONS = (
    Condition(
        "cap",
        "respiratory medicine",
        "community-acquired pneumonia|社区获得性肺炎",
        ages="24-88",
        onset="2-6 days",
        stay="4-9",
        symptoms="productive_cough fever; sob pleuritic_pain chills fatigue anorexia",
        absent="haemoptysis leg_swelling",
        story=(
            "Sputum is rust-coloured at times.|痰液有时呈铁锈色。; "
            "It began after getting soaked in the rain.|起病前有淋雨受凉史。; "
            "A grandchild had a cold the week before.|1周前家中有人感冒。"
        ),
        risks="copd dm",
        vitals="t 38.0-39.6, hr 92-124, rr 20-32, spo2 95-87, sbp 126-98",
        exam=(
            "coarse crackles and bronchial breathing over the {lobe}|{lobe}可闻及湿啰音及管状呼吸音; "
            "dullness to percussion over the {lobe}|{lobe}叩诊浊音"
        ),
        labs="wbc 11.6-21.4, neut 78-93, crp 58-265, pct 0.32-9.00, urea 5.5-11.5",
        extra=(
            "blood cultures: no growth|血培养阴性; "
            "sputum culture: Streptococcus pneumoniae|痰培养：肺炎链球菌; "
            "urinary Legionella antigen negative|尿军团菌抗原阴性"
        ),
        studies=(
            Study(
                "cxr",
                (
                    "Patchy airspace consolidation in the {lobe} with air bronchograms."
                    "|{lobe}见斑片状实变影，内见支气管充气征。"
                ),
                "{lobe} pneumonia|{lobe}肺炎",
                "lungs",
            ),
            Study(
                "ctchest",
                (
                    "Consolidation in the {lobe} with air bronchograms; "
                    "surrounding ground-glass change.|{lobe}实变影，内见支气管充气征，周围见磨玻璃影。"
                ),
                "consolidation in the {lobe}, in keeping with pneumonia|{lobe}实变，符合肺炎",
                "lungs",
            ),
        ),
        slots={"lobe": LOBE},
        acute=(
            "ceftriaxone 2g IV OD / moxifloxacin 400mg IV OD / doxycycline 100mg PO BID; "
            "azithromycin 500mg PO OD / doxycycline 100mg PO BID"
        ),
        home="amoxiclav 625mg PO TID x5d / doxycycline 100mg PO BID x5d; guaifenesin 200mg PO TID x5d",
        measures="oxygen to keep SpO2 above 94%|吸氧维持SpO2>94%; encourage fluids|鼓励饮水",
        course=(
            "Fever settled within 48 hours of antibiotics.|抗感染治疗48小时内体温降至正常。; "
            "Oxygen was stopped on day 3.|第3天停用吸氧。"
        ),
        differential="pulmonary tuberculosis|肺结核; pulmonary embolism|肺栓塞; lung cancer|肺癌",
        lay="pneumonia, an infection in one part of the lung|肺炎，肺的一个部位感染了",
        advice="finish the whole course of antibiotics|按疗程服完抗生素; rest and drink plenty|注意休息，多饮水",
        followup="6 weeks: repeat chest X-ray|6周: 复查胸片",
    ),
    Condition(
        "copd",
        "respiratory medicine",
        "acute exacerbation of COPD|慢性阻塞性肺疾病急性加重",
        ages="54-88",
        onset="2-7 days",
        stay="4-9",
        smoking=0.95,
        symptoms="sob productive_cough; wheeze fatigue",
        absent="chest_pain haemoptysis fever",
        story=(
            "Sputum has become thicker and green.|痰量增多，变黏变绿。; "
            "Exercise tolerance fell from 300 m to a few steps.|平素可步行300米，现稍动即喘。; "
            "This is the second exacerbation this year.|为今年第2次急性加重。"
        ),
        risks="htn ihd",
        never="copd asthma",
        avoid="betablocker benzodiazepine",
        vitals="t 36.6-37.3, hr 88-116, rr 22-32, spo2 92-84",
        exam=(
            "barrel chest, prolonged expiration|桶状胸，呼气相延长; "
            "widespread expiratory wheeze|双肺散在呼气相哮鸣音; "
            "use of accessory muscles|辅助呼吸肌参与呼吸"
        ),
        labs="wbc 9.6-14.2, crp 14-85, ph 7.39-7.27, pco2 46-71, po2 68-50, hco3 27-33",
        studies=(
            Study(
                "cxr",
                (
                    "Hyperinflated lungs with flattened hemidiaphragms. No focal consolidation."
                    "|双肺过度充气，膈面低平，未见实变影。"
                ),
                "hyperinflation in keeping with COPD, no pneumonia|符合慢阻肺改变，未见肺炎",
                "lungs",
            ),
        ),
        acute=(
            "salbutamol 2.5mg NEB Q4H; "
            "ipratropium 500mcg NEB Q6H; "
            "prednisolone 30mg PO OD x5d; "
            "doxycycline 100mg PO BID x5d"
        ),
        home=(
            "tiotropium 18mcg INH OD; budform 2 puffs INH BID; salbutamol 2 puffs INH PRN; prednisolone 30mg PO OD x2d"
        ),
        measures=(
            "controlled oxygen, target SpO2 88-92%|控制性氧疗，目标SpO2 88%-92%; chest physiotherapy|协助拍背排痰"
        ),
        course=(
            "Work of breathing eased and nebulisers were changed to inhalers.|喘息缓解，由雾化改为吸入装置。; "
            "Blood gases improved on controlled oxygen.|控制性氧疗后血气改善。"
        ),
        differential="pneumonia|肺炎; heart failure|心力衰竭; pneumothorax|气胸",
        lay="a flare-up of your chronic bronchitis|慢阻肺又犯了",
        advice=(
            "stop smoking for good|彻底戒烟; "
            "have flu and pneumococcal vaccines|接种流感及肺炎疫苗; "
            "check your inhaler technique|掌握正确吸药方法"
        ),
        followup="4 weeks: chest clinic with spirometry|4周: 呼吸科门诊复查肺功能",
    ),
    Condition(
        "asthma",
        "respiratory medicine",
        "acute asthma attack|支气管哮喘急性发作",
        ages="18-58",
        onset="6-40 hours",
        stay="2-4",
        smoking=0.15,
        symptoms="wheeze sob; cough rhinorrhoea",
        absent="fever haemoptysis leg_swelling",
        story=(
            "Symptoms are worse at night and woke the patient twice.|夜间明显，曾两次憋醒。; "
            "A cat came into the home last month.|上月家中新养猫。; "
            "The preventer inhaler had run out.|控制药物已用完未续。"
        ),
        never="asthma copd gord",
        avoid="betablocker nsaid",
        vitals="hr 98-128, rr 22-32, spo2 95-90",
        exam=(
            "speaks in short phrases|说话断续; widespread polyphonic wheeze|双肺弥漫性哮鸣音; no crackles|未闻及湿啰音"
        ),
        labs="eos 0.55-1.10, ph 7.45-7.38, pco2 34-42",
        extra="peak flow {pef}% of predicted|呼气峰流速为预计值的{pef}%",
        studies=(
            Study(
                "cxr",
                "Mildly hyperinflated lungs. No pneumothorax or consolidation.|双肺轻度过度充气，未见气胸及实变。",
                "no pneumothorax or pneumonia|未见气胸及肺炎",
                "lungs",
            ),
        ),
        slots={"pef": "38-62"},
        acute="salbutamol 5mg NEB Q4H; ipratropium 500mcg NEB Q6H; prednisolone 40mg PO OD x5d",
        home="budform 2 puffs INH BID; salbutamol 2 puffs INH PRN; prednisolone 40mg PO OD x3d",
        measures="oxygen to keep SpO2 above 94%|吸氧维持SpO2>94%; peak flow chart|监测峰流速",
        course=(
            "Wheeze cleared and peak flow rose above 75% of predicted.|哮鸣音消失，峰流速升至预计值75%以上。; "
            "Inhaler technique was corrected.|已纠正吸入装置使用方法。"
        ),
        differential="pneumothorax|气胸; anaphylaxis|严重过敏反应; vocal cord dysfunction|声带功能障碍",
        lay="an asthma attack|哮喘发作了",
        advice=(
            "use the preventer inhaler every day|每天规律使用控制吸入剂; "
            "follow the written action plan|按书面哮喘行动计划处理"
        ),
        followup="2 weeks: asthma nurse review|2周: 呼吸科门诊评估哮喘控制",
    ),
    Condition(
        "pe",
        "respiratory medicine",
        "acute pulmonary embolism|急性肺血栓栓塞症",
        ages="30-82",
        onset="1-4 days",
        stay="4-7",
        symptoms="sob pleuritic_pain; calf_pain palpitations haemoptysis syncope",
        absent="fever wheeze productive_cough",
        story=(
            "There was a long-haul flight ten days before.|10天前有长途飞行史。; "
            "Mobility had been reduced after a knee injury.|因膝部外伤近期活动减少。"
        ),
        never="af",
        avoid="anticoagulant",
        vitals="hr 98-126, rr 20-30, spo2 95-87, sbp 128-102",
        exam=(
            "clear chest|双肺呼吸音清; "
            "{side} calf swollen by {cm} cm|{side}小腿周径增粗{cm}cm; "
            "loud pulmonary second sound|肺动脉瓣区第二心音亢进"
        ),
        labs="ddimer 1.60-9.50, tnt 10-68, bnp 180-2400, po2 78-56, pco2 34-29",
        studies=(
            Study(
                "ctpa",
                (
                    "Filling defects in the {side} lower lobe pulmonary artery and its segmental branches. The "
                    "right ventricle is not dilated."
                    "|{side}下肺动脉及其段级分支见充盈缺损，右心室未见扩大。"
                ),
                (
                    "acute {side} lower lobe pulmonary embolism without right heart strain"
                    "|{side}下肺动脉急性栓塞，无右心负荷增加"
                ),
                "vessels",
            ),
            Study(
                "doppler",
                (
                    "Non-compressible {side} popliteal vein with echogenic thrombus."
                    "|{side}腘静脉不可压闭，管腔内见低回声血栓。"
                ),
                "{side} popliteal deep vein thrombosis|{side}腘静脉血栓形成",
                "veins",
            ),
        ),
        slots={"side": SIDE, "cm": "2-4"},
        acute="enoxaparin 60mg SC Q12H; paracetamol 1g PO QID",
        home="rivaroxaban 15mg PO BID x21d",
        measures="oxygen to keep SpO2 above 94%|吸氧维持SpO2>94%; bed rest until anticoagulated|抗凝起效前卧床休息",
        course=(
            "Stayed haemodynamically stable and was changed to a tablet anticoagulant."
            "|血流动力学稳定，改为口服抗凝药。; "
            "Breathlessness improved from day 2.|第2天起气促好转。"
        ),
        differential="pneumonia|肺炎; pericarditis|心包炎; pneumothorax|气胸",
        lay="a blood clot in the lung|肺血管里有血栓",
        advice=(
            "after three weeks change to 20 mg once daily as instructed|3周后按医嘱改为20mg每日1次; "
            "report any bleeding|有出血及时就诊"
        ),
        followup="3 months: clinic to decide how long to anticoagulate|3个月: 门诊评估抗凝疗程",
    ),
    Condition(
        "pneumothorax",
        "respiratory medicine",
        "primary spontaneous pneumothorax|原发性自发性气胸",
        ages="18-36",
        onset="3-30 hours",
        stay="3-6",
        smoking=0.5,
        symptoms="pleuritic_pain sob; cough",
        absent="fever haemoptysis calf_pain",
        story=(
            "The pain came suddenly while lifting a box.|搬重物时突然发生。; "
            "It came on at rest, without injury.|静息时突发，无外伤。"
        ),
        never="copd asthma",
        vitals="hr 84-112, rr 18-27, spo2 97-91",
        exam=(
            "tall and thin|体型瘦高; "
            "reduced breath sounds on the {side}|{side}呼吸音减弱; "
            "hyper-resonant percussion on the {side}|{side}叩诊呈鼓音; "
            "trachea central|气管居中"
        ),
        studies=(
            Study(
                "cxr",
                (
                    "{side} pneumothorax with a visible lung edge, about {pct}% of the hemithorax. No mediastinal "
                    "shift."
                    "|{side}气胸，可见肺压缩边缘，肺组织压缩约{pct}%，纵隔无移位。"
                ),
                "{side} pneumothorax, about {pct}%, without tension|{side}气胸，压缩约{pct}%，无张力性征象",
                "lungs pneumothorax",
            ),
        ),
        slots={"side": SIDE, "pct": "30-60"},
        acute="paracetamol 1g PO QID; ibuprofen 400mg PO TID / tramadol 50mg PO TID",
        home="paracetamol 1g PO PRN",
        procedure="{side} intercostal chest drain|{side}胸腔闭式引流术|0",
        measures="high-flow oxygen|高流量吸氧; drain on underwater seal|水封瓶引流",
        course=(
            "The lung had re-expanded on X-ray and the drain was removed.|复查胸片示肺已复张，拔除引流管。; "
            "The drain stopped bubbling after two days.|2天后引流管无气泡溢出。"
        ),
        differential="pulmonary embolism|肺栓塞; pleurisy|胸膜炎; musculoskeletal pain|肌肉骨骼痛",
        lay="air that has leaked between the lung and the chest wall|气胸，气漏到肺和胸壁中间了",
        advice=(
            "no diving for life and no flights until the clinic agrees|终身避免潜水，复查前不要乘飞机; "
            "stop smoking|戒烟"
        ),
        followup="2 weeks: repeat chest X-ray|2周: 复查胸片",
    ),
)
