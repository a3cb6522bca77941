"""Looking inside a model that is not changed by it: numbers for pictures, for a page, for whoever is curious.

question                                                  file
Where does each token look?                               attention.py
What could come next, and how likely is it?               chances.py
How does that move with the strength of a LoRA adapter?   dial.py
How did a beam search grow, and what was pruned?          growth.py
"""
