"""Alternating dense and banded layers against GPT-Neo, the one model of transformers that is so built.

GPT-Neo is a GPT-2 whose attention has no scale 1/sqrt(d) and no biases of q, k and v, and whose "local" layers see the
last `window_size` tokens. With queries multiplied by sqrt(d) it is our model, number for number.
"""

import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from minigpt import GPT, GPTConfig
from minigpt.generation import generate

V, C, H, LAYERS = 61, 32, 4, 4
NAMES = {
    "ln_1": "attn_norm", "ln_2": "mlp_norm", "attn.attention.q_proj": "attn.q_proj",
    "attn.attention.k_proj": "attn.k_proj", "attn.attention.v_proj": "attn.v_proj",
    "attn.attention.out_proj": "attn.o_proj", "mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj",
}  # fmt: skip


@pytest.fixture(scope="module", params=[3, 8])
def pair(request):
    """GPT-Neo with random weights, and ours with the same; the window."""
    torch.manual_seed(0)
    kinds = [[["global", "local"], LAYERS // 2]]
    sizes = {"vocab_size": V, "max_position_embeddings": 40, "hidden_size": C, "num_layers": LAYERS, "num_heads": H}
    config = GPTNeoConfig(
        **sizes, window_size=request.param, attention_types=kinds, bos_token_id=None, eos_token_id=None
    )
    theirs = GPTNeoForCausalLM(config).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    ours = GPT(
        GPTConfig(vocab_size=V, context=40, n_layers=LAYERS, n_heads=H, d_model=C, window=request.param,
                  banded_layers=tuple(range(1, LAYERS, 2)))
    ).eval()  # fmt: skip
    state = ours.state_dict()
    for name, tensor in theirs.transformer.state_dict().items():
        if name.startswith("h."):
            _, layer, rest = name.split(".", 2)
            stem, leaf = rest.rsplit(".", 1)
            if stem in NAMES:
                tensor = tensor * (C / H) ** 0.5 if "q_proj" in stem else tensor
                state[f"blocks.{layer}.{NAMES[stem]}.{leaf}"] = tensor
        elif not name.startswith("h"):
            where = {"wte": "token_embedding", "wpe": "position_embedding", "ln_f": "final_norm"}[name.split(".")[0]]
            state[f"{where}.{name.split('.')[1]}"] = tensor
    state["head.weight"] = state["token_embedding.weight"]
    for layer in range(LAYERS):
        for part in ("q_proj", "k_proj", "v_proj"):
            state[f"blocks.{layer}.attn.{part}.bias"] = torch.zeros(C)
    ours.load_state_dict(state)
    return ours, theirs, request.param


def test_logits_and_gradients_are_those_of_gpt_neo(pair):
    ours, theirs, window = pair
    x = torch.randint(V, (3, 25))
    torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-4, rtol=1e-5)
    ours(x).square().mean().backward()
    theirs(x).logits.square().mean().backward()
    for layer in range(LAYERS):
        mine = ours.blocks[layer].attn.k_proj.weight.grad
        torch.testing.assert_close(
            mine, theirs.transformer.h[layer].attn.attention.k_proj.weight.grad, atol=1e-4, rtol=1e-4
        )


def test_texts_are_those_of_gpt_neo_far_beyond_the_window(pair):
    ours, theirs, _ = pair
    prompt = torch.randint(V, (1, 5))
    wanted = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False, pad_token_id=0
    )
    assert generate(ours, prompt.tolist(), 30, temperature=0) == wanted[:, 5:].tolist()
