"""What tunes a frozen GPT and is not LoRA: each method enters from outside, through the model's openings.

freeze.py     some of the weights learn        adapter.py    bottlenecks behind the sub-layers
prompt.py     virtual tokens before the text   ptuning.py    virtual tokens anywhere, out of an encoder
prefix.py     keys and values before the text, in every layer

Every one of them, and `lora`, has the same verbs; several can be held by name, and different ones together:

    Config                                           what it is made of, a frozen dataclass
    attach(model, config, name) -> Report            new, at work, and learning; the base is frozen (learning.py)
    use(model, name)                                 this one works from now on; None: none does
    rows(model, [name, None, ...])                   a context: each row of a batch its own (mixed.py: of all methods)
    names(model)                                     what is held
    save(model, directory, name, base=)              in PEFT's format where it has one; `base` names the model
    load(model, directory, name, trainable=) -> Report      as it was, and it learns only if asked to
    detach(model, name)                              gone; without a name all are, and with the last one every trace

A prompt has no `use`: the ids in a row say which one it has (`with_prompt`), and rows without any are the base's. Its
`rows` only sees to the positions of texts after prompts that were tuned with shift=False.

    >>> import tempfile
    >>> from minigpt import GPT, GPTConfig
    >>> from minigpt.tuning import adapter, prefix, prompt
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=64))
    >>> for method in (adapter, prefix, prompt):
    ...     _ = method.attach(model, method.Config(), "letters")
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         method.save(model, folder, "letters", base="runs/mine")
    ...         method.detach(model, "letters")
    ...         _ = method.load(model, folder, "letters", trainable=True)
    ...     with method.rows(model, ["letters", None]):
    ...         print(method.names(model))
    ...     if method is not prompt:
    ...         method.use(model, None)
    ...     method.detach(model)
    ['letters']
    ['letters']
    ['letters']

composed.py opens what lies in a directory beside the model that it names.
"""
