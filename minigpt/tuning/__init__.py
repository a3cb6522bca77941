"""What tunes a frozen GPT and is not LoRA: each method enters from outside, through the model's openings.

freeze.py     some of the weights learn        adapter.py    bottlenecks behind the sub-layers
prompt.py     virtual tokens before the text   ptuning.py    virtual tokens anywhere, out of an encoder
prefix.py     keys and values before the text, in every layer
"""
