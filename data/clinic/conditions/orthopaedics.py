"""Diseases of orthopaedics."""

from ..condition import Condition, Study

SIDE = "right|右侧; left|左侧"

CONDITIONS = (
    Condition(
        "hip",
        "orthopaedics",
        "displaced femoral neck fracture|股骨颈骨折（移位型）",
        ages="66-92",
        onset="2-12 hours",
        stay="7-12",
        symptoms="hip_pain cannot_walk",
        absent="syncope chest_pain headache",
        story=(
            "Tripped over a carpet at home.|在家中被地毯绊倒。; "
            "Slipped in the bathroom.|在浴室滑倒。; "
            "Walked without aids before.|伤前可独立行走。"
        ),
        risks="osteoporosis htn",
        vitals="hr 78-100",
        exam=(
            "{side} leg shortened and externally rotated|{side}下肢短缩、外旋畸形; "
            "pain on any hip movement|髋关节活动痛; "
            "foot pulses and sensation normal|足背动脉搏动及感觉正常"
        ),
        labs="hb 126-100, wbc 9.2-12.2",
        studies=(
            Study(
                "hipxr",
                (
                    "Displaced fracture through the {side} femoral neck. No pelvic fracture."
                    "|{side}股骨颈骨折，断端移位，骨盆未见骨折。"
                ),
                "displaced {side} femoral neck fracture|{side}股骨颈骨折，移位型",
                "bones",
            ),
        ),
        slots={"side": SIDE},
        acute="paracetamol 1g IV Q6H; morphine 2.5mg IVP PRN / tramadol 50mg PO TID; enoxaparin 40mg SC OD",
        home="paracetamol 1g PO QID x14d; rivaroxaban 10mg PO OD x28d; alendronate 70mg PO QW; vitamind 600mg PO OD",
        procedure="cemented {side} hemiarthroplasty|{side}人工股骨头置换术|1",
        measures="nerve block|神经阻滞镇痛; falls assessment|跌倒风险评估",
        course=(
            "Sat out on the first day after operation and walked with a frame.|术后第1天坐起，助行器辅助下行走。; "
            "Wound dry.|切口干燥。"
        ),
        differential=(
            "pubic ramus fracture|耻骨支骨折; hip dislocation|髋关节脱位; intertrochanteric fracture|股骨粗隆间骨折"
        ),
        lay="a broken hip|髋部骨折了，股骨颈断了",
        advice="do not cross your legs|避免跷二郎腿; remove loose carpets|家中移除地毯等障碍物",
        followup="6 weeks: fracture clinic with X-ray|6周: 骨科门诊复查X线",
    ),
    Condition(
        "wrist",
        "orthopaedics",
        "distal radius fracture|桡骨远端骨折",
        ages="44-84",
        onset="1-10 hours",
        symptoms="wrist_pain; numbness",
        absent="syncope headache hip_pain",
        story=(
            "Fell on the outstretched hand on a wet pavement.|在湿滑路面跌倒，手掌撑地。; "
            "The {side} hand is used for everything else without trouble.|伤前{side}手活动正常。"
        ),
        risks="osteoporosis",
        exam=(
            "dinner-fork deformity of the {side} wrist|{side}腕部呈餐叉样畸形; "
            "capillary refill normal|末梢血运正常; "
            "skin intact|皮肤完整"
        ),
        studies=(
            Study(
                "wristxr",
                (
                    "Extra-articular fracture of the {side} distal radius with {deg} degrees of dorsal angulation."
                    "|{side}桡骨远端关节外骨折，向背侧成角约{deg}°。"
                ),
                "{side} distal radius fracture with dorsal angulation|{side}桡骨远端骨折，背侧成角",
                "bones",
            ),
        ),
        slots={"side": SIDE, "deg": "12-26"},
        home="paracetamol 1g PO QID x7d; celecoxib 200mg PO OD x5d / tramadol 50mg PO PRN",
        measures="closed reduction under haematoma block and plaster|血肿内麻醉下手法复位、石膏固定",
        differential="scaphoid fracture|舟骨骨折; carpal dislocation|腕骨脱位; sprain|腕关节扭伤",
        lay="a broken wrist|手腕骨折了",
        advice=(
            "keep the hand up and move the fingers|抬高患肢，多活动手指; "
            "come back if the fingers turn blue or numb|手指发紫、麻木立即就诊"
        ),
        followup="1 week: check X-ray in plaster|1周: 复查X线",
    ),
    Condition(
        "disc",
        "orthopaedics",
        "lumbar disc herniation with sciatica|腰椎间盘突出症",
        ages="26-62",
        onset="2-8 weeks",
        symptoms="back_pain sciatica; numbness",
        absent="retention fever weight_loss",
        story=(
            "It came after lifting a washing machine.|搬重物后出现。; "
            "Sitting and coughing make it worse.|久坐、咳嗽时加重。"
        ),
        exam=(
            "straight leg raise positive at {deg} degrees on the {side}|{side}直腿抬高试验{deg}°阳性; "
            "reduced sensation over the lateral {side} foot|{side}足外侧感觉减退; "
            "power grade 5 throughout|肌力5级; "
            "anal tone normal|肛门括约肌张力正常"
        ),
        studies=(
            Study(
                "mrispine",
                (
                    "{side} posterolateral disc protrusion at L5/S1 of {mm} mm touching the S1 root. No cauda "
                    "equina compression."
                    "|L5/S1椎间盘向{side}后外侧突出约{mm}mm，压迫S1神经根，马尾未受压。"
                ),
                "L5/S1 disc protrusion with {side} S1 root contact|L5/S1椎间盘突出，{side}S1神经根受压",
                "discs",
            ),
        ),
        slots={"side": SIDE, "deg": "30-50", "mm": "4-8"},
        home="celecoxib 200mg PO OD x10d / paracetamol 1g PO QID; pregabalin 75mg PO BID x14d",
        measures="physiotherapy|康复理疗; stay active|避免长期卧床",
        differential="spinal stenosis|腰椎管狭窄; sacroiliitis|骶髂关节炎; hip arthritis|髋关节炎",
        lay="a slipped disc that presses on a nerve|腰椎间盘突出压到神经了",
        advice=(
            "come at once with numbness between the legs or trouble passing water|如会阴麻木或排尿困难立即就诊; "
            "lift with bent knees|搬东西屈膝下蹲"
        ),
        followup="6 weeks: spine clinic|6周: 骨科门诊复诊",
    ),
)
