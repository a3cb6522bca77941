"""How a GPT writes.

question                                   file             paper
Which tokens may come, how likely?         processors.py    Fan et al. 2018, Holtzman et al. 2020
What do the tokens before forbid?          penalties.py     Keskar et al. 2019
Must it be one of these terms?             constraints.py
How is one drawn, from which randomness?   sampling.py
What is read at each step, and shared?     reader.py
How is a step compiled, once and for all?  compiled.py
How are many texts written at once?        generate.py
And texts that are asked for at any time?  engine.py lanes.py asking.py joining.py
Which texts are the most likely?           search.py beams.py   Graves 2012; Vijayakumar et al. 2018
How does a search look?                    tree.py
When does the text end?                    stops.py
How likely is this text?                   scoring.py
Can a small model help a large one?        speculative.py   Leviathan et al. 2023
What does sample.py do with all that?      writer.py
"""

from minigpt.generation.beams import beam_search
from minigpt.generation.generate import generate, stream
from minigpt.generation.reader import Memory
from minigpt.generation.scoring import Score, best_of_n, score
from minigpt.generation.search import Beam
from minigpt.generation.speculative import speculate

__all__ = ["Beam", "Memory", "Score", "beam_search", "best_of_n", "generate", "score", "speculate", "stream"]
