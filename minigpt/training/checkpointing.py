"""Activation checkpointing: memory for time (Chen et al. 2016, "Training deep nets with sublinear memory cost").

Backward needs what forward computed. Kept whole that is some 20 C floats a token and block; here only each block's
input is kept, C floats, and backward runs the block once more: one forward more a step, about a third of its time.
"""

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


def through(block: nn.Module, x: Tensor, mask=None, turn=None, cache=None) -> Tensor:
    """block(x, ...), its inside forgotten and made again in backward: the same output and gradients, bit for bit.

    Dropout too: the generator is put back to where it stood. Decoding is not touched: nothing is kept there anyway.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> model.through = through
    """
    written = cache is not None and not getattr(cache, "constant", False)  # a prefix is only read: it may be, twice
    if written or not is_grad_enabled():
        return block(x, mask, turn, cache)
    return checkpoint(block, x, mask, turn, cache, use_reentrant=False, preserve_rng_state=True)
