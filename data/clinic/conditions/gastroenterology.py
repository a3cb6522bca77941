"""Diseases of gastroenterology."""

from ..condition import Condition, Study

CONDITIONS = (
    Condition(
        "gibleed",
        "gastroenterology",
        "upper gastrointestinal bleeding from a duodenal ulcer|十二指肠球部溃疡伴上消化道出血",
        ages="28-84",
        onset="6-48 hours",
        stay="4-7",
        smoking=0.4,
        symptoms="melaena dizziness; haematemesis epigastric_pain fatigue syncope",
        absent="fever jaundice bloody_diarrhoea",
        story=(
            "Ibuprofen had been bought over the counter for back pain.|因腰痛自行购服布洛芬。; "
            "Hunger pain at night has been present for two months.|近2个月常有夜间饥饿痛。"
        ),
        never="cirrhosis nsaid",
        avoid="nsaid anticoagulant antiplatelet p2y12 antihypertensive",
        vitals="hr 94-126, sbp 112-84, dbp 68-50, rr 17-22",
        exam=(
            "pale conjunctivae|睑结膜苍白; "
            "epigastric tenderness without guarding|上腹部轻压痛，无反跳痛; "
            "black stool on rectal examination|直肠指检指套染黑便"
        ),
        labs="hb 104-62, urea 9.2-18.5, mcv 88-82, inr 0.9-1.1",
        studies=(
            Study(
                "endoscopy",
                (
                    "Ulcer of {mm} mm on the anterior wall of the duodenal bulb with a visible vessel. No varices."
                    "|十二指肠球部前壁见一{mm}mm溃疡，可见裸露血管，未见静脉曲张。"
                ),
                "bleeding duodenal ulcer, Forrest IIa|十二指肠球部溃疡伴出血（Forrest IIa级）",
            ),
        ),
        slots={"mm": "6-14"},
        extra="rapid urease test positive|快速尿素酶试验阳性; stool occult blood positive|大便隐血阳性",
        acute="pantoprazole 80mg IVP STAT; pantoprazole 40mg IV Q12H; saline 1000ml IV STAT",
        home=(
            "omeprazole 20mg PO BID; "
            "bismuth 220mg PO BID x14d; "
            "amoxicillin 1g PO BID x14d / tetracycline 500mg PO TID x14d; "
            "clarithromycin 500mg PO BID x14d / metronidazole 400mg PO TID x14d"
        ),
        procedure="endoscopic clipping of the ulcer vessel|内镜下钛夹止血术|1",
        measures=(
            "nil by mouth until endoscopy|内镜检查前禁食; crossmatch two units of red cells|交叉配血，备红细胞2单位"
        ),
        course=(
            "There was no further bleeding after endoscopy.|内镜治疗后未再出血。; "
            "Diet was built up from fluids to solids.|由流质逐步过渡至普通饮食。"
        ),
        differential=(
            "oesophageal varices|食管胃底静脉曲张破裂出血; gastric cancer|胃癌; erosive gastritis|急性糜烂性胃炎"
        ),
        lay="a bleeding ulcer just beyond the stomach|十二指肠溃疡出血了",
        advice=(
            "do not take ibuprofen or similar painkillers|不要再服布洛芬等止痛药; "
            "come back at once if stools turn black again|再次黑便立即就诊"
        ),
        followup="6 weeks: breath test for Helicobacter pylori|6周: 复查碳13呼气试验",
    ),
    Condition(
        "pancreatitis",
        "gastroenterology",
        "acute biliary pancreatitis|急性胆源性胰腺炎",
        ages="32-78",
        onset="8-40 hours",
        stay="6-12",
        symptoms="epigastric_pain vomiting; nausea distension fever",
        absent="melaena chest_pain dysuria",
        story=(
            "The pain bores through to the back.|疼痛向腰背部放射。; "
            "It began a few hours after a fatty meal.|进食油腻食物数小时后起病。; "
            "Leaning forward gives slight relief.|弯腰前倾位稍缓解。"
        ),
        risks="gallstones lipid",
        vitals="t 37.2-38.6, hr 92-122, sbp 128-98, rr 18-27, spo2 97-93",
        exam=(
            "epigastric tenderness with guarding|上腹部压痛伴肌紧张; "
            "bowel sounds reduced|肠鸣音减弱; "
            "no Grey Turner sign|Grey-Turner征阴性"
        ),
        labs=(
            "amylase 480-1950, lipase 420-3100, wbc 11.8-19.5, crp 45-240, alt 96-320, bili 24-58, calcium 2.20-1.90"
        ),
        studies=(
            Study(
                "ctabd",
                (
                    "The pancreas is swollen with blurred margins and peripancreatic fat stranding. No necrosis. "
                    "Several stones in the gallbladder."
                    "|胰腺体积增大，边缘模糊，周围脂肪间隙渗出，未见坏死；胆囊内多发结石。"
                ),
                "acute interstitial pancreatitis; gallstones|急性间质水肿性胰腺炎；胆囊结石",
                "pancreas gallbladder",
            ),
            Study(
                "usabd",
                (
                    "Multiple mobile gallstones up to {mm} mm. Common bile duct {duct} mm wide. Pancreas partly "
                    "obscured by gas."
                    "|胆囊内多发强回声光团，最大约{mm}mm，可移动；胆总管内径{duct}mm；胰腺受气体干扰显示不清。"
                ),
                "gallstones without clear duct dilatation|胆囊多发结石，胆总管无明显扩张",
                "gallbladder pancreas ducts",
            ),
        ),
        slots={"mm": "5-13", "duct": "5-7"},
        acute=(
            "saline 3000ml IV OD; "
            "omeprazole 40mg IV OD; "
            "tramadol 100mg IM PRN / paracetamol 1g IV Q6H; "
            "octreotide 0.1mg SC Q8H"
        ),
        home="omeprazole 20mg PO OD x14d",
        measures=(
            "nil by mouth, then early low-fat feeding|禁食，症状缓解后尽早低脂饮食; hourly urine output|记录每小时尿量"
        ),
        course=(
            "Pain settled and low-fat diet was tolerated from day 3.|第3天腹痛缓解，恢复低脂饮食。; "
            "Amylase fell steadily.|血淀粉酶逐渐下降。"
        ),
        differential=(
            "perforated ulcer|消化性溃疡穿孔; acute cholecystitis|急性胆囊炎; myocardial infarction|急性心肌梗死"
        ),
        lay="an inflamed pancreas, set off by gallstones|胰腺炎，是胆结石引起的",
        advice="eat low-fat food|低脂饮食; drink no alcohol|戒酒; have the gallbladder removed soon|尽早切除胆囊",
        followup="2 weeks: surgical clinic to plan cholecystectomy|2周: 外科门诊安排胆囊切除",
    ),
    Condition(
        "colitis",
        "gastroenterology",
        "flare of ulcerative colitis|溃疡性结肠炎（活动期）",
        ages="20-58",
        onset="1-4 weeks",
        stay="5-10",
        smoking=0.1,
        symptoms="bloody_diarrhoea abdominal_pain; fatigue weight_loss fever",
        absent="vomiting jaundice dysuria",
        story=(
            "Stools number {n} a day, with urgency at night.|大便每日{n}次，夜间亦有便意。; "
            "Mesalazine had been taken irregularly.|平素美沙拉秦服用不规律。"
        ),
        never="cirrhosis",
        avoid="nsaid",
        vitals="t 37.0-38.2, hr 86-112, sbp 124-106",
        exam="tenderness in the left iliac fossa without rebound|左下腹压痛，无反跳痛; no abdominal mass|未触及包块",
        labs="hb 118-84, crp 26-110, esr 28-72, plt 320-520, alb 39-29, k 3.8-3.2",
        extra="stool culture negative|大便培养阴性; Clostridioides difficile toxin negative|艰难梭菌毒素阴性",
        studies=(
            Study(
                "endoscopy",
                (
                    "Continuous erythema, loss of vascular pattern and superficial ulcers from the rectum to {cm} "
                    "cm."
                    "|直肠至距肛缘{cm}cm黏膜连续性充血、血管纹理消失，散在浅溃疡。"
                ),
                "moderately active left-sided ulcerative colitis|左半结肠型溃疡性结肠炎，中度活动",
            ),
            Study(
                "ctabd",
                (
                    "Continuous wall thickening of the descending and sigmoid colon up to {mm} mm. No perforation "
                    "or abscess."
                    "|降结肠及乙状结肠壁连续性增厚，最厚约{mm}mm，未见穿孔及脓肿。"
                ),
                "colitis of the descending and sigmoid colon without complication|降结肠及乙状结肠炎，未见并发症",
                "bowel",
            ),
        ),
        slots={"n": "6-10", "cm": "35-50", "mm": "7-11"},
        acute="hydrocortisone 100mg IV Q6H; mesalazine 4g PO OD; enoxaparin 40mg SC OD",
        home="prednisolone 40mg PO OD x14d; mesalazine 2.4g PO OD; vitamind 600mg PO OD",
        measures="stool chart|记录大便次数; low-residue diet|少渣饮食",
        course=(
            "Stool frequency fell to three a day without blood.|大便减少至每日3次，无血。; "
            "Changed from intravenous to oral steroids.|激素由静脉改为口服。"
        ),
        differential="infectious colitis|感染性结肠炎; Crohn's disease|克罗恩病; ischaemic colitis|缺血性肠病",
        lay="a flare-up of the inflammation of your large bowel|溃疡性结肠炎又活动了",
        advice=(
            "reduce the steroid step by step as written|按医嘱逐步减激素; take mesalazine every day|坚持每天服美沙拉秦"
        ),
        followup="2 weeks: gastroenterology clinic with blood tests|2周: 消化科门诊复查血常规及CRP",
    ),
    Condition(
        "reflux",
        "gastroenterology",
        "gastro-oesophageal reflux disease|胃食管反流病",
        ages="24-68",
        onset="2-6 months",
        symptoms="heartburn regurgitation; cough sore_throat epigastric_pain",
        absent="dysphagia weight_loss melaena",
        story=(
            "Worse after large meals and on lying down.|饱餐后及平卧时明显。; "
            "Coffee and late suppers bring it on.|喝咖啡及睡前进食可诱发。"
        ),
        never="gord ihd",
        avoid="nsaid",
        exam="abdomen soft, no tenderness|腹软，无压痛; no lymph nodes above the clavicle|锁骨上未触及肿大淋巴结",
        studies=(
            Study(
                "endoscopy",
                (
                    "Two mucosal breaks shorter than 5 mm at the lower oesophagus. Small hiatus hernia."
                    "|食管下段见2条黏膜破损，长径<5mm；小型食管裂孔疝。"
                ),
                "reflux oesophagitis, Los Angeles grade A|反流性食管炎（LA-A级）",
            ),
        ),
        home="omeprazole 20mg PO BID x56d; alginate 10ml PO TID",
        measures="raise the head of the bed|抬高床头; no food within three hours of bedtime|睡前3小时不进食",
        differential="peptic ulcer|消化性溃疡; angina|心绞痛; functional dyspepsia|功能性消化不良",
        lay="stomach acid coming up into the gullet|胃酸反流到食管了",
        advice="lose some weight|适当减重; avoid coffee and late suppers|少喝咖啡，睡前别吃东西",
        followup="8 weeks: review of symptoms|8周: 消化科门诊评估症状",
    ),
    Condition(
        "cirrhosis",
        "gastroenterology",
        "decompensated alcoholic cirrhosis with ascites|酒精性肝硬化失代偿期伴腹水",
        ages="42-72",
        onset="2-6 weeks",
        stay="7-14",
        symptoms="distension leg_swelling; fatigue anorexia jaundice",
        absent="haematemesis fever confusion",
        story=(
            "Trousers no longer close at the waist.|腰围明显增粗，裤子系不上。; "
            "Drank half a bottle of spirits a day for {yr} years.|长期饮白酒约半斤/日，{yr}年。"
        ),
        risks="dm",
        never="cirrhosis af ihd depression gallstones",
        avoid="nsaid ras statin biguanide ccb opioid",
        vitals="hr 84-104, sbp 116-96, dbp 70-56",
        exam=(
            "spider naevi and palmar erythema|可见蜘蛛痣及肝掌; "
            "shifting dullness|移动性浊音阳性; "
            "spleen palpable {cm} cm below the costal margin|脾肋下{cm}cm可触及; "
            "no flapping tremor|扑翼样震颤阴性"
        ),
        labs=(
            "alb 32-23, bili 32-96, inr 1.3-1.9, plt 112-48, ast 68-165, alt 44-92, na 136-128, ggt 110-420, "
            "ammonia 35-45"
        ),
        extra="ascitic fluid: SAAG above 11 g/L, 120 white cells x10^6/L|腹水SAAG>11g/L，白细胞120×10^6/L",
        studies=(
            Study(
                "usabd",
                (
                    "The liver is small with a nodular surface. Spleen enlarged to {spl} mm. Large-volume ascites. "
                    "Portal flow is hepatopetal."
                    "|肝脏缩小，表面呈结节状；脾大，长径约{spl}mm；腹腔大量积液；门静脉血流向肝。"
                ),
                "cirrhosis with splenomegaly and large-volume ascites|肝硬化，脾大，大量腹水",
                "liver spleen fluid",
            ),
        ),
        slots={"yr": "12-25", "cm": "2-5", "spl": "138-172"},
        acute="spironolactone 100mg PO OD; furosemide 40mg PO OD; albumin 20g IV OD; lactulose 15ml PO BID",
        home="spironolactone 100mg PO OD; furosemide 40mg PO OD; propranolol 10mg PO BID; lactulose 15ml PO BID",
        procedure="ultrasound-guided paracentesis of 4 L|超声引导下腹腔穿刺放液4L|1",
        measures="salt below 5 g a day|每日食盐<5g; daily weight and girth|每日测体重、腹围",
        course=(
            "Ascites became soft and weight fell by 5 kg.|腹水明显减少，体重下降5kg。; "
            "No sign of spontaneous bacterial peritonitis.|未见自发性腹膜炎征象。"
        ),
        differential=("heart failure|心力衰竭; tuberculous peritonitis|结核性腹膜炎; peritoneal cancer|腹膜恶性肿瘤"),
        lay="scarring of the liver, with fluid collecting in the belly|肝硬化，肚子里积了水",
        advice="stop alcohol completely|严格戒酒; come back if confused or vomiting blood|如意识异常或呕血立即就诊",
        followup="2 weeks: liver clinic with electrolytes|2周: 肝病门诊复查电解质及肾功能",
    ),
)
