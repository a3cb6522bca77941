"""What a layer keeps between calls while `lora.serving` promises that no adapter changes."""

import torch
from torch import Tensor


class Kept:
    """A, B and mask of the adapters at work, while `lora.serving` promises that they stay as they are: joining them
    anew for each token would cost more than using them.

    Only a promise makes it safe. A tensor's version counter does not see what a fused optimizer or `.data` writes.
    """

    def __init__(self, layer, A: Tensor, B: Tensor, mask: Tensor | None):
        # Transposed in memory, as the products read them.
        self.factors = A.detach().T.contiguous().T, B.detach().T.contiguous().T, mask
        self.active, self.rows, self.inference = layer.active, layer.rows, torch.is_inference_mode_enabled()

    def serves(self, layer) -> bool:
        if layer.active is not self.active or layer.rows != self.rows or layer.merged or not layer.enabled:
            return False
        return self.inference == torch.is_inference_mode_enabled() and layer.frozen()
