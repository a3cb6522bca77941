"""Stored prompts: read back, refused when damaged; mistakes of configuration are named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt import GPT, Error
from minigpt.tuning import extended, prompt, ptuning
from tests import helpers

V = helpers.SIZES["vocab_size"]
FILE = "adapter_model.safetensors"


def test_tuning_goes_on_from_a_stored_encoder(tmp_path):
    model = helpers.model(std=0.3)
    ptuning.attach(model, ptuning.PTuningConfig(length=3, dropout=0.5))
    model.train()
    ptuning.save(model, tmp_path, encoder=True)
    stored = load_file(tmp_path / FILE)["prompt_embeddings"]
    found = ptuning.load(model, tmp_path, "again", encoder=True)
    assert found.parameters == 3 * 32 + 14 * 32**2 + 18 * 32 and extended.rows_of(model, "again").training
    assert torch.equal(extended.evaluated(extended.rows_of(model, "again")), stored)
    one, other = (extended.rows_of(model, name).state_dict() for name in ("default", "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    found = ptuning.load(model, tmp_path, "table")
    assert found.parameters == 0 and torch.equal(extended.rows_of(model, "table")(), stored)
    with torch.no_grad():
        extended.rows_of(model, "again").table.add_(1)
    ptuning.save(model, tmp_path / "other", "again", encoder=True)
    (tmp_path / "other" / ptuning.FILE).replace(tmp_path / ptuning.FILE)
    with pytest.raises(Error, match="the files are of two prompts"):
        ptuning.load(model, tmp_path, "mixed", encoder=True)
    ptuning.save(model, tmp_path)
    assert not (tmp_path / ptuning.FILE).exists()
    with pytest.raises(Error, match="not found: the directory is incomplete"):
        ptuning.load(model, tmp_path, "mixed", encoder=True)
    with pytest.raises(Error, match="no prompt that has its encoder"):
        ptuning.save(model, tmp_path, "table", encoder=True)
    assert prompt.load(model, tmp_path, "plain").stored == 384 and "mixed" not in prompt.names(model)


DAMAGES = {
    "unknown key 'num_virtual_token': did you mean 'num_virtual_tokens'": {"num_virtual_token": 3},
    "peft_type is 'LORA', expected PROMPT_TUNING or P_TUNING": {"peft_type": "LORA"},
    "num_virtual_tokens is None": {"num_virtual_tokens": None},
    "is (3, 32), adapter_config.json makes it (4, 32)": {"num_virtual_tokens": 4},
    "num_layers is 9, the model's is 2": {"num_layers": 9},
    "task_type is 'SEQ_2_SEQ_LM'": {"task_type": "SEQ_2_SEQ_LM"},
    "num_transformer_submodules is 2": {"num_transformer_submodules": 2},
    "unknown key 'encoder_dropout'": {"encoder_dropout": 0.0},
    "holds ['other', 'prompt_embeddings']": {"tensors": {"other": torch.zeros(1)}},
    "NaN or infinity": {"tensors": {"prompt_embeddings": torch.full((3, 32), torch.inf)}},
    "holds torch.int64": {"tensors": {"prompt_embeddings": torch.ones(3, 32, dtype=torch.int64)}},
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_files_are_refused_with_the_reason(message, tmp_path):
    model, changes = helpers.model(), dict(DAMAGES[message])
    prompt.attach(model, prompt.PromptConfig(length=3), "task0")
    prompt.save(model, tmp_path, "task0")
    file = tmp_path / FILE
    save_file(load_file(file) | changes.pop("tensors", {}), file)
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(Error) as problem:
        prompt.load(model, tmp_path, "loaded")
    assert message in str(problem.value) and prompt.names(model) == ["task0"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: prompt.PromptConfig(start="vocab"), "did you mean 'vocabulary'"),
        (lambda m: prompt.PromptConfig(length=0), "length is 0"),
        (lambda m: prompt.PromptConfig(start="text"), "text has 0 items"),
        (lambda m: prompt.PromptConfig(length=1, start="labels", labels=((1,), (2,))), "2 labels for 1 rows"),
        (lambda m: prompt.attach(m, prompt.PromptConfig(start="text", text=(V,)), "b"), "token 61 is not in"),
        (lambda m: prompt.attach(m, prompt.PromptConfig(length=20, among=10), "b"), "20 different tokens"),
        (lambda m: prompt.attach(m, prompt.PromptConfig(length=2), "a"), "'a' is attached already"),
        (lambda m: prompt.attach(m, prompt.PromptConfig(length=2), "a.b"), "cannot name a prompt"),
        (lambda m: prompt.attach(m, prompt.PromptConfig(length=2), "keys"), "cannot name a prompt"),
        (lambda m: prompt.ids(GPT(m.config)), "no prompt is attached"),
        (lambda m: ptuning.PTuningConfig(encoder="gru"), "PTuningConfig.encoder is 'gru'"),
        (lambda m: ptuning.PTuningConfig(encoder="mlp", layers=3), "are the LSTM's"),
        (lambda m: ptuning.PTuningConfig(dropout=0.1, layers=1), "falls between the layers"),
        (lambda m: ptuning.save(m, "nowhere", "a"), "no prompt of P-tuning"),
    ],
)
def test_mistakes_are_named(call, message):
    model = helpers.model()
    prompt.attach(model, prompt.PromptConfig(length=2), "a")
    with pytest.raises(Error, match=message):
        call(model)
    assert prompt.names(model) == ["a"]
