"""Examinations: what they are called, how they are done, and what is normal when nothing is said."""

# ruff: noqa: E501  a text and its translation, or its alternatives, stay on one line

from dataclasses import dataclass


@dataclass(frozen=True)
class Modality:
    """`normals` are "tag: english|chinese" sentences; a study's `without` drops those that would contradict it."""

    name: str
    technique: str = ""  # empty: a bedside test, not a radiology report
    normals: tuple = ()


MODALITIES = {
    "cxr": Modality(
        "chest X-ray|胸部X线正侧位", "PA and lateral views.|胸部正侧位摄片。",
        ("lungs: The lungs are otherwise clear.|双肺野清晰。", "heart: The cardiac silhouette is normal in size.|心影大小、形态正常。",
         "effusion: No pleural effusion.|双侧肋膈角锐利。", "pneumothorax: No pneumothorax.|未见气胸。", "bones: The ribs are intact.|所见骨性胸廓完整。"),
    ),
    "ctchest": Modality(
        "CT of the chest|胸部CT", "Thin-section CT without contrast.|胸部薄层平扫。",
        ("airways: The central airways are patent.|气管及主支气管通畅。", "nodes: No enlarged mediastinal lymph nodes.|纵隔内未见肿大淋巴结。",
         "effusion: No pleural effusion.|双侧胸腔未见积液。", "heart: The heart is not enlarged.|心脏未见增大。"),
    ),
    "ctpa": Modality(
        "CT pulmonary angiography|肺动脉CTA", "CT after intravenous contrast, timed for the pulmonary arteries.|静脉注射对比剂后行肺动脉期增强扫描。",
        ("aorta: The thoracic aorta is normal.|胸主动脉未见异常。", "lungs: No consolidation.|双肺未见实变影。", "nodes: No enlarged lymph nodes.|纵隔未见肿大淋巴结。"),
    ),
    "echo": Modality(
        "transthoracic echocardiogram|经胸超声心动图", "Standard parasternal, apical and subcostal views.|胸骨旁、心尖及剑突下标准切面。",
        ("lv: Left ventricular wall motion is normal.|左室壁运动协调。", "valves: No significant valve disease.|各瓣膜未见明显异常。",
         "pericardium: No pericardial effusion.|心包腔未见积液。"),
    ),
    "ecg": Modality("ECG|心电图"),
    "eeg": Modality("EEG|脑电图"),
    "endoscopy": Modality("endoscopy|内镜检查"),
    "usabd": Modality(
        "abdominal ultrasound|腹部超声", "Real-time examination after fasting.|空腹实时超声检查。",
        ("liver: The liver is normal in size and echotexture.|肝脏大小、形态正常，实质回声均匀。", "ducts: No biliary dilatation.|肝内外胆管未见扩张。",
         "kidneys: The kidneys are unremarkable.|双肾未见明显异常。", "fluid: No free fluid.|腹腔未见游离液体。", "spleen: The spleen is not enlarged.|脾脏未见增大。"),
    ),
    "ctabd": Modality(
        "CT of the abdomen and pelvis|全腹部CT", "CT from the diaphragm to the pubic symphysis.|自膈顶至耻骨联合扫描。",
        ("liver: No focal liver lesion.|肝脏未见占位性病变。", "gas: No free gas.|腹腔未见游离气体。", "aorta: The aorta is of normal calibre.|腹主动脉管径正常。",
         "nodes: No enlarged lymph nodes.|腹膜后未见肿大淋巴结。", "bones: No destructive bone lesion.|所见骨质未见破坏。"),
    ),
    "cthead": Modality(
        "CT of the head|头颅CT", "Axial CT without contrast.|头颅横断面平扫。",
        ("midline: No midline shift.|中线结构居中。", "ventricles: The ventricles are normal in size.|脑室系统大小正常。", "bones: No skull fracture.|颅骨未见骨折。",
         "white: Grey-white differentiation is preserved.|灰白质分界清楚。"),
    ),
    "mrihead": Modality(
        "MRI of the brain|颅脑MRI", "T1, T2, FLAIR, diffusion and gradient-echo images.|行T1WI、T2WI、FLAIR、DWI及SWI序列扫描。",
        ("diffusion: No restricted diffusion.|DWI未见异常高信号。", "flow: Normal flow voids in the large arteries.|颅底大血管流空信号正常。",
         "sinuses: The paranasal sinuses are clear.|鼻旁窦未见异常。", "parenchyma: The brain parenchyma is otherwise normal.|余脑实质未见异常信号。"),
    ),
    "usrenal": Modality(
        "ultrasound of kidneys and bladder|泌尿系超声", "Transabdominal ultrasound.|经腹部超声检查。",
        ("kidneys: Both kidneys are normal in size.|双肾大小正常。", "cysts: No renal cyst.|双肾未见囊肿。", "bladder: The bladder wall is smooth.|膀胱壁光滑。"),
    ),
    "uspelvis": Modality(
        "pelvic ultrasound|盆腔超声", "Transabdominal and transvaginal ultrasound.|经腹及经阴道超声检查。",
        ("bladder: The bladder is normal.|膀胱未见异常。", "uterus: The myometrium is homogeneous.|子宫肌层回声均匀。", "adnexa: No adnexal mass.|双侧附件区未见包块。"),
    ),
    "usob": Modality("obstetric ultrasound|产科超声", "Transabdominal ultrasound.|经腹部超声检查。",
                     ("placenta: The placenta is not low-lying.|胎盘位置正常。", "lie: Cephalic presentation.|头位。")),
    "usscrotum": Modality("scrotal Doppler ultrasound|阴囊彩超", "High-frequency linear probe.|高频线阵探头检查。",
                          ("other: The other testis is normal with good flow.|对侧睾丸大小、血流正常。", "hydrocele: No large hydrocele.|未见大量鞘膜积液。")),
    "usthyroid": Modality("thyroid ultrasound|甲状腺超声", "High-frequency linear probe.|高频线阵探头检查。",
                          ("nodes: No suspicious cervical lymph nodes.|双侧颈部未见异常肿大淋巴结。", "trachea: The trachea is central.|气管居中。")),
    "doppler": Modality("venous Doppler of the legs|下肢静脉彩超", "Compression ultrasound from groin to ankle.|自腹股沟至踝部加压超声检查。",
                        ("other: The veins of the other leg are normal.|对侧下肢静脉通畅。", "cyst: No Baker's cyst.|腘窝未见囊肿。", "veins: Flow is phasic throughout.|血流充盈好，随呼吸变化。")),
    "hipxr": Modality("X-ray of pelvis and hip|骨盆及髋关节X线", "AP pelvis and lateral hip.|骨盆正位及髋关节侧位。", ("oa: Mild degenerative change of both hips.|双髋关节轻度退变。",)),
    "wristxr": Modality("X-ray of the wrist|腕关节X线", "PA and lateral views.|腕关节正侧位。", ("carpus: The carpal bones are aligned.|腕骨排列正常。", "ulna: The ulnar styloid is intact.|尺骨茎突完整。")),
    "handxr": Modality("X-ray of both hands|双手X线", "PA views.|双手正位。", ("align: Alignment is normal.|各关节对位正常。", "fracture: No fracture.|未见骨折。")),
    "footxr": Modality("X-ray of the foot|足部X线", "AP and oblique views.|足正斜位。", ("fracture: No fracture.|未见骨折。", "align: Alignment is normal.|各关节对位正常。")),
    "mrispine": Modality("MRI of the lumbar spine|腰椎MRI", "Sagittal T1, T2 and STIR, axial T2.|矢状位T1WI、T2WI、STIR及横断位T2WI。",
                         ("cord: The conus ends at L1 and is normal.|脊髓圆锥位于L1水平，信号正常。", "bones: No vertebral fracture.|椎体未见骨折。", "align: Alignment is normal.|腰椎序列正常。")),
}  # fmt: skip


def normals(study):
    """The reassuring sentences that a report on this study may carry."""
    pairs = [line.split(": ", 1) for line in MODALITIES[study.modality].normals]
    return [text for tag, text in pairs if tag not in study.without.split()]
