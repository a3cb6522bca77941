"""A GPT you can read.

question                                     file                  paper
What is a GPT made of?                       config.py presets.py  GPT-3 section 2.1
May this token see that one?                 masks.py              GPT-3 section 2.1, Child et al. 2019
Where does a token stand?                    positions.py          Su et al. 2021 section 3
What is attention?                           attention.py          Vaswani et al. 2017 section 3.2
How do the parts make a model?               model.py              GPT-1 section 3.1, GPT-2 section 2.3
What does a decoder remember?                cache.py
What is the loss, and where do logits go?    loss.py               GPT-1 eq. 1
How does text become numbers?                tokenizer.py          GPT-2 section 2.2
How do files become batches?                 corpus/
How is it trained?                           training/             GPT-3 appendix B
How does it write?                           generation/           Holtzman et al. 2020
How is it asked by words alone?              prompting/            GPT-3 section 2
How does it open in transformers?            hub.py
"""

from typing import TYPE_CHECKING

from minigpt import presets
from minigpt.config import GPTConfig
from minigpt.errors import Error

if TYPE_CHECKING:
    from minigpt.model import GPT

__all__ = ["GPT", "Error", "GPTConfig", "presets"]


def __getattr__(name: str):
    """GPT is imported when it is first asked for: configs, tokenizers and --help do without torch."""
    if name == "GPT":
        from minigpt.model import GPT

        return GPT
    raise AttributeError(f"module 'minigpt' has no attribute {name!r}")
