"""Symptoms: what the note calls them and what the patient calls them.

Each entry is (clinical "english|chinese", lay "english|chinese"). The lay wording completes "I have had ..." and
"我……": patients do not say dyspnoea, and a dialogue in which they do is not worth learning from.
"""

SYMPTOMS = {
    "chest_pain": ("central chest pain|胸骨后疼痛", "a heavy pressing pain in the middle of my chest|胸口正中压得疼"),
    "pleuritic_pain": (
        "pleuritic chest pain|胸膜炎性胸痛",
        "a sharp pain in my side when I breathe in|一吸气侧胸就刺痛",
    ),
    "palpitations": ("palpitations|心悸", "a racing, fluttering heartbeat|心慌，心跳得乱"),
    "sob": ("shortness of breath|气促", "trouble catching my breath|喘不上气"),
    "exertional_sob": ("exertional dyspnoea|活动后气短", "to stop for breath on the stairs|上楼就喘"),
    "orthopnoea": ("orthopnoea|夜间不能平卧", "to sleep propped up on three pillows|晚上躺不平，要垫高枕头"),
    "leg_swelling": ("bilateral ankle swelling|双下肢水肿", "swollen ankles by the evening|两个脚踝都肿了"),
    "calf_pain": (
        "unilateral calf pain and swelling|一侧小腿肿痛",
        "one calf that is swollen and sore|一边小腿又肿又疼",
    ),
    "sweating": ("sweating|出汗", "cold sweats|一阵阵出冷汗"),
    "syncope": ("syncope|晕厥", "a blackout|眼前一黑晕过去了"),
    "dizziness": ("dizziness|头晕", "a light-headed feeling|头昏昏沉沉的"),
    "cough": ("dry cough|干咳", "a dry tickly cough|干咳，没什么痰"),
    "productive_cough": ("productive cough|咳嗽、咳痰", "a cough with yellow phlegm|咳嗽，痰是黄的"),
    "haemoptysis": ("haemoptysis|咯血", "blood in what I cough up|咳出来的痰里带血"),
    "wheeze": ("wheeze|喘息", "a whistling in my chest|胸口呼呼地响"),
    "sore_throat": ("sore throat|咽痛", "a sore throat|嗓子疼"),
    "rhinorrhoea": ("rhinorrhoea|流涕", "a runny nose|流鼻涕"),
    "fever": ("fever|发热", "a temperature|发烧"),
    "chills": ("rigors|寒战", "shaking chills|冷得直打哆嗦"),
    "night_sweats": ("night sweats|盗汗", "sweats that soak the sheets at night|夜里睡着了出一身汗"),
    "fatigue": ("fatigue|乏力", "no energy at all|浑身没劲"),
    "weight_loss": ("weight loss|体重下降", "clothes that have become loose on me|人瘦了不少"),
    "anorexia": ("loss of appetite|食欲减退", "no appetite|吃不下饭"),
    "myalgia": ("myalgia|全身肌肉酸痛", "aches all over|浑身酸痛"),
    "nausea": ("nausea|恶心", "a sick feeling in my stomach|恶心想吐"),
    "vomiting": ("vomiting|呕吐", "several bouts of vomiting|吐了好几次"),
    "epigastric_pain": ("epigastric pain|上腹痛", "a pain at the top of my tummy|胃这一块疼"),
    "ruq_pain": ("right upper quadrant pain|右上腹痛", "a pain under my right ribs|右边肋骨下面疼"),
    "rif_pain": ("right iliac fossa pain|右下腹痛", "a pain low down on the right|右下边肚子疼"),
    "abdominal_pain": ("colicky abdominal pain|腹部绞痛", "cramps that come and go in my tummy|肚子一阵一阵地绞着疼"),
    "pelvic_pain": ("lower abdominal pain|下腹痛", "a pain low in my tummy|小肚子疼"),
    "distension": ("abdominal distension|腹胀", "a belly that is swollen and tight|肚子胀得鼓鼓的"),
    "constipation": ("absolute constipation|停止排气排便", "no wind or stool at all|不放屁也不大便"),
    "hard_stools": ("constipation|便秘", "hard stools only every three or four days|三四天才大便一次，很干"),
    "melaena": ("melaena|黑便", "black sticky stools|大便黑得像柏油"),
    "haematemesis": ("coffee-ground vomiting|呕吐咖啡样物", "vomit that looks like coffee grounds|吐的东西像咖啡渣"),
    "bloody_diarrhoea": ("bloody diarrhoea|黏液脓血便", "loose stools with blood and mucus|拉肚子，大便带血和黏液"),
    "diarrhoea": ("diarrhoea|腹泻", "loose stools|拉肚子"),
    "heartburn": ("heartburn|烧心", "a burning behind my breastbone|胸口烧得慌"),
    "regurgitation": ("acid regurgitation|反酸", "sour fluid coming up into my mouth|老是反酸水"),
    "dysphagia": ("dysphagia|吞咽困难", "food that sticks on the way down|咽东西觉得堵"),
    "jaundice": ("jaundice|黄疸", "yellow eyes|眼睛发黄"),
    "pruritus": ("pruritus|瘙痒", "itching that keeps me awake|痒得睡不着"),
    "headache": ("headache|头痛", "a bad headache|头疼得厉害"),
    "throbbing_headache": (
        "unilateral throbbing headache|一侧搏动性头痛",
        "a pounding headache on one side|半边头一跳一跳地疼",
    ),
    "photophobia": ("photophobia|畏光", "eyes that hurt in bright light|怕光"),
    "neck_stiffness": ("neck stiffness|颈部僵硬", "a stiff neck|脖子发硬"),
    "aura": ("visual aura|视觉先兆", "zigzag lights before it starts|发作前眼前有闪光"),
    "vertigo": ("rotational vertigo|视物旋转", "the room spinning round me|天旋地转"),
    "hearing_loss": ("hearing loss|听力下降", "muffled hearing|耳朵听不清"),
    "limb_weakness": (
        "{side} arm and leg weakness|{side}肢体无力",
        "one arm and leg that will not do as I want|半边身子使不上劲",
    ),
    "speech": ("slurred speech|言语含糊", "words that come out slurred|说话说不清楚"),
    "facial_droop": ("facial droop|口角歪斜", "one corner of my mouth drooping|嘴角歪了"),
    "seizure": ("convulsive seizure|抽搐发作", "a fit, so they tell me|家里人说我抽起来了"),
    "tongue_biting": ("tongue biting|舌咬伤", "a bitten, sore tongue|舌头咬破了"),
    "confusion": ("confusion|意识模糊", "muddled thinking|脑子糊涂"),
    "tremor": ("tremor|震颤", "shaky hands|手抖"),
    "slowness": ("slowness of movement|动作迟缓", "movements that are much slower than before|干什么都比以前慢"),
    "oliguria": ("reduced urine output|尿量减少", "hardly any urine|尿很少"),
    "frothy_urine": ("frothy urine|泡沫尿", "foamy urine|小便泡沫很多"),
    "periorbital_oedema": ("periorbital oedema|眼睑水肿", "puffy eyelids in the morning|早上起来眼皮肿"),
    "flank_pain": ("{side} flank pain|{side}腰痛", "a bad pain in my side and back|腰侧疼得厉害"),
    "haematuria": ("haematuria|血尿", "reddish urine|小便发红"),
    "dysuria": ("dysuria|尿痛", "burning when I pass water|小便时火辣辣地疼"),
    "frequency": ("urinary frequency|尿频", "to run to the toilet all the time|老想上厕所"),
    "retention": ("inability to pass urine|不能自行排尿", "no way of passing water|憋着尿就是解不出来"),
    "weak_stream": (
        "hesitancy and a weak stream|排尿等待、尿线变细",
        "a slow start and a thin stream|尿等半天，尿线又细",
    ),
    "testicular_pain": (
        "severe {side} testicular pain|{side}睾丸剧痛",
        "a terrible pain in one testicle|一边睾丸疼得受不了",
    ),
    "polyuria": ("polyuria|多尿", "to pass a lot of water|小便特别多"),
    "polydipsia": ("polydipsia|烦渴多饮", "a thirst that water does not quench|口渴，喝多少水都不解渴"),
    "heat_intolerance": (
        "heat intolerance|怕热多汗",
        "to throw the windows open when others are cold|特别怕热，老出汗",
    ),
    "cold_intolerance": ("cold intolerance|畏寒", "to wear a jumper in summer|特别怕冷"),
    "weight_gain": ("weight gain|体重增加", "weight creeping up|体重越来越重"),
    "pallor": ("pallor|面色苍白", "people telling me that I look pale|别人都说我脸色白"),
    "menorrhagia": ("heavy menstrual bleeding|月经量增多", "very heavy periods|月经量特别多"),
    "bruising": ("easy bruising|皮肤瘀斑", "bruises without knocking myself|没磕没碰身上就青一块紫一块"),
    "gum_bleeding": ("gum bleeding|牙龈出血", "gums that bleed when I brush|刷牙牙龈出血"),
    "bone_pain": ("bone pain|骨痛", "an ache deep in my bones|骨头里面疼"),
    "hot_leg": ("a red, hot, painful {side} lower leg|{side}小腿红肿热痛", "a hot, red, sore leg|小腿又红又烫又疼"),
    "hot_toe": (
        "a red, hot, swollen {side} first toe joint|{side}第一跖趾关节红肿热痛",
        "a big toe so sore that a sheet hurts|大脚趾疼得碰都不能碰",
    ),
    "joint_pain": (
        "symmetrical small-joint pain and swelling|双手小关节对称性肿痛",
        "sore, swollen fingers on both hands|两只手的指关节又肿又疼",
    ),
    "morning_stiffness": (
        "morning stiffness|晨僵",
        "hands that are stiff for more than an hour in the morning|早上起来手僵一个多小时",
    ),
    "malar_rash": ("malar rash|面部蝶形红斑", "a red rash over my cheeks and nose|脸上两边起了红斑"),
    "mouth_ulcers": ("mouth ulcers|口腔溃疡", "sores in my mouth|嘴里长溃疡"),
    "hair_loss": ("hair loss|脱发", "hair coming out in the brush|掉头发掉得厉害"),
    "visual_blurring": ("blurred vision|视物模糊", "blurred sight|看东西模糊"),
    "vaginal_bleeding": ("vaginal bleeding|阴道流血", "some bleeding down below|下面有出血"),
    "missed_period": ("amenorrhoea|停经", "a missed period|月经没来"),
    "discharge": ("abnormal vaginal discharge|白带异常", "a discharge that is not usual for me|白带不正常"),
    "hip_pain": ("{side} hip pain after a fall|跌倒后{side}髋部疼痛", "a bad hip since I fell|摔了以后胯骨疼"),
    "cannot_walk": ("inability to bear weight|不能负重行走", "no way to stand on it|根本站不起来"),
    "wrist_pain": (
        "{side} wrist pain after a fall|跌倒后{side}腕部疼痛",
        "a sore, crooked wrist since I fell|摔了以后手腕又疼又变形",
    ),
    "back_pain": ("low back pain|腰痛", "a bad lower back|腰疼"),
    "sciatica": (
        "pain radiating down the {side} leg|{side}下肢放射痛",
        "a pain shooting down my leg|从屁股到腿一条线地疼",
    ),
    "numbness": ("numbness|麻木", "pins and needles|发麻"),
    "vesicles": (
        "a painful vesicular rash over the {side} trunk|{side}躯干疼痛性成簇水疱",
        "a band of painful blisters on one side|身上一边起了一串疼的水泡",
    ),
    "burning_pain": ("burning pain|烧灼样疼痛", "a burning pain|火烧火燎地疼"),
    "plaques": (
        "scaly red plaques on elbows and knees|肘膝部鳞屑性红斑",
        "thick scaly patches on my elbows and knees|胳膊肘和膝盖上起了厚厚的皮屑斑",
    ),
    "eczema": (
        "an itchy flexural rash|肘窝、腘窝瘙痒性皮疹",
        "an itchy rash in the bends of my arms and knees|胳膊弯、腿弯里起疹子，很痒",
    ),
    "low_mood": ("low mood|情绪低落", "no joy in anything|高兴不起来"),
    "insomnia": (
        "early morning waking|早醒",
        "nights when I wake at four and cannot go back|凌晨三四点就醒，再也睡不着",
    ),
    "worry": ("persistent worry|持续担忧", "worries that go round and round|总是担心这担心那"),
}


def clinical(key):
    """The clinician's "english|chinese" name of a symptom."""
    return SYMPTOMS[key][0]


def lay(key):
    """The patient's "english|chinese" words for a symptom."""
    return SYMPTOMS[key][1]
