"""Diseases of dermatology."""

from ..condition import Condition

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "zoster",
        "dermatology",
        "herpes zoster|带状疱疹",
        ages="46-86",
        onset="2-4 days",
        symptoms="vesicles burning_pain; fatigue",
        absent="fever headache cough",
        story=(
            "Pain came two days before the rash.|疼痛先于皮疹2天出现。; "
            "The patient had chickenpox in childhood.|幼时患过水痘。"
        ),
        risks="dm",
        exam=(
            "grouped vesicles on a red base along the {side} {level} dermatome, not crossing the midline"
            "|{side}{level}神经支配区红斑基础上成簇水疱，未超过中线"
        ),
        slots={"side": SIDE, "level": "T5|T5; T6|T6; T8|T8; T10|T10"},
        home="valaciclovir 1g PO TID x7d; pregabalin 75mg PO BID; paracetamol 1g PO PRN",
        measures="keep the blisters clean and covered|保持疱疹清洁、覆盖",
        differential="contact dermatitis|接触性皮炎; herpes simplex|单纯疱疹; insect bites|虫咬皮炎",
        lay="shingles: the chickenpox virus has woken up in a nerve|带状疱疹，也就是俗称的缠腰龙",
        advice=(
            "stay away from babies and pregnant women until crusted|结痂前避免接触孕妇和婴儿; "
            "start the antiviral today|今天就开始服抗病毒药"
        ),
        followup="2 weeks: review of pain|2周: 皮肤科门诊评估疼痛",
    ),
    Condition(
        "psoriasis",
        "dermatology",
        "chronic plaque psoriasis|寻常型银屑病",
        ages="20-68",
        onset="3-14 months",
        symptoms="plaques pruritus",
        absent="fever joint_pain mouth_ulcers",
        story=(
            "Worse in winter and in times of stress.|冬季及精神紧张时加重。; An uncle has the same.|叔父有类似病史。"
        ),
        avoid="betablocker",
        exam=(
            "well-defined plaques with silvery scale on elbows, knees and scalp"
            "|肘、膝及头皮边界清楚的斑块，覆银白色鳞屑; "
            "Auspitz sign positive|Auspitz征阳性; "
            "nail pitting|甲板顶针样凹陷; "
            "body surface area {bsa}%|皮损面积约{bsa}%"
        ),
        slots={"bsa": "4-9"},
        home="calcipotriol thin layer TOP BID; betamethasone thin layer TOP OD x28d; emollient thin layer TOP BID",
        measures="emollient baths|润肤浴",
        differential="seborrhoeic dermatitis|脂溢性皮炎; lichen planus|扁平苔藓; tinea corporis|体癣",
        lay="psoriasis, which is not catching|银屑病，不传染",
        advice="moisturise every day|每天保湿; do not scratch or peel the scales|不要搔抓、强行剥皮屑",
        followup="6 weeks: dermatology clinic|6周: 皮肤科门诊复诊",
    ),
    Condition(
        "eczema",
        "dermatology",
        "atopic eczema flare|特应性皮炎（急性加重）",
        ages="18-44",
        onset="1-5 weeks",
        symptoms="eczema pruritus; insomnia",
        absent="fever joint_pain burning_pain",
        story=(
            "A new wool blanket came into use last month.|上月开始使用新的羊毛毯。; "
            "Hay fever runs in the family.|家族中有过敏性鼻炎史。"
        ),
        risks="asthma",
        exam=(
            "ill-defined erythema, papules and excoriations in the flexures|肘窝、腘窝边界不清的红斑、丘疹及抓痕; "
            "lichenification of the wrists|腕部苔藓样变; "
            "no sign of infection|无感染征象"
        ),
        labs="eos 0.48-0.95",
        home="betamethasone thin layer TOP BID x10d; emollient thin layer TOP TID; cetirizine 10mg PO ON",
        measures="cotton clothing|穿棉质衣物",
        differential="contact dermatitis|接触性皮炎; scabies|疥疮; psoriasis|银屑病",
        lay="eczema|湿疹，也就是特应性皮炎",
        advice="use plenty of moisturiser|多用润肤剂; short lukewarm showers|洗澡水温不要太高、时间要短",
        followup="3 weeks: dermatology clinic|3周: 皮肤科门诊复诊",
    ),
)
