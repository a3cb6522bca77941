"""Diseases of rheumatology."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "gout",
        "rheumatology",
        "acute gout|急性痛风性关节炎",
        ages="36-80",
        onset="12-48 hours",
        symptoms="hot_toe; fever",
        absent="chills dysuria hot_leg",
        story=(
            "It followed a seafood dinner with beer.|进食海鲜、饮啤酒后发作。; "
            "The third attack this year.|今年第3次发作。"
        ),
        risks="htn ckd",
        never="gout",
        vitals="t 36.9-37.9",
        exam=(
            "first toe joint of the {side} foot red, hot and exquisitely tender"
            "|{side}第一跖趾关节红肿、皮温高、压痛明显; "
            "small tophus at the ear|耳廓可见小痛风石"
        ),
        labs="ua 485-640, crp 18-72, wbc 9.2-12.4",
        studies=(
            Study(
                "footxr",
                (
                    "Soft tissue swelling at the {side} first metatarsophalangeal joint with a small punched-out "
                    "erosion."
                    "|{side}第一跖趾关节软组织肿胀，关节边缘小穿凿样骨质破坏。"
                ),
                "changes of gout|符合痛风改变",
                "joints",
            ),
        ),
        slots={"side": SIDE},
        home="colchicine 0.5mg PO BID x5d; etoricoxib 60mg PO OD x5d / prednisolone 30mg PO OD x5d",
        measures="ice and rest|冷敷、休息",
        differential="septic arthritis|化脓性关节炎; pseudogout|假性痛风; cellulitis|蜂窝织炎",
        lay="gout: uric acid crystals in the joint|痛风，尿酸结晶沉在关节里了",
        advice="no beer, offal or shellfish|不喝啤酒，不吃动物内脏和海鲜; drink two litres a day|每天喝水2升",
        followup="4 weeks: start urate-lowering treatment|4周: 评估并开始降尿酸治疗",
    ),
    Condition(
        "ra",
        "rheumatology",
        "rheumatoid arthritis, early and active|类风湿关节炎（早期，活动期）",
        ages="28-70",
        onset="2-6 months",
        symptoms="joint_pain morning_stiffness; fatigue weight_loss",
        absent="malar_rash mouth_ulcers back_pain",
        story="Opening jars has become impossible.|拧瓶盖困难。; Rings no longer fit.|戒指戴不上。",
        never="gout cirrhosis ckd",
        avoid="sulfonamide",
        exam=(
            "swelling of the second and third MCP joints of both hands|双手第2、3掌指关节肿胀、压痛; "
            "squeeze test positive|掌指关节挤压痛阳性; "
            "no nodules|未触及类风湿结节"
        ),
        labs="rf 58-340, ccp 64-480, esr 36-82, crp 18-66, hb 132-106",
        studies=(
            Study(
                "handxr",
                (
                    "Periarticular osteopenia and soft tissue swelling at the MCP joints. No erosion."
                    "|双手掌指关节周围软组织肿胀，关节周围骨质疏松，未见骨侵蚀。"
                ),
                "early inflammatory arthritis|早期炎性关节炎改变",
                "joints",
            ),
        ),
        home="methotrexate 10mg PO QW; folate 5mg PO QW; prednisolone 7.5mg PO OD",
        measures="chest X-ray and hepatitis screen before methotrexate|甲氨蝶呤前查胸片及肝炎筛查",
        differential="viral arthritis|病毒性关节炎; lupus|系统性红斑狼疮; osteoarthritis|骨关节炎",
        lay="rheumatoid arthritis, where the body attacks its own joints|类风湿，免疫系统攻击了自己的关节",
        advice=(
            "methotrexate once a week, never daily|甲氨蝶呤每周只吃1次，千万不能天天吃; "
            "no alcohol with it|服药期间不喝酒"
        ),
        followup="4 weeks: blood count and liver tests|4周: 复查血常规及肝功能",
    ),
    Condition(
        "sle",
        "rheumatology",
        "systemic lupus erythematosus with active nephritis|系统性红斑狼疮，狼疮性肾炎（活动期）",
        sex="F",
        ages="18-46",
        onset="3-10 weeks",
        stay="8-13",
        symptoms="malar_rash joint_pain; mouth_ulcers hair_loss leg_swelling fever fatigue frothy_urine",
        absent="cough seizure haematuria",
        story="The rash flares after sunshine.|日晒后皮疹加重。; Fingers turn white in the cold.|遇冷手指发白。",
        never="ckd cirrhosis gout",
        avoid="nsaid sulfonamide",
        vitals="t 37.2-38.3, sbp 132-154, hr 84-106",
        exam=(
            "erythema over the cheeks sparing the nasolabial folds|面颊部蝶形红斑，鼻唇沟不受累; "
            "oral ulcers|口腔黏膜溃疡; "
            "ankle oedema|踝部水肿"
        ),
        labs="c3 0.62-0.31, protein 1.60-5.20, alb 35-25, hb 110-84, wbc 3.8-2.6, plt 180-110, cr 70-98, esr 42-98",
        extra=(
            "ANA 1:640, anti-dsDNA positive|ANA 1:640，抗dsDNA抗体阳性; "
            "renal biopsy: class IV lupus nephritis|肾活检：狼疮性肾炎IV型"
        ),
        studies=(
            Study(
                "usrenal",
                "Kidneys of normal size with increased cortical echogenicity.|双肾大小正常，皮质回声增强。",
                "medical renal disease|双肾弥漫性病变",
                "kidneys",
            ),
        ),
        acute="methylpred 500mg IV OD x3d; hydroxychloroquine 200mg PO BID; omeprazole 20mg PO OD",
        home=(
            "prednisolone 40mg PO OD; "
            "mycophenolate 750mg PO BID; "
            "hydroxychloroquine 200mg PO BID; "
            "omeprazole 20mg PO OD; "
            "vitamind 600mg PO OD"
        ),
        measures="pregnancy test before mycophenolate|吗替麦考酚酯前排除妊娠; eye examination|眼科检查",
        course=(
            "Joint pain and rash settled on steroids.|激素治疗后关节痛、皮疹好转。; "
            "Proteinuria is expected to fall over weeks.|蛋白尿预计数周内下降。"
        ),
        differential=(
            "rheumatoid arthritis|类风湿关节炎; rosacea|玫瑰痤疮; primary nephrotic syndrome|原发性肾病综合征"
        ),
        lay="lupus, which has also reached the kidneys|红斑狼疮，已经影响到肾脏",
        advice=(
            "use sunscreen|注意防晒; "
            "do not become pregnant on mycophenolate|服吗替麦考酚酯期间严格避孕; "
            "do not stop steroids suddenly|不要自行停激素"
        ),
        followup="2 weeks: lupus clinic with urine protein|2周: 风湿免疫科门诊复查尿蛋白及补体",
    ),
)
