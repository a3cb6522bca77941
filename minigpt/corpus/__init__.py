"""From the user's files to batches.

question                                   file
Which texts are in these files?            documents.py
How do they become a directory of tokens?  preparation.py
Which of them validate?                    split.py
How is that directory opened?              tokens.py
What does one training step see?           batches.py
How is a text with gaps made of it?        spans.py
"""

from minigpt.corpus.batches import Batch, Batches
from minigpt.corpus.documents import Document, Documents
from minigpt.corpus.preparation import prepare
from minigpt.corpus.tokens import Tokens, load_tokens

__all__ = ["Batch", "Batches", "Document", "Documents", "Tokens", "load_tokens", "prepare"]
