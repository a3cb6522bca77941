"""Diseases of general surgery."""

from ..condition import Condition, Study

CONDITIONS = (
    Condition(
        "appendicitis",
        "general surgery",
        "acute appendicitis|急性阑尾炎",
        ages="18-52",
        onset="10-40 hours",
        stay="2-5",
        symptoms="rif_pain anorexia; nausea vomiting fever",
        absent="dysuria diarrhoea haematuria",
        story=(
            "The pain started round the navel and moved to the right iliac fossa."
            "|腹痛始于脐周，后转移并固定于右下腹。; "
            "Coughing and walking make it worse.|咳嗽、行走时加重。"
        ),
        vitals="t 37.4-38.7, hr 84-112",
        exam=(
            "tenderness and rebound at McBurney's point|麦氏点压痛、反跳痛; "
            "Rovsing's sign positive|结肠充气试验阳性; "
            "no palpable mass|未触及包块"
        ),
        labs="wbc 11.4-18.6, neut 79-92, crp 22-148",
        extra="urinalysis normal|尿常规正常",
        studies=(
            Study(
                "ctabd",
                (
                    "The appendix is {mm} mm in diameter with a thick enhancing wall and fat stranding. No abscess "
                    "or free gas."
                    "|阑尾增粗，直径约{mm}mm，壁增厚强化，周围脂肪间隙渗出，未见脓肿及游离气体。"
                ),
                "uncomplicated acute appendicitis|急性阑尾炎，未见穿孔征象",
                "appendix",
            ),
            Study(
                "usabd",
                (
                    "Non-compressible blind-ending tubular structure in the right iliac fossa, {mm} mm wide."
                    "|右下腹见不可压缩的盲管状结构，直径约{mm}mm。"
                ),
                "acute appendicitis|急性阑尾炎",
                "appendix",
            ),
        ),
        slots={"mm": "9-14"},
        acute=(
            "cefuroxime 1.5g IV Q8H / levofloxacin 500mg IV OD / meropenem 1g IV Q8H; "
            "metronidazole 500mg IV Q8H; "
            "paracetamol 1g IV Q6H"
        ),
        home="paracetamol 1g PO QID x5d",
        procedure="laparoscopic appendicectomy under general anaesthesia|全麻下腹腔镜阑尾切除术|0",
        measures="nil by mouth|禁食水; consent for operation|完善术前准备",
        course=(
            "The appendix was inflamed but not perforated.|术中见阑尾充血水肿，未穿孔。; "
            "Diet was resumed the next morning and wounds were clean.|术后次日恢复进食，切口愈合良好。"
        ),
        differential=(
            "mesenteric adenitis|肠系膜淋巴结炎; right ureteric stone|右侧输尿管结石; terminal ileitis|末端回肠炎"
        ),
        lay="an inflamed appendix|阑尾发炎了",
        advice="no heavy lifting for four weeks|4周内不提重物; keep the wounds dry|保持切口干燥",
        followup="2 weeks: wound check and histology|2周: 外科门诊查看切口及病理",
    ),
    Condition(
        "cholecystitis",
        "general surgery",
        "acute calculous cholecystitis|急性结石性胆囊炎",
        ages="30-80",
        onset="12-60 hours",
        stay="3-7",
        symptoms="ruq_pain nausea; vomiting fever anorexia",
        absent="jaundice melaena dysuria",
        story=(
            "The pain radiates to the right shoulder.|疼痛向右肩背部放射。; "
            "It came on after a rich dinner.|进食油腻晚餐后发作。; "
            "Similar but shorter attacks occurred last year.|去年曾有类似短暂发作。"
        ),
        risks="dm",
        never="gallstones",
        vitals="t 37.6-38.9, hr 88-114",
        exam=(
            "Murphy's sign positive|Murphy征阳性; "
            "tenderness below the right costal margin|右肋缘下压痛; "
            "sclerae not icteric|巩膜无黄染"
        ),
        labs="wbc 11.8-18.9, neut 78-92, crp 42-190, alp 96-158, ggt 48-120",
        studies=(
            Study(
                "usabd",
                (
                    "Distended gallbladder with a wall of {wall} mm and a stone of {mm} mm impacted in the neck. "
                    "Common bile duct not dilated."
                    "|胆囊增大，壁厚{wall}mm，颈部嵌顿结石约{mm}mm，胆总管无扩张。"
                ),
                "acute calculous cholecystitis|胆囊结石伴急性胆囊炎",
                "gallbladder ducts",
            ),
        ),
        slots={"wall": "5-8", "mm": "9-19"},
        acute=(
            "ceftriaxone 2g IV OD / levofloxacin 500mg IV OD / meropenem 1g IV Q8H; "
            "metronidazole 500mg IV Q8H; "
            "hyoscine 20mg IM PRN"
        ),
        home="paracetamol 1g PO QID x5d",
        procedure="laparoscopic cholecystectomy|腹腔镜胆囊切除术|1",
        measures="nil by mouth|禁食; intravenous fluids|静脉补液",
        course=(
            "The operation was uneventful and no drain was left.|手术顺利，未留置引流管。; "
            "Temperature was normal by the second day.|术后第2天体温正常。"
        ),
        differential="biliary colic|胆绞痛; acute cholangitis|急性胆管炎; right lower lobe pneumonia|右下肺炎",
        lay="an inflamed gallbladder with a stone stuck in its neck|胆囊发炎，结石卡在胆囊口了",
        advice="low-fat diet for a month|1个月内低脂饮食; look out for yellow eyes or fever|如发热或眼黄及时就诊",
        followup="2 weeks: surgical clinic|2周: 外科门诊复诊",
    ),
    Condition(
        "obstruction",
        "general surgery",
        "adhesive small bowel obstruction|粘连性小肠梗阻",
        ages="34-84",
        onset="1-3 days",
        stay="4-8",
        symptoms="abdominal_pain distension; vomiting constipation",
        absent="fever melaena jaundice",
        story=(
            "There was abdominal surgery {yr} years ago.|{yr}年前有腹部手术史。; "
            "Vomit turned green overnight.|夜间呕吐物呈黄绿色。"
        ),
        vitals="hr 88-116, sbp 126-104",
        exam=(
            "distended, tympanic abdomen with a midline scar|腹部膨隆，可见正中手术瘢痕，叩诊鼓音; "
            "high-pitched bowel sounds|肠鸣音亢进，可闻及气过水声; "
            "hernial orifices empty|腹股沟区未触及疝"
        ),
        labs="wbc 9.2-13.8, urea 8.0-13.5, k 3.7-3.1, lactate 1.2-2.4, na 138-132",
        studies=(
            Study(
                "ctabd",
                (
                    "Small bowel loops dilated to {mm} mm with air-fluid levels and a transition point in the "
                    "lower abdomen. No closed loop; "
                    "the wall enhances."
                    "|小肠肠管扩张，最宽约{mm}mm，见气液平面，下腹部见移行段，无闭袢征象，肠壁强化良好。"
                ),
                "adhesive small bowel obstruction without ischaemia|粘连性小肠梗阻，无肠缺血征象",
                "bowel",
            ),
        ),
        slots={"yr": "4-20", "mm": "36-46"},
        acute="saline 2000ml IV OD; potassium 20mmol IV BID; omeprazole 40mg IV OD",
        home="lactulose 15ml PO BID x7d",
        measures=(
            "nasogastric tube on free drainage|胃肠减压; "
            "nil by mouth|禁食水; "
            "serial abdominal examination|动态观察腹部体征"
        ),
        course=(
            "Wind was passed on day 2 and the tube was removed.|第2天恢复排气，拔除胃管。; "
            "Obstruction resolved without an operation.|经保守治疗梗阻解除。"
        ),
        differential="incarcerated hernia|嵌顿疝; colonic cancer|结肠癌; paralytic ileus|麻痹性肠梗阻",
        lay="a blockage of the small bowel by scar tissue|肠粘连引起的肠梗阻",
        advice="small, soft meals|少量多餐，进软食; come back if vomiting or pain returns|再次腹痛呕吐及时就诊",
        followup="2 weeks: surgical clinic|2周: 外科门诊复诊",
    ),
)
