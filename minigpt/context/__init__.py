"""Longer texts: let a model read further, and see whether it makes use of it.  `python -m minigpt.context RUN`.

extend.py     positions stretched, tables interpolated, texts without end
lengths.py    perplexity by position in the context, and by stride on texts that are longer
needle.py     is a fact that stands far back still found?
show.py       their tables and pictures
"""
