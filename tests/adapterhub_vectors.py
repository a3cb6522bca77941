"""What AdapterHub's library answers for a small GPT-2 with Houlsby adapters: writes tests/vectors/adapterhub.json.

    python3 -m venv hub && hub/bin/pip install torch==2.13.0 adapters==1.3.0 "transformers<4.58"
    hub/bin/python tests/adapterhub_vectors.py

`adapters` wants an older transformers than ours, so it has an environment of its own, and this script needs nothing
else. Its DoubleSeqBnConfig is the wiring of Houlsby et al. 2019.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parent / "vectors" / "adapterhub.json"
SIZES = {"vocab_size": 61, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4}
BOTTLENECK = 8
TOKENS = [[5, 9, 2, 7, 1, 30, 11, 60], [8, 3, 44, 6, 17, 12, 0, 25]]
# Ours -> theirs, behind "transformer.h.0."; the sub-layer's bottleneck of that block.
PLACES = {"attn": "attention_adapters", "mlp": "output_adapters"}
PARTS = {"down": "adapter_down.0", "up": "adapter_up"}
ACTIVATIONS = ("gelu", "relu")


def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers for the tensor of this name, the same in every release of numpy."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * 0.2).float()


def main():
    import adapters
    from adapters import DoubleSeqBnConfig
    from transformers import GPT2Config, GPT2LMHeadModel

    found = {"adapters": adapters.__version__}
    for activation in ACTIVATIONS:
        model = GPT2LMHeadModel(GPT2Config(**SIZES)).eval()
        adapters.init(model)
        config = DoubleSeqBnConfig(reduction_factor=SIZES["n_embd"] / BOTTLENECK, non_linearity=activation)
        model.add_adapter("a", config=config)
        model.set_active_adapters("a")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(draw(name.replace(".adapters.a.", "."), tuple(weight.shape)))
            logits = model(torch.tensor(TOKENS)).logits
        count = sum(weight.numel() for name, weight in model.named_parameters() if "_adapters." in name)
        found[activation] = {
            "count": count,
            "logits": [[[round(x, 6) for x in place] for place in row] for row in logits[:, 3::4].tolist()],
        }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
