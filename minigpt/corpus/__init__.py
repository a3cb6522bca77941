"""From the user's files to batches.

question                                   file
Which texts are in these files?            documents.py  usable.py
How do they become a directory of tokens?  preparation.py
Which of them validate?                    split.py
How is that directory opened?              tokens.py
What does one training step see?           batches.py
How is a text with gaps made of it?        spans.py

The same for instructions and dialogues    records.py  talk.py  examples.py  rows.py
and for records with a label               labelled.py
"""

from importlib import import_module

_HOME = {
    **dict.fromkeys(("Batch", "Batches"), "batches"),
    "Document": "usable",
    "Documents": "documents",
    "RecordBatches": "rows",
    "RecordConfig": "records",
    **dict.fromkeys(("Tokens", "load_tokens"), "tokens"),
    "open_records": "examples",
    "prepare": "preparation",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    """Names are fetched when first asked for: options that stand beside these should not wait for torch."""
    if name in _HOME:
        return getattr(import_module(f"minigpt.corpus.{_HOME[name]}"), name)
    raise AttributeError(f"module 'minigpt.corpus' has no attribute {name!r}")
