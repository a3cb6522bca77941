"""Against peft: the same logits from the same files, written by either, on models of transformers and on ours."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lora
from lora import files
from minigpt import GPT, GPTConfig, presets

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

TOKENS = torch.tensor([[3, 14, 15, 92, 65], [35, 89, 79, 32, 38]])


def gpt2(tied=True):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=100, n_positions=16, n_layer=3, n_head=2, n_embd=32, tie_word_embeddings=tied
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama(tied=False):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, attention_bias=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def randomize(model, scale=0.3):
    """Every parameter that learns gets other values: a zero B would prove nothing."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * scale)


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


GPT2_CASES = {
    "attention": {"target_modules": ["c_attn"]},
    "three kinds, other scale": {"target_modules": ["c_attn", "c_proj", "c_fc"], "r": 4, "lora_alpha": 3},
    "regular expression": {"target_modules": r".*\.1\.(attn|mlp)\.c_proj"},
    "all linear": {"target_modules": "all-linear"},
    "rslora": {"target_modules": ["c_attn"], "use_rslora": True},
    "patterns": {
        "target_modules": ["c_attn", "c_fc"],
        "rank_pattern": {"c_fc": 2, r"h\.0\.attn\.c_attn": 5},
        "alpha_pattern": {"mlp.c_fc": 7},
    },
    "layers": {"target_modules": ["c_attn", "c_fc"], "layers_to_transform": [0, 2], "layers_pattern": "h"},
    "excluded": {"target_modules": ["c_proj"], "exclude_modules": ["mlp.c_proj"]},
    "embedding": {"target_modules": ["wpe", "c_attn"]},
    "biases of the adapted": {"target_modules": ["c_attn"], "bias": "lora_only"},
    "all biases": {"target_modules": ["c_attn"], "bias": "all"},
    "saved modules": {"target_modules": ["c_attn"], "modules_to_save": ["ln_f", "ln_1"]},
    "dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
}
LLAMA_CASES = {
    "q and v": {"target_modules": ["q_proj", "v_proj"]},
    "all linear": {"target_modules": "all-linear", "r": 3, "lora_alpha": 5},
    "rslora and patterns": {
        "target_modules": ["q_proj", "down_proj"],
        "use_rslora": True,
        "rank_pattern": {"down_proj": 3},
    },
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"]},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "saved head": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    "dora": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
}
CASES = [(gpt2, name, case) for name, case in GPT2_CASES.items()]
CASES += [(llama, name, case) for name, case in LLAMA_CASES.items()]
each_case = pytest.mark.parametrize(
    "make, case", [(m, c) for m, _, c in CASES], ids=[f"{m.__name__} {n}" for m, n, _ in CASES]
)


def ours_of(case):
    """A LoraConfig's arguments as our Config."""
    names = {"target_modules": "targets", "lora_alpha": "alpha", "use_rslora": "rslora", "use_dora": "dora"}
    names |= {"exclude_modules": "exclude", "layers_to_transform": "layers"}
    return {names.get(key, key): value for key, value in case.items() if key != "layers_pattern"}


@each_case
def test_reads_what_peft_writes(make, case, tmp_path):
    base = make()
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**({"r": 8, "lora_alpha": 16} | case))).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = copy.deepcopy(base)
    lora.load(ours, tmp_path / "theirs")
    assert (logits(theirs) - logits(base)).abs().max() > 1e-2
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=2e-6, atol=2e-6)
    lora.save(ours, tmp_path / "again")
    a, b = files.read(tmp_path / "theirs"), files.read(tmp_path / "again")
    assert a.updates.keys() == b.updates.keys() and a.replaced.keys() == b.replaced.keys()
    for path in a.updates:
        assert torch.equal(a.updates[path].A, b.updates[path].A) and torch.equal(a.updates[path].B, b.updates[path].B)
        assert a.updates[path].scale == b.updates[path].scale


@each_case
def test_peft_reads_what_we_write(make, case, tmp_path):
    base = make()
    ours = copy.deepcopy(base)
    lora.attach(ours, lora.Config(**({"r": 8, "alpha": 16} | ours_of(case))))
    assert torch.equal(logits(ours), logits(base)), "B is zero: nothing may change"
    randomize(ours)
    lora.save(ours, tmp_path)
    assert (logits(ours) - logits(base)).abs().max() > 1e-2
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=2e-6, atol=2e-6)


@each_case
def test_merging_changes_no_logit_and_unmerging_no_bit(make, case):
    model = make()
    before = {name: p.clone() for name, p in model.named_parameters()}
    lora.attach(model, lora.Config(**({"r": 8, "alpha": 16} | ours_of(case))))
    randomize(model)
    adapted = logits(model)
    lora.merge(model)
    torch.testing.assert_close(logits(model), adapted, rtol=0, atol=5e-6)
    lora.unmerge(model)
    assert torch.equal(logits(model), adapted)
    lora.detach(model)
    assert before.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [gpt2, llama])
def test_rows_equal_peft_and_separate_runs(make, tmp_path):
    base, names = make(), ["a", "b", "c"]
    targets = ["c_attn", "c_fc"] if make is gpt2 else ["q_proj", "down_proj", "embed_tokens"]
    for seed, name in enumerate(names):
        theirs = peft.get_peft_model(
            copy.deepcopy(base), peft.LoraConfig(r=2 + seed, lora_alpha=5, target_modules=targets)
        )
        torch.manual_seed(seed)
        randomize(theirs, 0.1 + 0.1 * seed)
        theirs.save_pretrained(tmp_path / name)
    ours = copy.deepcopy(base)
    mixed = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a", adapter_name="a").eval()
    for name in names:
        lora.load(ours, tmp_path / name, name=name)
        if name != "a":
            mixed.load_adapter(tmp_path / name, adapter_name=name)
    tokens = torch.randint(100, (5, 6), generator=torch.Generator().manual_seed(0))
    rows = ["c", None, "a", "b", "c"]
    with torch.no_grad(), lora.rows(ours, rows):
        found = ours(tokens).logits
    with torch.no_grad():
        theirs = mixed(tokens, adapter_names=[name or "__base__" for name in rows]).logits
    torch.testing.assert_close(found, theirs, rtol=0, atol=2e-6)
    for row, name in enumerate(rows):
        lora.use(ours, *([name] if name else []))
        with torch.no_grad():
            torch.testing.assert_close(found[row], ours(tokens[row : row + 1]).logits[0], rtol=0, atol=2e-6)


def test_a_bf16_base_keeps_float32_adapters_as_peft_does(tmp_path):
    base = llama().to(torch.bfloat16)
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules=["q_proj"], r=4)).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    lora.load(ours := copy.deepcopy(base), tmp_path)
    assert {p.dtype for p in lora.modules_of(ours, "default")[0].parameters()} == {torch.float32}
    assert torch.equal(logits(ours), logits(theirs))


def our_gpt(shape, tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "context": 16, "n_layers": 2, "n_heads": 4, "d_model": 32}
    config = GPTConfig(**sizes) if shape == "gpt2" else presets.llama_like(**sizes)
    model = GPT(config).eval()
    model.save_pretrained(tmp_path / "base")
    return model, transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    "targets",
    [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"], ["k_proj", "up_proj"], "all-linear", ["head"]],
    ids=str,
)
@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_our_adapter_works_in_transformers_and_comes_back(shape, targets, rslora, tmp_path):
    """q, k and v are one tensor in GPT-2's files: adapters of some of them become one adapter of blocks, exactly."""
    model, theirs = our_gpt(shape, tmp_path)
    config = lora.Config(r=3, alpha=4, targets=targets, rslora=rslora, tied="untie")
    if targets != ["head"]:
        config = replace(config, rank_pattern={r".*0.*": 2})
    lora.attach(model, config)
    randomize(model)
    lora.save(model, tmp_path / "adapter")
    found = model(TOKENS)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(found, theirs(TOKENS).logits, rtol=0, atol=2e-6)
    again = GPT.from_pretrained(tmp_path / "base")
    lora.load(again, tmp_path / "adapter", trainable=True)
    assert torch.equal(again(TOKENS), found)
    ours, back = dict(model.named_parameters()), dict(again.named_parameters())
    assert ours.keys() == back.keys() and all(torch.equal(ours[name], back[name]) for name in ours)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["k_proj"], "all-linear"], ids=str)
def test_a_compact_file_is_the_same_adapter_in_half_the_bytes(targets, tmp_path):
    model, _ = our_gpt("gpt2", tmp_path)
    lora.attach(model, lora.Config(r=8, targets=targets))
    randomize(model)
    for name, compact in (("whole", False), ("compact", True)):
        lora.save(model, tmp_path / name, compact=compact)
    whole, compact = files.read(tmp_path / "whole"), files.read(tmp_path / "compact")
    for path, update in whole.updates.items():
        assert torch.equal(update.A, compact.updates[path].A) and torch.equal(update.B, compact.updates[path].B)
    sizes = [sum(t.nbytes for t in load_file(tmp_path / each / files.NAME).values()) for each in ("whole", "compact")]
    assert sizes[1] == sum(p.nbytes for p in lora.parameters(model)) < sizes[0]
    lora.load(again := GPT.from_pretrained(tmp_path / "base"), tmp_path / "compact")
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_a_whole_adapter_of_a_fused_layer_comes_apart_exactly(tmp_path):
    model, theirs = our_gpt("gpt2", tmp_path)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, target_modules=["c_attn"])).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path / "adapter")
    lora.load(model, tmp_path / "adapter")
    torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=0, atol=2e-6)
    assert len(lora.modules_of(model, "default")) == 6


@pytest.mark.parametrize("used", [(True, False, True), (False, True, False), (True, True, True)])
def test_slices_of_a_fused_layer(used, tmp_path):
    base = gpt2()
    ours = copy.deepcopy(base)
    lora.attach(ours, lora.Config(r=3, alpha=6, targets=["c_attn"], slices={"c_attn": used}))
    randomize(ours)
    lora.save(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=2e-6, atol=2e-6)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3 * sum(used), 6 * sum(used))
    stored = files.read(tmp_path)
    for update in stored.updates.values():
        delta = update.scale * update.B @ update.A
        for part, adapted in zip(delta.chunk(3), used, strict=True):
            assert bool(part.any()) == adapted
    again = copy.deepcopy(base)
    lora.load(again, tmp_path)
    assert torch.equal(logits(again), logits(ours))
    assert lora.modules_of(again, "default")[0].parts == tuple((32, one) for one in used)


def test_slices_are_recognised_in_a_file_that_does_not_name_them(tmp_path):
    base = gpt2()
    ours = copy.deepcopy(base)
    lora.attach(ours, lora.Config(r=3, targets=["c_attn"], slices={"c_attn": (True, False, True)}))
    randomize(ours)
    stored = lora.collect(ours)
    files.write(files.Stored(stored.config, stored.updates), tmp_path)
    lora.load(again := copy.deepcopy(base), tmp_path)
    assert lora.modules_of(again, "default")[0].parts == ((32, True), (32, False), (32, True))
    assert torch.equal(logits(again), logits(ours))


class TestTied:
    """A head and an embedding that are one matrix."""

    @pytest.mark.parametrize("target", ["lm_head", "wte"])
    def test_refused_unless_told_what_to_do(self, target):
        with pytest.raises(lora.Error, match="share one weight"):
            lora.attach(model := gpt2(), lora.Config(targets=[target]))
        assert not any(isinstance(m, lora.layers.Layer) for m in model.modules())

    @pytest.mark.parametrize("target", ["lm_head", "wte"])
    def test_untied_changes_the_target_alone(self, target, tmp_path):
        model, truth = gpt2(), gpt2(tied=False)
        truth.load_state_dict(gpt2().state_dict())
        for one, tied in ((model, "untie"), (truth, "refuse")):
            torch.manual_seed(0)
            lora.attach(one, lora.Config(r=4, targets=[target], tied=tied))
            randomize(one, 0.1)
        assert torch.equal(logits(model), logits(truth))
        adapted = logits(model)
        lora.bake(model)
        assert model.config.tie_word_embeddings is False
        torch.testing.assert_close(logits(model), adapted, rtol=0, atol=2e-6)
        model.save_pretrained(tmp_path)
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.equal(logits(again), logits(model))

    def test_tied_changes_both_by_one_update_once(self, tmp_path):
        model = gpt2()
        weight = model.lm_head.weight.detach().clone()
        lora.attach(model, lora.Config(r=4, alpha=8, targets=["lm_head"], tied="tie"))
        randomize(model, 0.1)
        update = lora.layers_of(model)["lm_head"].update("default")
        truth = gpt2()
        with torch.no_grad():
            truth.lm_head.weight.copy_(weight.double() + 2 * update.B.double() @ update.A.double())
        torch.testing.assert_close(logits(model), logits(truth), rtol=0, atol=5e-6)
        lora.save(model, tmp_path)
        again = gpt2()
        lora.load(again, tmp_path)
        assert torch.equal(logits(again), logits(model))
        lora.merge(again)
        assert again.lm_head.base.weight is again.transformer.wte.base.weight
        assert torch.equal(again.lm_head.base.weight, truth.lm_head.weight)
        lora.unmerge(again)
        assert torch.equal(again.lm_head.base.weight, weight)

    def test_pefts_tied_files_are_read_and_peft_reads_ours(self, tmp_path):
        base = gpt2()
        config = peft.LoraConfig(r=4, target_modules=["lm_head"], ensure_weight_tying=True)
        theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
        randomize(theirs, 0.1)
        theirs.save_pretrained(tmp_path / "theirs")
        lora.load(ours := copy.deepcopy(base), tmp_path / "theirs")
        torch.testing.assert_close(logits(ours), logits(theirs), rtol=2e-6, atol=2e-6)


def test_a_linear_head_of_ours_merges_into_a_matrix_of_its_own(tmp_path):
    model, _ = our_gpt("llama", tmp_path)
    lora.attach(model, lora.Config(r=2, targets=["head"], tied="untie"))
    randomize(model)
    lora.bake(model)
    model.save_pretrained(tmp_path / "merged")
    assert torch.equal(GPT.from_pretrained(tmp_path / "merged")(TOKENS), model(TOKENS))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=0, atol=2e-6)


def test_any_module_with_linear_layers_will_do():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4), nn.ReLU())
    lora.attach(model, lora.Config(r=2, targets=["0", "1"]))
    randomize(model)
    adapted = model(torch.tensor([[1, 2]]))
    lora.merge(model)
    torch.testing.assert_close(model(torch.tensor([[1, 2]])), adapted)
