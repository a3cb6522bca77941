"""Diseases of endocrinology."""

from ..condition import Condition, Study

CONDITIONS = (
    Condition(
        "dka",
        "endocrinology",
        "diabetic ketoacidosis|糖尿病酮症酸中毒",
        ages="18-52",
        onset="1-4 days",
        stay="3-6",
        symptoms="polyuria polydipsia; vomiting abdominal_pain fatigue weight_loss",
        absent="fever cough dysuria",
        story=(
            "Insulin was left out for three days.|近3天自行停用胰岛素。; "
            "Type 1 diabetes was diagnosed {yr} years ago.|{yr}年前诊断1型糖尿病。"
        ),
        never="dm cirrhosis",
        avoid="sglt2 biguanide",
        vitals="hr 104-132, rr 22-34, sbp 118-92, t 36.4-37.2",
        exam=(
            "deep sighing respiration|呼吸深大; "
            "breath smells of acetone|呼气有烂苹果味; "
            "dry mucous membranes|皮肤黏膜干燥; "
            "abdomen soft, mild diffuse tenderness|腹软，轻度弥漫压痛"
        ),
        labs=(
            "glu 18.5-36.0, ketone 3.4-8.2, ph 7.27-6.98, hco3 16-6, k 4.8-5.9, na 134-127, hba1c 9.4-13.2, wbc "
            "10.8-16.5, cr 88-140"
        ),
        studies=(
            Study(
                "cxr",
                "Clear lungs. Normal heart size.|双肺野清晰，心影大小正常。",
                "no focus of infection|未见感染灶",
                "lungs heart",
            ),
        ),
        slots={"yr": "2-14"},
        acute="saline 1000ml IV STAT; insulin 0.1 units/kg/h IV STAT; potassium 20mmol IV Q4H",
        home="glargine 18 units SC ON; aspart 6 units SC TID",
        measures="hourly capillary glucose and ketones|每小时监测血糖、血酮; cardiac monitoring|心电监护",
        course=(
            "Ketosis cleared within 18 hours and meals were started.|18小时内酮体转阴，恢复进食。; "
            "Sick-day rules were taught.|已进行病假日管理宣教。"
        ),
        differential="sepsis|脓毒症; acute pancreatitis|急性胰腺炎; gastroenteritis|急性胃肠炎",
        lay="ketoacidosis: without insulin the blood has turned acid|酮症酸中毒，缺胰岛素血变酸了",
        advice=(
            "never stop insulin, even when not eating|即使不进食也不要停胰岛素; check ketones when ill|生病时测血酮"
        ),
        followup="1 week: diabetes clinic|1周: 内分泌科门诊调整胰岛素",
    ),
    Condition(
        "graves",
        "endocrinology",
        "Graves' hyperthyroidism|Graves病（甲状腺功能亢进症）",
        ages="20-56",
        onset="4-14 weeks",
        symptoms="palpitations weight_loss; heat_intolerance tremor fatigue diarrhoea insomnia",
        absent="fever neck_stiffness dysphagia",
        story=(
            "Appetite is good although weight fell by {kg} kg.|食欲亢进，体重反下降{kg}kg。; "
            "The eyes feel gritty.|双眼有异物感。"
        ),
        never="hypothyroid af",
        vitals="hr 98-126, sbp 134-148, dbp 66-58",
        exam=(
            "diffuse goitre with a bruit|甲状腺弥漫性肿大，可闻及血管杂音; "
            "fine tremor of outstretched hands|双手平伸细震颤; "
            "lid lag|上睑迟落; "
            "warm, moist skin|皮肤温暖潮湿"
        ),
        labs="tsh 0.02-0.01, ft4 34.0-72.0, alp 118-150",
        extra="TSH receptor antibody positive|TRAb阳性",
        studies=(
            Study(
                "usthyroid",
                (
                    "Diffusely enlarged, hypoechoic gland with markedly increased vascularity. No nodule."
                    "|甲状腺弥漫性增大，回声减低，血流信号丰富，未见结节。"
                ),
                "diffuse toxic goitre pattern|符合弥漫性毒性甲状腺肿",
                "gland",
            ),
        ),
        slots={"kg": "4-9"},
        home="methimazole 15mg PO OD; propranolol 20mg PO TID / diltiazem 60mg PO TID",
        measures="full blood count before treatment|治疗前查血常规; low-iodine diet|低碘饮食",
        differential="thyroiditis|亚急性甲状腺炎; toxic nodular goitre|毒性结节性甲状腺肿; anxiety disorder|焦虑障碍",
        lay="an overactive thyroid|甲亢",
        advice=(
            "stop the tablets and have a blood count if you get a sore throat or fever"
            "|如咽痛、发热立即停药并查血常规; "
            "stop smoking|戒烟"
        ),
        followup="4 weeks: thyroid function and blood count|4周: 复查甲功及血常规",
    ),
    Condition(
        "hypothyroid",
        "endocrinology",
        "primary hypothyroidism due to Hashimoto's thyroiditis|桥本甲状腺炎致原发性甲状腺功能减退症",
        ages="28-72",
        onset="3-9 months",
        symptoms="fatigue cold_intolerance; weight_gain hair_loss slowness low_mood",
        absent="dysphagia palpitations fever",
        story="The voice has become deeper.|声音变低沉。; A sister takes thyroid tablets.|姐妹中有人服甲状腺药。",
        never="hypothyroid depression",
        vitals="hr 60-50, t 36.2-35.9",
        exam=(
            "dry, cool skin|皮肤干燥、发凉; "
            "slow-relaxing ankle reflexes|跟腱反射松弛期延长; "
            "firm, small goitre|甲状腺轻度肿大，质韧"
        ),
        labs="tsh 14.00-68.00, ft4 10.2-4.8, chol 5.6-7.8",
        extra="anti-TPO antibody positive|抗TPO抗体阳性",
        studies=(
            Study(
                "usthyroid",
                (
                    "Coarse heterogeneous echotexture with fibrous septa. No nodule."
                    "|甲状腺回声增粗不均，呈网格样改变，未见结节。"
                ),
                "chronic thyroiditis|慢性甲状腺炎改变",
                "gland",
            ),
        ),
        home="levothyroxine 50mcg PO OD",
        measures="tablet on an empty stomach|空腹服药",
        differential="iron deficiency|缺铁性贫血; depression|抑郁症; central hypothyroidism|中枢性甲减",
        lay="an underactive thyroid|甲减，甲状腺功能低了",
        advice=(
            "take the tablet half an hour before breakfast|早餐前半小时空腹服药; "
            "keep it four hours apart from iron and calcium|与铁剂、钙片间隔4小时"
        ),
        followup="6 weeks: thyroid function|6周: 复查甲功",
    ),
    Condition(
        "dm2",
        "endocrinology",
        "newly diagnosed type 2 diabetes with poor control|初诊2型糖尿病（血糖控制不佳）",
        ages="36-70",
        onset="3-10 weeks",
        stay="4-7",
        symptoms="polydipsia polyuria; weight_loss fatigue visual_blurring numbness",
        absent="vomiting abdominal_pain chest_pain",
        story=(
            "Father and a brother have diabetes.|父亲及兄长有糖尿病史。; "
            "Drinks several bottles of sweet tea a day.|平素每天喝数瓶含糖饮料。"
        ),
        risks="htn lipid",
        never="dm ckd",
        vitals="sbp 126-146",
        exam=(
            "body mass index {bmi} kg/m2|体重指数{bmi}kg/m²; "
            "acanthosis nigricans at the neck|颈部黑棘皮; "
            "foot pulses present|足背动脉搏动可; "
            "vibration sense normal|震动觉正常"
        ),
        labs="glu 13.5-22.5, hba1c 9.2-12.6, tg 1.9-4.2, ketone 0.1-0.5",
        extra="urine ketones negative|尿酮体阴性; fundus photography: no retinopathy|眼底照相未见视网膜病变",
        studies=(
            Study(
                "usabd",
                (
                    "The liver is bright in keeping with fatty change. No focal lesion."
                    "|肝实质回声增强，符合脂肪肝，未见占位。"
                ),
                "fatty liver|脂肪肝",
                "liver",
            ),
        ),
        slots={"bmi": "28-34"},
        acute="glargine 12 units SC ON; aspart 4 units SC TID",
        home="metformin 500mg PO BID; glargine 14 units SC ON; atorvastatin 20mg PO ON",
        measures="seven-point glucose profile|监测七点血糖; dietitian review|营养科会诊",
        course=(
            "Fasting glucose came down below 8 mmol/L.|空腹血糖降至8mmol/L以下。; "
            "Injection technique was taught.|已教会胰岛素注射。"
        ),
        differential=(
            "late-onset type 1 diabetes|成人隐匿性自身免疫糖尿病; "
            "Cushing's syndrome|库欣综合征; "
            "pancreatic disease|胰源性糖尿病"
        ),
        lay="diabetes|糖尿病，血糖太高了",
        advice=(
            "check glucose before breakfast|每天测空腹血糖; "
            "walk half an hour a day|每天走路半小时; "
            "no sweet drinks|不喝含糖饮料"
        ),
        followup="4 weeks: diabetes clinic with glucose diary|4周: 内分泌科门诊，带血糖记录复诊",
    ),
)
