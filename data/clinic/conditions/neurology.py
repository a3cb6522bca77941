"""Diseases of neurology."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "stroke",
        "neurology",
        "acute ischaemic stroke in the left middle cerebral artery territory|急性脑梗死（左侧大脑中动脉供血区）",
        ages="52-88",
        onset="1-4 hours",
        stay="6-12",
        smoking=0.4,
        symptoms="limb_weakness speech; facial_droop numbness",
        absent="headache seizure vomiting",
        story=(
            "Last seen well at breakfast.|早餐时家属见其尚正常。; "
            "A relative noticed that the right hand dropped a cup.|家属发现患者右手持物掉落。"
        ),
        risks="htn dm lipid",
        never="af",
        avoid="anticoagulant",
        vitals="sbp 152-182, dbp 84-102, hr 72-94",
        exam=(
            "right arm and leg power grade {grade}/5|右侧肢体肌力{grade}级; "
            "right facial weakness of central type|右侧中枢性面瘫; "
            "NIHSS score {nihss}|NIHSS评分{nihss}分; "
            "right plantar response extensor|右侧巴氏征阳性"
        ),
        labs="glu 5.6-8.8, ldl 3.3-4.6, inr 0.9-1.1",
        studies=(
            Study(
                "cthead",
                (
                    "No haemorrhage. Subtle loss of grey-white differentiation in the left insula. Old lacunes are "
                    "not seen."
                    "|颅内未见出血，左侧岛叶灰白质分界稍模糊。"
                ),
                (
                    "early ischaemic change in the left middle cerebral artery territory; "
                    "no haemorrhage|左侧大脑中动脉供血区早期缺血改变，未见出血"
                ),
                "white",
            ),
            Study(
                "mrihead",
                (
                    "Restricted diffusion in the left insula and frontal operculum. No haemorrhage on "
                    "gradient-echo images."
                    "|左侧岛叶及额叶岛盖DWI呈高信号，ADC减低，未见微出血。"
                ),
                "acute left middle cerebral artery infarct|左侧大脑中动脉供血区急性脑梗死",
                "diffusion",
            ),
        ),
        slots={"side": "right|右侧", "grade": "2-4", "nihss": "6-12"},
        acute="alteplase 0.9mg/kg IV STAT; atorvastatin 40mg PO ON",
        home="aspirin 100mg PO OD / clopidogrel 75mg PO OD; atorvastatin 40mg PO ON; perindopril 4mg PO OD",
        measures=(
            "stroke unit monitoring|卒中单元监护; "
            "swallow assessment before oral intake|进食前行吞咽评估; "
            "early physiotherapy|早期康复训练"
        ),
        course=(
            "Power improved to grade 4+ and speech became clearer.|肢体肌力恢复至4+级，言语较前清晰。; "
            "Repeat CT at 24 hours showed no bleeding and antiplatelet treatment was started."
            "|24小时复查头颅CT无出血，开始抗血小板治疗。"
        ),
        differential=(
            "intracerebral haemorrhage|脑出血; seizure with Todd's paresis|癫痫发作后Todd瘫痪; hypoglycaemia|低血糖"
        ),
        lay="a stroke: a clot blocks a vessel in the left side of the brain|脑梗死，左边大脑的血管被堵住了",
        advice="keep blood pressure below 130/80|血压控制在130/80以下; continue exercises every day|每天坚持康复锻炼",
        followup="4 weeks: stroke clinic|4周: 神经内科门诊复诊",
    ),
    Condition(
        "migraine",
        "neurology",
        "migraine with aura|有先兆偏头痛",
        ages="18-48",
        onset="6-48 hours",
        symptoms="throbbing_headache aura; nausea photophobia vomiting",
        absent="fever neck_stiffness limb_weakness",
        story=(
            "Attacks come about {n} times a month.|每月发作约{n}次。; "
            "Lack of sleep and red wine bring them on.|睡眠不足及饮红酒可诱发。; "
            "Lying in a dark room helps.|在暗处休息可减轻。"
        ),
        never="migraine ihd",
        exam="cranial nerves intact|颅神经检查未见异常; fundi normal|眼底正常; no neck stiffness|颈软，无抵抗",
        studies=(
            Study(
                "mrihead",
                (
                    "No mass, haemorrhage or acute infarct. The ventricles are normal in size."
                    "|颅内未见占位、出血及急性梗死，脑室大小正常。"
                ),
                "normal MRI of the brain|颅脑MRI未见异常",
            ),
        ),
        slots={"n": "2-4"},
        home="naproxen 500mg PO PRN / paracetamol 1g PO PRN; rizatriptan 10mg PO PRN; metoclopramide 10mg PO PRN",
        measures="headache diary|记录头痛日记",
        differential=(
            "tension-type headache|紧张型头痛; transient ischaemic attack|短暂性脑缺血发作; cluster headache|丛集性头痛"
        ),
        lay="migraine|偏头痛",
        advice=(
            "take the tablet early in the attack|发作早期就服药; "
            "keep regular sleep|规律作息; "
            "not more than ten painkiller days a month|每月用止痛药不超过10天"
        ),
        followup="8 weeks: headache clinic with the diary|8周: 带头痛日记复诊",
    ),
    Condition(
        "epilepsy",
        "neurology",
        "new-onset focal epilepsy|新发局灶性癫痫",
        ages="20-66",
        onset="2-10 hours",
        stay="2-4",
        symptoms="seizure confusion; tongue_biting headache fatigue",
        absent="fever neck_stiffness limb_weakness",
        story=(
            "The event lasted about two minutes and began with head turning to the left."
            "|发作持续约2分钟，起始时头向左侧偏转。; "
            "A similar spell happened three months ago.|3个月前曾有类似发作。"
        ),
        avoid="opioid",
        vitals="hr 82-108, t 36.6-37.4",
        exam="drowsy but rousable|嗜睡，可唤醒; no focal deficit|无定位体征; bite mark on the tongue|舌缘可见咬痕",
        labs="ck 210-860, lactate 2.2-4.6, wbc 9.0-12.4",
        studies=(
            Study(
                "mrihead",
                (
                    "Small area of right temporal signal change in keeping with gliosis. No mass, haemorrhage or "
                    "acute infarct."
                    "|右侧颞叶小片状异常信号，考虑胶质增生，未见占位、出血及急性梗死。"
                ),
                "right temporal gliosis, a possible seizure focus|右颞叶胶质增生，可能为致痫灶",
                "parenchyma",
            ),
            Study(
                "eeg",
                "Sharp waves over the right temporal leads.|右颞区可见尖波发放。",
                "right temporal epileptiform discharges|右颞区痫样放电",
            ),
        ),
        acute="lorazepam 2mg IVP PRN; levetiracetam 1g IV STAT",
        home="levetiracetam 500mg PO BID",
        measures="seizure precautions|防跌倒、防坠床",
        course=(
            "No further seizure in hospital.|住院期间未再发作。; Confusion cleared within hours.|数小时后意识恢复正常。"
        ),
        differential="convulsive syncope|惊厥性晕厥; hypoglycaemia|低血糖; functional seizure|功能性发作",
        lay="an epileptic seizure starting from one spot of the brain|癫痫，大脑局部异常放电",
        advice=(
            "no driving until the clinic agrees|未经医生同意不要开车; "
            "never miss a dose|不要漏服药; "
            "showers rather than baths|避免独自泡澡、游泳"
        ),
        followup="4 weeks: epilepsy clinic|4周: 癫痫门诊复诊",
    ),
    Condition(
        "parkinson",
        "neurology",
        "Parkinson's disease|帕金森病",
        ages="56-82",
        onset="8-20 months",
        symptoms="tremor slowness; hard_stools insomnia",
        absent="limb_weakness headache confusion",
        story=(
            "Handwriting has become small.|书写字体变小。; "
            "The family noticed that the {side} arm no longer swings.|家属发现{side}上肢行走时不摆动。; "
            "Sense of smell was lost years ago.|数年前出现嗅觉减退。"
        ),
        avoid="antiemetic",
        exam=(
            "pill-rolling rest tremor of the {side} hand|{side}手静止性震颤，呈搓丸样; "
            "cogwheel rigidity of the {side} arm|{side}上肢齿轮样肌张力增高; "
            "reduced facial expression|面部表情减少; "
            "pull test normal|后拉试验阴性"
        ),
        studies=(
            Study(
                "mrihead",
                (
                    "Age-appropriate volume loss. No infarct, mass or hydrocephalus."
                    "|脑萎缩与年龄相符，未见梗死、占位及脑积水。"
                ),
                "no structural cause of parkinsonism|未见继发性帕金森综合征的结构性病变",
                "parenchyma",
            ),
        ),
        slots={"side": SIDE},
        home="levodopa 62.5mg PO TID",
        measures="physiotherapy for gait|步态康复训练",
        differential=(
            "essential tremor|特发性震颤; "
            "drug-induced parkinsonism|药物性帕金森综合征; "
            "multiple system atrophy|多系统萎缩"
        ),
        lay="Parkinson's disease|帕金森病",
        advice="take the tablets an hour before meals|餐前1小时服药; keep walking every day|坚持每天走路锻炼",
        followup="6 weeks: movement disorder clinic|6周: 神经内科门诊调整剂量",
    ),
    Condition(
        "bppv",
        "neurology",
        "benign paroxysmal positional vertigo of the posterior canal|良性阵发性位置性眩晕（后半规管）",
        ages="34-78",
        onset="2-9 days",
        symptoms="vertigo nausea; vomiting",
        absent="hearing_loss headache speech",
        story=(
            "Each spell lasts less than a minute and follows turning over in bed."
            "|每次发作不足1分钟，多于床上翻身时诱发。; "
            "Between spells the patient is well.|发作间期无不适。"
        ),
        exam=(
            "Dix-Hallpike test positive on the {side} with rotatory upbeating nystagmus"
            "|{side}Dix-Hallpike试验阳性，可见垂直扭转性眼震; "
            "gait normal|步态正常"
        ),
        slots={"side": SIDE},
        home="betahistine 12mg PO TID x7d",
        measures="Epley manoeuvre on the {side}|{side}Epley手法复位",
        differential=(
            "vestibular neuritis|前庭神经炎; Meniere's disease|梅尼埃病; posterior circulation stroke|后循环缺血"
        ),
        lay="tiny crystals that have come loose in the inner ear|耳石症，就是内耳的小耳石掉下来了",
        advice="sleep on the other side for two nights|两晚内健侧卧位睡眠; get up slowly|起身动作慢一些",
        followup="1 week: repeat positional test|1周: 复查位置试验",
    ),
)
