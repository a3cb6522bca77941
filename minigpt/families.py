"""How Hugging Face spells our config: three families of config.json, and one of our own.

    model_type   paper                        what it needs
    gpt2         Radford et al. 2019          pre layer norm, learned positions, biases
    openai-gpt   Radford et al. 2018 (GPT-1)  the same, post-norm, tied
    llama        Touvron et al. 2023          RMSNorm, rotary, gated, silu
    minigpt      ours                         anything GPTConfig can say; transformers does not open it

A family translates a config both ways and lists its tensors (layouts.py). What it cannot represent it refuses with
the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from minigpt import rope
from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest
from minigpt.layouts import gpt1_entries, gpt2_entries, llama_entries, own_entries

GPT2_ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
# In OpenAI-GPT's config "gelu" means the tanh form, in GPT-2's the exact one. Both are what their models were given.
GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}


def _gpt2_from(json: dict) -> GPTConfig:
    _refuse(json, "scale_attn_weights", True, "scores not divided by sqrt(d_head)")
    _refuse(json, "scale_attn_by_inverse_layer_idx", False, "scores divided by the layer number")
    _refuse(json, "add_cross_attention", False, "attention to an encoder")
    return GPTConfig(
        d_ff=json.get("n_inner") or 4 * _need(json, "n_embd"),
        activation=_translate(json.get("activation_function", "gelu_new"), GPT2_ACTIVATIONS, "activation_function"),
        **_openai_sizes_from(json),
    )


def _gpt2_to(config: GPTConfig) -> dict:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **_openai_sizes_to(config),
        "n_inner": config.d_ff,
        "activation_function": _translate_back(config.activation, GPT2_ACTIVATIONS),
        "tie_word_embeddings": config.tied,
    }


def _gpt1_from(json: dict) -> GPTConfig:
    return GPTConfig(
        norm_place="post",
        activation=_translate(json.get("afn", "gelu"), GPT1_ACTIVATIONS, "afn"),
        **_openai_sizes_from(json),
    )


def _gpt1_to(config: GPTConfig) -> dict:
    return {
        "model_type": "openai-gpt",
        "architectures": ["OpenAIGPTLMHeadModel"],
        **_openai_sizes_to(config),
        "afn": _translate_back(config.activation, GPT1_ACTIVATIONS),
        "tie_word_embeddings": config.tied,
    }


def _openai_sizes_to(config: GPTConfig) -> dict:
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_range": config.init_std,
        "embd_pdrop": config.embed_dropout,
        "attn_pdrop": config.attn_dropout,
        "resid_pdrop": config.resid_dropout,
    }


def _openai_sizes_from(json: dict) -> dict:
    return {
        "vocab_size": _need(json, "vocab_size"),
        "context": _need(json, "n_positions"),
        "n_layers": _need(json, "n_layer"),
        "n_heads": _need(json, "n_head"),
        "d_model": _need(json, "n_embd"),
        "norm_eps": json.get("layer_norm_epsilon", 1e-5),
        "tied": json.get("tie_word_embeddings", True),
        "embed_dropout": json.get("embd_pdrop", 0.1),
        "attn_dropout": json.get("attn_pdrop", 0.1),
        "resid_dropout": json.get("resid_pdrop", 0.1),
        "init_std": json.get("initializer_range", 0.02),
    }


def _llama_from(json: dict) -> GPTConfig:
    theta, scaling, context = rope.from_config(json, _need(json, "max_position_embeddings"))
    bias = json.get("attention_bias", False)
    if bias != json.get("mlp_bias", False):
        raise Error("config.json: attention_bias and mlp_bias differ; GPTConfig.bias is one switch for both")
    n_heads = _need(json, "num_attention_heads")
    return GPTConfig(
        vocab_size=_need(json, "vocab_size"),
        context=context,
        n_layers=_need(json, "num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=json.get("num_key_value_heads") or n_heads,
        d_model=_need(json, "hidden_size"),
        d_head=json.get("head_dim"),
        d_ff=_need(json, "intermediate_size"),
        norm="rmsnorm",
        norm_eps=json.get("rms_norm_eps", 1e-6),
        activation=_translate(json.get("hidden_act", "silu"), GPT2_ACTIVATIONS, "hidden_act"),
        gated=True,
        positions="rotary",
        rope_theta=theta,
        rope_scaling=scaling,
        bias=bias,
        tied=json.get("tie_word_embeddings", False),
        attn_dropout=json.get("attention_dropout", 0.0) or 0.0,
        embed_dropout=json.get("embed_dropout", 0.0),
        resid_dropout=json.get("resid_dropout", 0.0),
        init_std=json.get("initializer_range", 0.02),
    )


def _llama_to(config: GPTConfig) -> dict:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": config.vocab_size,
        **rope.to_config(config.context, config.rope_theta, config.rope_scaling),
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "hidden_size": config.d_model,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": _translate_back(config.activation, GPT2_ACTIVATIONS),
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tied,
        "attention_dropout": config.attn_dropout,
        # Llama has no other dropout: these two are for us, transformers passes them over.
        "embed_dropout": config.embed_dropout,
        "resid_dropout": config.resid_dropout,
        "initializer_range": config.init_std,
    }


def _own_from(json: dict) -> GPTConfig:
    known = {field.name for field in fields(GPTConfig)}
    extra = {"model_type", "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "dtype"}
    return GPTConfig.from_dict({name: value for name, value in json.items() if name in known or name not in extra})


def _own_to(config: GPTConfig) -> dict:
    return {"model_type": "minigpt", **config.to_dict()}


@dataclass(frozen=True)
class Family:
    """One spelling: config from and to JSON, the tensors of a file, and the bare model's prefix some files drop."""

    config_from: Callable
    config_to: Callable
    entries: Callable
    prefix: str = ""


FAMILIES = {
    "gpt2": Family(_gpt2_from, _gpt2_to, gpt2_entries, "transformer."),
    "openai-gpt": Family(_gpt1_from, _gpt1_to, gpt1_entries, "transformer."),
    "llama": Family(_llama_from, _llama_to, llama_entries, "model."),
    "minigpt": Family(_own_from, _own_to, own_entries),
}


def family_of(config: GPTConfig) -> str:
    """The model_type transformers knows this shape by; "minigpt" where it has none.

    >>> from minigpt import presets
    >>> [family_of(c) for c in (presets.gpt1(), presets.gpt2(), presets.llama_like(), presets.gpt3())]
    ['openai-gpt', 'gpt2', 'llama', 'minigpt']
    """
    whole_heads = config.d_model % config.n_heads == 0
    if config.banded_layers or not whole_heads:
        return "minigpt"
    if (config.norm, config.positions, config.norm_place) == ("rmsnorm", "rotary", "pre") and config.gated:
        return "llama"
    openai = (config.norm, config.positions, config.gated, config.bias) == ("layernorm", "learned", False, True)
    if not openai or config.n_kv_heads != config.n_heads or config.n_heads * config.d_head != config.d_model:
        return "minigpt"
    if config.norm_place == "pre":
        return "gpt2"
    fits_gpt1 = config.d_ff == 4 * config.d_model and config.tied and config.activation in GPT1_ACTIVATIONS.values()
    return "openai-gpt" if fits_gpt1 else "minigpt"


def _need(json: dict, name: str):
    if name not in json:
        raise Error(f"config.json has no {name!r}: {nearest(name, json)}")
    return json[name]


def _refuse(json: dict, name: str, ours, meaning: str):
    if json.get(name, ours) != ours:
        raise Error(f"config.json: {name} is {json[name]} ({meaning}), which GPTConfig cannot represent")


def _translate(name: str, table: dict, key: str) -> str:
    if name not in table:
        raise Error(f"config.json: {key} {name!r} is not a nonlinearity we have: {nearest(str(name), table)}")
    return table[name]


def _translate_back(ours: str, table: dict) -> str:
    return next(theirs for theirs, name in table.items() if name == ours)
