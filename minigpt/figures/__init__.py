"""Pictures of a model, of a run and of an adapter: `python -m minigpt.figures RUN`.

question                                          file
What may each token see?                          masks.py
Where does each token look?                       looks.py
What does a position do to a query and a key?     places.py
How did training go, at which learning rate?      curves.py
Where does the memory go?                         bars.py
How long is a text in tokens?                     vocabulary.py
Where are the parameters?                         parts.py
What do temperature, top-k and top-p leave?       choices.py
What did a LoRA adapter learn?                    adapter.py (asks `python -m lora analyze`)

Each file has a function that returns numbers, which tests compare, and one that returns a matplotlib figure of them;
canvas.py turns a figure into the bytes of an SVG or PNG, the same every time. gallery.py knows which a directory has.
"""
