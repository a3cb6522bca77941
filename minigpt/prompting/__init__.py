"""Asking a GPT by words alone, no weight changing; and the one method that learns and asks so too.

question                                       file           paper
What stands before the question?               template.py    Brown et al. 2020 section 2
Which answer does the model find likeliest?    answers.py     Brown et al. 2020 section 2.4
Which examples are worth showing?              retrieval.py   Liu et al. 2022 (KATE)
How much does the wording decide?              trial.py       Zhao et al. 2021 section 3
How is it told and drawn?                      show.py
How does a soft prompt learn beside examples?  soft.py        Singhal et al. 2022, Sun et al. 2023, Qin & Eisner 2021
"""

from minigpt.prompting.template import Builder, Example, Prompt, Template

__all__ = ["Builder", "Example", "Prompt", "Template"]
