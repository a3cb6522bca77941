"""Diseases of psychiatry."""

from ..condition import Condition

CONDITIONS = (
    Condition(
        "depression",
        "psychiatry",
        "depressive episode of moderate severity|抑郁发作（中度）",
        ages="20-66",
        onset="4-12 weeks",
        symptoms="low_mood insomnia; fatigue anorexia weight_loss worry",
        absent="confusion seizure palpitations",
        story=(
            "Interest in hobbies and friends has gone.|对以往的爱好及社交失去兴趣。; "
            "Work has become impossible to concentrate on.|工作中难以集中注意力。; "
            "There are no plans of self-harm.|否认自伤计划。"
        ),
        never="depression",
        exam=(
            "casually dressed, slow speech, poor eye contact|衣着尚整，语速慢，目光接触少; "
            "mood low, affect reactive|情绪低落，情感反应存在; "
            "no psychotic symptoms|未引出幻觉、妄想"
        ),
        labs="tsh 1.2-2.6",
        extra="PHQ-9 score {phq}|PHQ-9评分{phq}分",
        slots={"phq": "15-19"},
        home="sertraline 50mg PO OD",
        measures="weekly cognitive behavioural therapy|每周1次认知行为治疗; safety plan agreed|制定安全计划",
        differential="adjustment disorder|适应障碍; hypothyroidism|甲状腺功能减退; bipolar disorder|双相情感障碍",
        lay="depression, which is an illness and can be treated|抑郁症，这是病，可以治",
        advice=(
            "the tablets need two to four weeks to work|药物起效需要2到4周; do not stop them suddenly|不要突然停药"
        ),
        followup="2 weeks: review of mood and side effects|2周: 精神科门诊复诊",
    ),
)
