"""The diseases, one file a specialty. A new disease goes into the file of its specialty, and nowhere else."""

from . import (
    cardiology,
    dermatology,
    endocrinology,
    gastroenterology,
    general_surgery,
    haematology,
    infectious_diseases,
    nephrology,
    neurology,
    obstetrics_and_gynaecology,
    orthopaedics,
    psychiatry,
    respiratory_medicine,
    rheumatology,
    urology,
)

CONDITIONS = (
    cardiology.CONDITIONS
    + respiratory_medicine.CONDITIONS
    + gastroenterology.CONDITIONS
    + general_surgery.CONDITIONS
    + neurology.CONDITIONS
    + infectious_diseases.CONDITIONS
    + psychiatry.CONDITIONS
    + dermatology.CONDITIONS
    + nephrology.CONDITIONS
    + urology.CONDITIONS
    + endocrinology.CONDITIONS
    + haematology.CONDITIONS
    + rheumatology.CONDITIONS
    + obstetrics_and_gynaecology.CONDITIONS
    + orthopaedics.CONDITIONS
)
