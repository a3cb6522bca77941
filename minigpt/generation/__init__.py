"""How a GPT writes.

question                                   file             paper
Which tokens may be drawn, how likely?     processors.py    Fan et al. 2018, Holtzman et al. 2020
How is one drawn, from which randomness?   sampling.py
How are many prompts written at once?      generate.py
"""

from minigpt.generation.generate import generate, stream

__all__ = ["generate", "stream"]
