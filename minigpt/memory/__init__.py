"""How many bytes will this need, and where do they go?  `python -m minigpt.memory gpt2 --batch 8`.

job.py says what is asked, plan.py which parameters there are and which of them learn, walk.py what a forward pass
keeps for the backward pass, predict.py adds it all up, rules.py holds the folk rules against the sums.
"""

from minigpt.memory.job import Job
from minigpt.memory.plan import Plan
from minigpt.memory.predict import Prediction, largest_batch, predict

__all__ = ["Job", "Plan", "Prediction", "largest_batch", "predict"]
