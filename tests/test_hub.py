"""Our logits are transformers' logits, in and out; a damaged directory is an Error that says what is wrong."""

import itertools
import json
import shutil

import pytest
import torch
import transformers
from helpers import config, model, randomize, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from minigpt import GPT, Error, hub, presets
from minigpt.families import FAMILIES, GPT2_ACTIVATIONS, family_of

transformers.utils.logging.disable_progress_bar()


def gpt2(**changes):
    sizes = {"vocab_size": 61, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes | changes, attn_implementation="sdpa"))


def gpt1(**changes):
    sizes = {"vocab_size": 61, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}
    return OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes | changes))


def llama(**changes):
    sizes = {"vocab_size": 61, "max_position_embeddings": 24, "hidden_size": 32, "intermediate_size": 48}
    sizes |= {"num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**sizes | changes, attn_implementation="sdpa"))


THEIRS = {
    "gpt2": gpt2,
    "gpt2, exact gelu": lambda: gpt2(activation_function="gelu"),
    "gpt2, untied": lambda: gpt2(tie_word_embeddings=False),
    "gpt2, n_inner, eps": lambda: gpt2(n_inner=40, layer_norm_epsilon=1e-2),
    "gpt1": gpt1,
    "gpt1, relu": lambda: gpt1(afn="relu"),
    "gpt1, untied": lambda: gpt1(tie_word_embeddings=False),
    "llama": llama,
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "llama, grouped, wide heads": lambda: llama(num_key_value_heads=2, head_dim=12),
    "llama, one key head, theta": lambda: llama(
        num_key_value_heads=1, rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    ),
    "llama, biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama, relu": lambda: llama(hidden_act="relu"),
}


@pytest.fixture
def exact_norm(monkeypatch):
    """transformers computes Llama's norm in float32 whatever the model; its formula, in the model's own precision.

    Its rotary angles are float32 too, and stay: so are ours.
    """

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon) * self.weight

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def save_theirs(kind, directory, **options):
    reference = randomize(THEIRS[kind](), 0.3).eval()
    reference.save_pretrained(directory, **options)
    return reference


def difference(ours, theirs, x) -> float:
    with torch.no_grad():
        return (ours(x) - theirs(x).logits).abs().max().item()


# In


@pytest.mark.parametrize("kind", THEIRS)
def test_a_directory_of_transformers_gives_its_logits(kind, tmp_path, exact_norm):
    reference = save_theirs(kind, tmp_path)
    x = tokens(2, 20)
    assert difference(GPT.from_pretrained(tmp_path), reference, x) < 1e-4
    assert difference(GPT.from_pretrained(tmp_path, dtype=torch.float64), reference.double(), x) < 1e-10


@pytest.mark.parametrize("name", ACT2FN)
def test_every_gpt2_activation_is_the_same_or_refused(name, tmp_path):
    try:
        reference = randomize(gpt2(activation_function=name), 0.3).eval()
    except (ImportError, TypeError, AttributeError):
        pytest.skip("transformers itself cannot make it")
    reference.save_pretrained(tmp_path)
    if name in GPT2_ACTIVATIONS:
        assert difference(GPT.from_pretrained(tmp_path), reference, tokens()) < 1e-4
    else:
        with pytest.raises(Error, match=f"activation_function '{name}' is not a nonlinearity we have"):
            GPT.from_pretrained(tmp_path)


def test_the_two_gelus_are_not_the_same_model(tmp_path):
    reference = save_theirs("gpt2", tmp_path)
    ours = GPT.from_pretrained(tmp_path, activation="gelu", dtype=torch.float64)
    assert difference(ours, reference.double(), tokens()) > 1e-5


@pytest.mark.parametrize("kind", ["gpt2", "gpt2, untied", "gpt1", "llama", "llama, biases"])
def test_shards_are_read(kind, tmp_path):
    reference = save_theirs(kind, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert difference(GPT.from_pretrained(tmp_path), reference, tokens()) < 1e-4


def test_gpt2_as_openai_published_it(tmp_path):
    """No prefix, and the causal mask of every layer as a buffer."""
    reference = save_theirs("gpt2", tmp_path)
    tensors = {name.removeprefix("transformer."): x for name, x in load_file(tmp_path / "model.safetensors").items()}
    for layer, kind in enumerate((torch.float32, torch.uint8, torch.bool)):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(24, 24).tril()[None, None].to(kind)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, tmp_path / "model.safetensors")
    for dtype in (torch.float32, None):
        assert difference(GPT.from_pretrained(tmp_path, dtype=dtype), reference, tokens()) < 1e-4
    tensors["h.0.attn.bias"] = tensors.pop("h.2.attn.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    assert GPT.from_pretrained(tmp_path, dtype=None).head.weight.dtype == torch.float32


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt", "llama"])
def test_what_a_config_leaves_out_is_what_transformers_takes_it_to_be(family, tmp_path):
    needed = {"model_type": family, "vocab_size": 61}
    if family == "llama":
        needed |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        needed |= {"max_position_embeddings": 24}
    else:
        needed |= {"n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4}
    reference = randomize(AutoModelForCausalLM.from_config(AutoConfig.for_model(**needed)), 0.3).eval()
    reference.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(needed))
    gpt = GPT.from_pretrained(tmp_path)
    assert difference(gpt, reference, tokens()) < 1e-4
    theirs = reference.config
    assert gpt.config.attn_dropout == (theirs.attention_dropout if family == "llama" else theirs.attn_pdrop)
    assert gpt.config.tied == theirs.tie_word_embeddings and gpt.config.init_std == theirs.initializer_range


def test_a_tied_head_may_be_stored_twice_if_it_is_the_same(tmp_path):
    reference = save_theirs("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert difference(GPT.from_pretrained(tmp_path), reference, tokens()) < 1e-4
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Error, match="lm_head.weight differs from the embedding it is tied to"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_dtypes(kind, tmp_path):
    reference = save_theirs(kind, tmp_path / "bf16").bfloat16()
    reference.save_pretrained(tmp_path / "bf16")
    assert {p.dtype for p in GPT.from_pretrained(tmp_path / "bf16", dtype=None).parameters()} == {torch.bfloat16}
    wide = GPT.from_pretrained(tmp_path / "bf16")
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert difference(wide, reference.float(), tokens()) < 1e-4
    wide.bfloat16().save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text())["dtype"] == "bfloat16"
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "bf16"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loaded_model_evaluates_and_learns(tmp_path):
    save_theirs("gpt2", tmp_path)
    gpt = GPT.from_pretrained(tmp_path)
    assert not gpt.training and all(weight.requires_grad for weight in gpt.parameters())
    assert gpt.head.weight is gpt.token_embedding.weight
    assert GPT.from_pretrained(tmp_path, attn_dropout=0.25).config.attn_dropout == 0.25


# Out

OURS = {
    "gpt2": config(),
    "gpt2, every field": config(
        activation="relu2", d_ff=40, tied=False, norm_eps=1e-3, embed_dropout=0.1, attn_dropout=0.2, resid_dropout=0.3
    ),
    "gpt2, exact gelu": config(activation="gelu"),
    "gpt1": config("gpt1"),
    "llama": config("llama"),
    "llama, every field": config(
        "llama", d_head=12, bias=True, tied=True, rope_theta=500.0, norm_eps=1e-3, activation="gelu_tanh"
    ),
}
OWN = {
    "banded": config("gpt3"),
    "rotary with layer norm": config(positions="rotary"),
    "mixture": config("mixture"),
    "post-norm, untied": config("gpt1", tied=False),
    "no biases": config(bias=False),
    "heads as in GPT-3 XL": presets.gpt3(
        "XL", n_layers=2, n_heads=4, d_head=12, d_model=32, vocab_size=61, context=24, window=5
    ),
    "heads as in GPT-3 13B": config(n_heads=4, d_head=8, d_model=33),
}


def random_model(shape, dtype=torch.float32):
    return randomize(GPT(shape), 0.3).to(dtype).eval()


@pytest.mark.parametrize("kind", OURS)
def test_transformers_opens_what_we_save(kind, tmp_path, exact_norm):
    gpt, x = random_model(OURS[kind], torch.float64), tokens(2, 20)
    gpt.save_pretrained(tmp_path)
    reference, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager" if kind == "gpt1" else "sdpa", output_loading_info=True
    )
    assert not any(report.values())
    assert next(reference.parameters()).dtype == torch.float64
    assert difference(gpt, reference.eval(), x) < 1e-10
    assert difference(gpt.float(), reference.float(), x) < 1e-4


@pytest.mark.parametrize("kind", [*OURS, *OWN])
@pytest.mark.parametrize("shard_bytes", [hub.SHARD_BYTES, 20_000])
def test_what_we_save_comes_back_bit_for_bit(kind, shard_bytes, tmp_path):
    gpt = random_model((OURS | OWN)[kind])
    hub.save(gpt, tmp_path, shard_bytes=shard_bytes)
    again = GPT.from_pretrained(tmp_path)
    assert again.config == gpt.config
    ours, theirs = gpt.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = tokens()
    assert torch.equal(again(x), gpt(x))
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert bool(shards) == (shard_bytes == 20_000) == (tmp_path / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("kind", ["gpt2", "gpt2, every field", "gpt1", "llama"])
def test_transformers_opens_our_shards(kind, tmp_path):
    gpt = random_model(OURS[kind])
    hub.save(gpt, tmp_path, shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(4 * weight.numel() for weight in gpt.parameters())
    assert difference(gpt, AutoModelForCausalLM.from_pretrained(tmp_path).eval(), tokens()) < 1e-4


@pytest.mark.parametrize("kind", OWN)
def test_a_shape_transformers_lacks_is_our_own(kind, tmp_path):
    assert family_of(OWN[kind]) == "minigpt"
    random_model(OWN[kind]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="minigpt"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_families_take_every_config_or_leave_it():
    """Each combination of the architecture's axes, through the JSON of its family and back, is itself."""
    activations = itertools.cycle(["gelu", "gelu_tanh", "silu", "relu2", "relu"])
    for norm, place, gated, positions, bias, tied, heads in itertools.product(
        ["layernorm", "rmsnorm"], ["pre", "post"], [False, True],
        ["learned", "rotary"], [False, True], [False, True], [{}, {"n_kv_heads": 2}, {"d_head": 10}, {"d_ff": 40}],
    ):  # fmt: skip
        shape = config(
            n_layers=1, norm=norm, norm_place=place, activation=next(activations), gated=gated, positions=positions,
            bias=bias, tied=tied, rope_theta=300.0 if positions == "rotary" else 10000.0, **heads,
        )  # fmt: skip
        family = FAMILIES[family_of(shape)]
        again = family.config_from(json.loads(json.dumps(family.config_to(shape))))
        assert again == shape
        with torch.device("meta"):
            names = {name for name, _ in GPT(shape).named_parameters()}
        stored = [name for entry in family.entries(shape) for name in entry.ours]
        assert set(stored) == names and len(stored) == len(names)


def test_our_own_layout_lists_the_parameters_of_every_shape():
    choices = {
        "norm": ("layernorm", "rmsnorm"), "norm_place": ("pre", "post"), "positions": ("learned", "rotary"),
        "gated": (True, False), "bias": (True, False), "tied": (True, False),
    }  # fmt: skip
    for values in itertools.product(*choices.values()):
        shape = config(**dict(zip(choices, values, strict=True)))
        with torch.device("meta"):
            expected = [name for name, _ in GPT(shape).named_parameters()]
        assert [entry.name for entry in FAMILIES["minigpt"].entries(shape)] == expected, shape


def test_a_later_save_leaves_nothing_of_the_earlier(tmp_path):
    def files():
        return sorted(path.name for path in tmp_path.iterdir())

    first, second, x = random_model(config()), random_model(config("llama")), tokens()
    for number in range(3):
        (tmp_path / f"model_notes_{number}.safetensors").write_bytes(b"someone else's")
    others = files()
    hub.save(first, tmp_path, shard_bytes=20_000)
    hub.save(second, tmp_path)
    assert files() == sorted(["config.json", "model.safetensors", *others])
    assert torch.equal(GPT.from_pretrained(tmp_path)(x), second(x))
    hub.save(first, tmp_path, shard_bytes=20_000)
    assert "model.safetensors" not in files() and torch.equal(GPT.from_pretrained(tmp_path)(x), first(x))
    hub.save(first, tmp_path, shard_bytes=60_000)
    shards = set(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values())
    assert files() == sorted(["config.json", "model.safetensors.index.json", *shards, *others])
    assert torch.equal(GPT.from_pretrained(tmp_path)(x), first(x))


@pytest.mark.parametrize("before", ["shards", "one file"])
def test_a_save_in_shards_that_is_cut_short_leaves_the_model_of_before(before, tmp_path, monkeypatch):
    first, second, x = random_model(config()), random_model(config()), tokens()
    hub.save(first, tmp_path, shard_bytes=20_000 if before == "shards" else hub.SHARD_BYTES)
    write, written = hub.write_tensors, []

    def fails(path, tensors):
        if len(written) == 2:
            raise Error("the disk is full")
        written.append(path)
        write(path, tensors)

    for _ in range(2):  # whoever is cut short twice has not touched it either
        written.clear()
        monkeypatch.setattr(hub, "write_tensors", fails)
        with pytest.raises(Error, match="the disk is full"):
            hub.save(second, tmp_path, shard_bytes=20_000)
        monkeypatch.undo()
        assert torch.equal(GPT.from_pretrained(tmp_path)(x), first(x))
    for gpt in (second, first, second):
        hub.save(gpt, tmp_path, shard_bytes=20_000)
        assert torch.equal(GPT.from_pretrained(tmp_path)(x), gpt(x))
        shards = set(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values())
        assert {path.name for path in tmp_path.glob("*.safetensors")} == shards


def test_files_hold_each_tensor_once_and_say_they_are_of_pytorch(tmp_path):
    random_model(config()).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        assert file.get_tensor("transformer.h.0.attn.c_attn.weight").shape == (32, 96)


def test_extra_fields_go_into_the_config_and_do_not_disturb(tmp_path):
    for shape in (config(), config("llama"), config("gpt3")):
        hub.save(random_model(shape), tmp_path, eos_token_id=7, bos_token_id=7)
        assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 7
        assert GPT.from_pretrained(tmp_path).config == shape


def test_saving_where_nothing_can_be_saved_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="file"):
        model().save_pretrained(tmp_path / "file")
    adapted = model()
    adapted.blocks[0].attn.q_proj = torch.nn.Sequential(adapted.blocks[0].attn.q_proj)
    with pytest.raises(Error, match="blocks.0.attn.q_proj"):
        adapted.save_pretrained(tmp_path / "adapted")
    assert not (tmp_path / "adapted").exists() or not list((tmp_path / "adapted").iterdir())


# Refused


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One small directory of each family, to be damaged."""
    root = tmp_path_factory.mktemp("saved")
    for name, shape in (("gpt2", config()), ("gpt1", config("gpt1")), ("llama", config("llama"))):
        GPT(shape).save_pretrained(root / name)
    return root


@pytest.fixture
def damage(saved, tmp_path):
    """A copy of a saved directory with fields of its config changed, or its tensors."""

    def make(family="gpt2", tensors=None, **changes):
        directory = tmp_path / family
        shutil.copytree(saved / family, directory, dirs_exist_ok=True)
        values = json.loads((directory / "config.json").read_text()) | changes
        values = {name: value for name, value in values.items() if value is not ...}
        (directory / "config.json").write_text(json.dumps(values))
        if tensors:
            stored = tensors(load_file(directory / "model.safetensors"))
            save_file(stored, directory / "model.safetensors")
        return directory

    return make


LONGROPE = {"rope_type": "longrope", "factor": 4.0}
REFUSED = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True .*layer number"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ("gpt2", {"add_cross_attention": True}, "attention to an encoder"),
    ("gpt2", {"activation_function": "gelu_10"}, "activation_function 'gelu_10' .*did you mean"),
    ("gpt2", {"activation_function": ["gelu"]}, "wrong type|not a nonlinearity"),
    ("gpt2", {"model_type": "gpt_neo"}, "model_type 'gpt_neo' cannot be represented"),
    ("gpt2", {"model_type": "openai_gpt"}, "did you mean 'openai-gpt'"),
    ("gpt2", {"model_type": ...}, "model_type None cannot be represented: known: 'gpt2'"),
    ("gpt2", {"model_type": ["gpt2"]}, "model_type"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantised; give the directory of the full-precision model"),
    ("gpt2", {"n_embd": ...}, "has no 'n_embd'"),
    ("gpt2", {"n_head": ..., "n_heads": 4}, "has no 'n_head': did you mean 'n_heads'"),
    ("gpt2", {"n_embd": "32"}, "32"),
    ("gpt2", {"n_embd": [32]}, "32"),
    ("gpt2", {"n_layer": None}, "n_layers is None"),
    ("gpt2", {"n_layer": 1.5}, "n_layers is 1.5"),
    ("gpt2", {"n_head": 5}, "does not divide into 5 heads"),
    ("gpt2", {"resid_pdrop": "0.1"}, "resid_dropout is '0.1'"),
    ("gpt2", {"layer_norm_epsilon": None}, "norm_eps is None"),
    ("gpt2", {"tie_word_embeddings": "false"}, "tied is 'false'"),
    ("gpt2", {"tie_word_embeddings": False}, "'lm_head.weight' is missing"),
    ("gpt2", {"vocab_size": 62}, r"'transformer.wte.weight' is \(61, 32\), config.json makes it \(62, 32\)"),
    ("gpt2", {"vocab_size": 10**15}, r"'transformer.wte.weight' is \(61, 32\), config.json makes it"),
    ("gpt2", {"n_layer": 1}, r"'transformer.h.1.attn.c_attn.bias' has no place in this model \(12 such\)"),
    ("gpt2", {"n_layer": 3}, "'transformer.h.2.ln_1.weight' is missing"),
    ("gpt2", {"n_inner": 48}, r"c_fc.weight' is \(32, 128\), config.json makes it \(32, 48\)"),
    ("gpt1", {"afn": "gelu_new"}, "afn 'gelu_new' is not a nonlinearity we have: did you mean 'gelu'"),
    ("llama", {"rope_scaling": LONGROPE}, "config.json: rope_type is 'longrope', which cannot be represented: known"),
    ("llama", {"rope_scaling": {"type": "lineal", "factor": 2.0}}, "'lineal', .*did you mean 'linear'"),
    ("llama", {"rope_parameters": LONGROPE}, "rope_type is 'longrope'"),
    ("llama", {"rope_parameters": LONGROPE, "rope_scaling": {"rope_type": "default"}}, "rope_type is 'longrope'"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling of 'linear' lacks 'factor'"),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": "4"}}, "factor is '4': give a number, at least 1"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}}, "'linear' has no 'beta'"),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2, "partial_rotary_factor": 0.5}}, "whole heads"),
    ("llama", {"rope_parameters": {"rope_theta": "x"}}, "wrong type"),
    ("llama", {"rope_parameters": [1]}, "wrong type"),
    ("llama", {"attention_bias": True}, "attention_bias and mlp_bias differ"),
    ("llama", {"head_dim": 7}, "make it even"),
    ("llama", {"hidden_act": "gelu_fast"}, "hidden_act 'gelu_fast'"),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSED, ids=[str(row[1]) for row in REFUSED])
def test_a_config_we_cannot_represent_is_refused_with_the_reason(family, changes, message, damage):
    with pytest.raises(Error, match=message):
        GPT.from_pretrained(damage(family, **changes))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"gpt2"', "\x00", "[" * 100_000], ids=lambda text: repr(text[:9])
)
def test_a_config_that_is_none_is_refused(text, damage):
    directory = damage()
    (directory / "config.json").write_text(text)
    with pytest.raises(Error, match="config.json: (not valid JSON|expected a JSON object)"):
        GPT.from_pretrained(directory)


def drop(name):
    return lambda tensors: {key: x for key, x in tensors.items() if key != name}


def put(name, x):
    return lambda tensors: tensors | {name: x}


QKV = "transformer.h.0.attn.c_attn.weight"
BAD_TENSORS = [
    (drop("transformer.ln_f.bias"), "'transformer.ln_f.bias' is missing"),
    (put("transformer.h.0.attn.c_attn.lora_A", torch.ones(2, 2)), "lora_A' has no place in this model"),
    (put(QKV, torch.ones(96, 32)), r"c_attn.weight' is \(96, 32\), config.json makes it \(32, 96\)"),
    (put(QKV, torch.ones(32, 96, 1)), r"c_attn.weight' is \(32, 96, 1\)"),
    (put(QKV, torch.ones(())), r"c_attn.weight' is \(\)"),
    (put(QKV, torch.ones(32, 96, dtype=torch.int8)), "holds I8, expected floating point"),
    (put(QKV, torch.ones(32, 96).to(torch.float8_e4m3fn)), "holds F8_E4M3, expected floating point of at least 16"),
    (put("lm_head.weight", torch.ones(2, 2)), "lm_head.weight differs"),
    (lambda tensors: {"x": torch.ones(1)}, "is missing"),
    (lambda tensors: {}, "is missing"),
]


@pytest.mark.parametrize(("tensors", "message"), BAD_TENSORS, ids=[row[1] for row in BAD_TENSORS])
@pytest.mark.parametrize("dtype", [torch.float32, None])
def test_a_tensor_missing_left_over_or_misshapen_is_named(tensors, message, dtype, damage):
    with pytest.raises(Error, match=message):
        GPT.from_pretrained(damage(tensors=tensors), dtype=dtype)


@pytest.mark.parametrize(
    "changes",
    [{"n_layers": 3}, {"d_ff": 64}, {"gated": True}, {"bias": False}, {"positions": "rotary"}, {"norm_place": "post"}],
    ids=str,
)
def test_a_change_that_touches_the_weights_is_refused(changes, damage):
    with pytest.raises(Error):
        GPT.from_pretrained(damage(), **changes)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, 1000, -1, -1000])
def test_a_truncated_file_is_refused(cut, damage):
    directory = damage()
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(Error, match="model.safetensors: not a readable safetensors file"):
        GPT.from_pretrained(directory)


@pytest.mark.parametrize("place", range(0, 400, 23))
def test_a_damaged_header_is_refused(place, damage):
    directory = damage()
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(Error):
        GPT.from_pretrained(directory)


INDEXES = [
    ("", "not an index"),
    ("[]", "not an index"),
    ("{}", "not an index"),
    ('{"weight_map": 3}', "not an index"),
    ('{"weight_map": {"a": 3, "b": "x"}}', "not an index|refused"),
    ('{"weight_map": {"a": ["x"]}}', "not an index|refused"),
    ('{"weight_map": {}}', "missing|not an index"),
    ('{"weight_map": {"a": "../secret.safetensors"}}', "not a .safetensors file of this directory; refused"),
    ('{"weight_map": {"a": "/etc/passwd"}}', "not a .safetensors file of this directory; refused"),
    ('{"weight_map": {"a": ".."}}', "not a .safetensors file of this directory; refused"),
    ('{"weight_map": {"a": ""}}', "not a .safetensors file of this directory; refused"),
    ('{"weight_map": {"a": "x\\u0000.safetensors"}}', "not found|refused|not a readable"),
    ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors: not found, but the index names it"),
    ('{"weight_map": {"a": "config.json"}}', "names 'config.json', not a .safetensors file"),
]


@pytest.mark.parametrize(("text", "message"), INDEXES, ids=[row[0] for row in INDEXES])
@pytest.mark.parametrize("dtype", [torch.float32, None])
def test_a_bad_index_is_refused(text, message, dtype, damage):
    directory = damage()
    (directory / "model.safetensors").rename(directory.parent / "secret.safetensors")
    (directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(Error, match=message):
        GPT.from_pretrained(directory, dtype=dtype)


def test_pickled_weights_are_refused_and_not_opened(damage):
    directory = damage()
    (directory / "model.safetensors").unlink()
    with pytest.raises(Error, match=r"no model.safetensors"):
        GPT.from_pretrained(directory)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(Error, match=r"holds pickled weights \(.bin\), which can run code"):
        GPT.from_pretrained(directory)


def test_a_directory_that_is_none_says_so(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", __file__):
        with pytest.raises(Error, match="config.json: not found: give a run or Hugging Face directory"):
            GPT.from_pretrained(place)


def test_our_own_config_with_a_misspelt_field_names_the_nearest(tmp_path):
    random_model(config("gpt3")).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"windows": 3}))
    with pytest.raises(Error, match="'windows': did you mean 'window'"):
        GPT.from_pretrained(tmp_path)
