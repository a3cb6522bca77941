"""What users write, as a type checker reads it: `make lint` checks this file with every strict rule of mypy."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor

import lora
from minigpt import GPT, Error, GPTConfig, presets
from minigpt.cache import Cache
from minigpt.chat import Answer, Chat
from minigpt.generation import beam_search, generate
from minigpt.generation.search import Beam
from minigpt.serving import serving
from minigpt.tokenizer import Tokenizer


def model_in_and_out(run: Path) -> Tensor:
    config = GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16)
    assert_type(presets.gpt2("small"), GPTConfig)
    model = GPT(config)
    assert_type(GPT.from_pretrained(run), GPT)
    model.save_pretrained(run)
    tokens = torch.tensor([[1, 2, 3]])
    cache = Cache(config, batch=1)
    assert_type(model.hidden(tokens, cache=cache, keep=None), Tensor)
    logits: Tensor = model.head(model.hidden(embeds=torch.zeros(1, 3, 32)))
    return logits


def texts(model: GPT, tokenizer: Tokenizer) -> list[list[int]]:
    found = beam_search(model, [[1, 2]], num_beams=4, max_new_tokens=8, length_penalty=1.0)
    assert_type(found, list[list[Beam]])
    assert_type(found[0][0].score, float)
    chat = Chat(model, tokenizer, system="Answer briefly.", temperature=0.7)
    assert_type(chat.answer("since when?"), Answer)
    with serving(model, weights="int8"):
        return generate(model, [[1, 2], [3]], max_new_tokens=5, temperature=0.8, top_k=50, seed=0)


def adapters(model: GPT, directory: Path) -> int:
    report = lora.attach(model, lora.Config(r=8, alpha=16, targets=["q_proj", "v_proj"]), name="letters")
    try:
        lora.merge(model)
        lora.unmerge(model)
    except lora.Error as problem:
        raise Error(str(problem)) from None
    lora.save(model, directory)
    lora.load(model, directory, name="again")
    lora.use(model, "again")
    with lora.disabled(model), lora.rows(model, ["letters", None]), lora.scaled(model, "letters", 0.5):
        assert_type(lora.names(model), list[str])
    lora.detach(model)
    return report.parameters
