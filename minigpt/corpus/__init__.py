"""From the user's files to batches.

question                                   file
Which texts are in these files?            documents.py
How do they become a directory of tokens?  preparation.py
Which of them validate?                    split.py
How is that directory opened?              tokens.py
What does one training step see?           batches.py

The same for instructions and dialogues    records.py  talk.py  examples.py  rows.py
"""

from minigpt.corpus.batches import Batch, Batches
from minigpt.corpus.documents import Document, Documents
from minigpt.corpus.examples import open_records
from minigpt.corpus.preparation import prepare
from minigpt.corpus.records import RecordConfig
from minigpt.corpus.rows import RecordBatches
from minigpt.corpus.tokens import Tokens, load_tokens

__all__ = [
    "Batch",
    "Batches",
    "Document",
    "Documents",
    "RecordBatches",
    "RecordConfig",
    "Tokens",
    "load_tokens",
    "open_records",
    "prepare",
]
