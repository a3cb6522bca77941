"""How Hugging Face names and stores our parameters: one list of tensors a family.

    minigpt            file (gpt2)
    q_proj (out, in)  \
    k_proj (out, in)   }  c_attn (in, 3 out)      fused matrices are split on the way in, joined on the way out
    v_proj (out, in)  /
"""

from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.config import GPTConfig


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its name there, the parameters of ours it holds, and whether it is stored (in, out)."""

    name: str
    ours: tuple[str, ...]
    transposed: bool = False


def _openai_entries(config: GPTConfig, tokens: str, places: str) -> Iterator[Entry]:
    """GPT-1 and GPT-2 store (in, out) matrices, and q, k, v as one."""
    yield Entry(f"transformer.{tokens}.weight", ("token_embedding.weight",))
    yield Entry(f"transformer.{places}.weight", ("position_embedding.weight",))
    for layer in range(config.n_layers):
        theirs, block = f"transformer.h.{layer}", f"blocks.{layer}"
        for kind in ("weight", "bias"):
            matrix = kind == "weight"
            qkv = tuple(f"{block}.attn.{name}_proj.{kind}" for name in "qkv")
            yield Entry(f"{theirs}.ln_1.{kind}", (f"{block}.attn_norm.{kind}",))
            yield Entry(f"{theirs}.attn.c_attn.{kind}", qkv, matrix)
            yield Entry(f"{theirs}.attn.c_proj.{kind}", (f"{block}.attn.o_proj.{kind}",), matrix)
            yield Entry(f"{theirs}.ln_2.{kind}", (f"{block}.mlp_norm.{kind}",))
            yield Entry(f"{theirs}.mlp.c_fc.{kind}", (f"{block}.mlp.up_proj.{kind}",), matrix)
            yield Entry(f"{theirs}.mlp.c_proj.{kind}", (f"{block}.mlp.down_proj.{kind}",), matrix)
    if config.norm_place == "pre":
        yield Entry("transformer.ln_f.weight", ("final_norm.weight",))
        yield Entry("transformer.ln_f.bias", ("final_norm.bias",))
    if not config.tied:
        yield Entry("lm_head.weight", ("head.weight",))


def gpt2_entries(config: GPTConfig) -> Iterator[Entry]:
    """GPT2LMHeadModel."""
    return _openai_entries(config, "wte", "wpe")


def gpt1_entries(config: GPTConfig) -> Iterator[Entry]:
    """OpenAIGPTLMHeadModel."""
    return _openai_entries(config, "tokens_embed", "positions_embed")


def llama_entries(config: GPTConfig) -> Iterator[Entry]:
    """LlamaForCausalLM."""
    yield Entry("model.embed_tokens.weight", ("token_embedding.weight",))
    for layer in range(config.n_layers):
        theirs, block = f"model.layers.{layer}", f"blocks.{layer}"
        yield Entry(f"{theirs}.input_layernorm.weight", (f"{block}.attn_norm.weight",))
        yield Entry(f"{theirs}.post_attention_layernorm.weight", (f"{block}.mlp_norm.weight",))
        for kind in ("weight", "bias") if config.bias else ("weight",):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield Entry(f"{theirs}.self_attn.{name}.{kind}", (f"{block}.attn.{name}.{kind}",))
            for name in ("gate_proj", "up_proj", "down_proj"):
                yield Entry(f"{theirs}.mlp.{name}.{kind}", (f"{block}.mlp.{name}.{kind}",))
    yield Entry("model.norm.weight", ("final_norm.weight",))
    if not config.tied:
        yield Entry("lm_head.weight", ("head.weight",))


def own_entries(config: GPTConfig) -> Iterator[Entry]:
    """GPT itself: every parameter under its own name, a tied head once, as the embedding."""
    of_norm = ("weight", "bias") if config.norm == "layernorm" and config.bias else ("weight",)
    of_matrix = ("weight", "bias") if config.bias else ("weight",)
    attn, mlp = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj",) * config.gated + ("up_proj", "down_proj")
    names = ["token_embedding.weight"] + ["position_embedding.weight"] * (config.positions == "learned")
    for block in (f"blocks.{layer}" for layer in range(config.n_layers)):
        for room, matrices in (("attn", attn), ("mlp", mlp)):
            names += [f"{block}.{room}_norm.{kind}" for kind in of_norm]
            names += [f"{block}.{room}.{matrix}.{kind}" for matrix in matrices for kind in of_matrix]
    names += [f"final_norm.{kind}" for kind in of_norm] * (config.norm_place == "pre")
    names += ["head.weight"] * (not config.tied)
    yield from (Entry(name, (name,)) for name in names)
