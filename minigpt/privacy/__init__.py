"""What of the people in the notes could come out of a model, or should not go in.

question                                             file
Does a text look as if it named somebody?            identifiers.py
How long are the passages two texts share?           overlap.py
Does the model write what it has read?               memorised.py
How well does it know a secret that we have planted? canaries.py  plant.py

    python -m minigpt.privacy RUN                                          the report of a run
    python -m minigpt.privacy.plant notes.jsonl planted.jsonl --field note     secrets for a trial

These find and measure; they remove nothing, and what they do not find may still be there (docs/privacy.md).
"""
