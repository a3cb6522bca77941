"""Diseases of haematology."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "ida",
        "haematology",
        "iron deficiency anaemia from heavy menstrual bleeding|缺铁性贫血（月经过多所致）",
        sex="F",
        ages="20-48",
        onset="2-6 months",
        symptoms="fatigue menorrhagia; pallor dizziness exertional_sob hair_loss",
        absent="melaena weight_loss fever",
        story="Periods last eight days with clots.|经期持续8天，伴血块。; The patient craves ice.|近来喜嚼冰块。",
        avoid="nsaid anticoagulant",
        vitals="hr 84-104",
        exam=(
            "pale conjunctivae|睑结膜苍白; "
            "spoon-shaped nails|反甲; "
            "soft systolic flow murmur|心尖部可闻及柔和收缩期杂音; "
            "spleen not palpable|脾肋下未触及"
        ),
        labs="hb 98-62, mcv 74-60, ferritin 11-3, plt 320-430",
        studies=(
            Study(
                "uspelvis",
                (
                    "Uterus contains a {mm} mm intramural fibroid. Endometrium 8 mm. Ovaries normal."
                    "|子宫肌壁间见{mm}mm低回声结节，内膜厚8mm，双侧卵巢未见异常。"
                ),
                "uterine fibroid|子宫肌瘤",
                "uterus",
            ),
        ),
        slots={"mm": "18-36"},
        home="iron 200mg PO BID",
        measures="diet rich in iron|多进食含铁丰富的食物",
        differential=(
            "thalassaemia trait|地中海贫血; "
            "anaemia of chronic disease|慢性病贫血; "
            "gastrointestinal blood loss|消化道失血"
        ),
        lay="anaemia because you lose more iron than you take in|缺铁性贫血，铁丢得多补得少",
        advice=(
            "take iron with orange juice, not with tea|铁剂可与维生素C同服，不要用茶送服; "
            "stools may turn dark|服药后大便可能变黑"
        ),
        followup="4 weeks: blood count|4周: 复查血常规",
    ),
    Condition(
        "itp",
        "haematology",
        "immune thrombocytopenia|免疫性血小板减少症",
        ages="20-66",
        onset="3-12 days",
        stay="4-8",
        symptoms="bruising gum_bleeding; fatigue",
        absent="fever headache melaena weight_loss",
        story=(
            "A viral infection preceded it by three weeks.|3周前有病毒感染史。; "
            "Small red spots appeared on the shins.|双小腿出现针尖大小出血点。"
        ),
        never="cirrhosis af ihd",
        avoid="nsaid anticoagulant antiplatelet p2y12 ssri",
        exam=(
            "petechiae on both legs|双下肢散在瘀点; "
            "blood blister in the mouth|口腔黏膜血疱; "
            "spleen and lymph nodes not enlarged|脾及浅表淋巴结未触及肿大"
        ),
        labs="plt 26-4",
        extra=(
            "blood film: few, large platelets, no schistocytes|外周血涂片：血小板少见，可见大血小板，无破碎红细胞; "
            "marrow: increased megakaryocytes|骨髓象：巨核细胞增多伴成熟障碍"
        ),
        studies=(
            Study(
                "usabd",
                (
                    "Spleen {spl} mm, not enlarged. Liver normal. No abdominal lymph nodes."
                    "|脾长径{spl}mm，不大；肝脏未见异常；腹腔未见肿大淋巴结。"
                ),
                "normal liver and spleen|肝脾未见异常",
                "spleen liver",
            ),
        ),
        slots={"spl": "92-112"},
        acute="dexamethasone 40mg PO OD x4d; ivig 0.4g/kg IV OD x5d; omeprazole 20mg PO OD",
        home="prednisolone 30mg PO OD; omeprazole 20mg PO OD; vitamind 600mg PO OD",
        measures="bed rest, soft toothbrush|卧床休息，软毛牙刷刷牙; no intramuscular injections|避免肌内注射",
        course=(
            "No new bleeding after two days.|治疗2天后无新发出血。; Platelets rose on steroids.|激素治疗后血小板上升。"
        ),
        differential=(
            "acute leukaemia|急性白血病; "
            "thrombotic thrombocytopenic purpura|血栓性血小板减少性紫癜; "
            "drug-induced thrombocytopenia|药物性血小板减少"
        ),
        lay="the immune system destroying the platelets that stop bleeding|免疫系统把止血的血小板破坏了",
        advice=(
            "no aspirin or ibuprofen|不服阿司匹林、布洛芬; "
            "come at once with headache or black stools|头痛或黑便立即就诊"
        ),
        followup="1 week: platelet count|1周: 复查血小板",
    ),
    Condition(
        "dvt",
        "haematology",
        "deep vein thrombosis of the leg|下肢深静脉血栓形成",
        ages="28-80",
        onset="2-6 days",
        stay="2-4",
        symptoms="calf_pain; fever",
        absent="sob chest_pain haemoptysis",
        story=(
            "The {side} leg was in a splint after a sprain.|{side}下肢因扭伤曾行支具固定。; "
            "A cousin had clots.|表亲有血栓病史。"
        ),
        never="af",
        avoid="anticoagulant",
        exam=(
            "{side} calf {cm} cm larger than the other side|{side}小腿周径较对侧增粗{cm}cm; "
            "pitting oedema and warmth|凹陷性水肿，皮温升高; "
            "foot pulses present|足背动脉搏动正常"
        ),
        labs="ddimer 1.40-8.20, crp 6-34",
        studies=(
            Study(
                "doppler",
                (
                    "Non-compressible {side} femoral and popliteal veins filled with hypoechoic thrombus."
                    "|{side}股静脉、腘静脉不可压闭，管腔内充满低回声。"
                ),
                "acute {side} femoropopliteal deep vein thrombosis|{side}股腘静脉急性血栓形成",
                "veins",
            ),
        ),
        slots={"side": SIDE, "cm": "2-5"},
        acute="enoxaparin 60mg SC Q12H; paracetamol 1g PO PRN",
        home="rivaroxaban 15mg PO BID x21d",
        measures="leg elevation|抬高患肢; compression stocking later|后期穿弹力袜",
        course=(
            "Swelling went down and walking became comfortable.|患肢肿胀减轻，行走自如。; "
            "There were no signs of pulmonary embolism.|无肺栓塞表现。"
        ),
        differential="ruptured Baker's cyst|腘窝囊肿破裂; cellulitis|蜂窝织炎; muscle tear|肌肉撕裂",
        lay="a blood clot in the deep veins of the leg|腿上深静脉长血栓了",
        advice=(
            "after three weeks change to 20 mg once daily|3周后改为20mg每日1次; do not massage the leg|不要按摩患肢"
        ),
        followup="3 months: thrombosis clinic|3个月: 血管门诊复查超声",
    ),
)
