"""Soft prompts: peft's logits, gradients, steps and texts; transformers' where peft cannot; rows as if alone."""

import copy

import pytest
import torch
import torch.nn.functional as F

from minigpt import Error
from minigpt.corpus.batches import Batch
from minigpt.generation import beam_search, generate
from minigpt.loss import IGNORE, cross_entropy
from minigpt.tuning import extended, prompt, ptuning
from tests import helpers

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

V, P = helpers.SIZES["vocab_size"], 4
METHODS = {
    "prompt": (prompt, prompt.PromptConfig(length=P, start="uniform")),
    "lstm": (ptuning, ptuning.PTuningConfig(length=P)),
    "mlp": (ptuning, ptuning.PTuningConfig(length=P, encoder="mlp", hidden=24)),
}
each_method = pytest.mark.parametrize("method", METHODS)
each_base = pytest.mark.parametrize("kind", ["gpt2", "llama"])


def prompted(kind: str = "gpt2", method: str = "prompt", **changes):
    model = helpers.model(kind, std=0.3, **changes)
    module, config = METHODS[method]
    module.attach(model, config)
    return model


def held(model, lengths) -> list[str]:
    """Prompts of these lengths, with rows of their own; their names."""
    for n, length in enumerate(lengths):
        prompt.attach(model, prompt.PromptConfig(length=length, start="uniform", scale=2.0, seed=n), name=f"task{n}")
    return prompt.names(model)


def in_transformers(model, directory):
    """The base of `model` as transformers opens it."""
    base = copy.deepcopy(model)
    for name in prompt.names(base):
        prompt.detach(base, name)
    base.save_pretrained(directory)
    return transformers.AutoModelForCausalLM.from_pretrained(directory).eval()


def in_peft(model, method: str, directory):
    """The base in peft with the same prompt, its encoder copied."""
    config = METHODS[method][1]
    shape = {"task_type": "CAUSAL_LM", "num_virtual_tokens": P}
    if method == "prompt":
        shape = peft.PromptTuningConfig(**shape)
    else:
        shape |= {"encoder_reparameterization_type": config.encoder.upper()}
        shape = peft.PromptEncoderConfig(**shape, encoder_hidden_size=config.width(32))
    theirs = peft.get_peft_model(in_transformers(model, directory), shape).eval()
    with torch.no_grad():
        for name, weight in theirs.prompt_encoder["default"].named_parameters():
            weight.copy_(extended.rows_of(model, "default").get_parameter(our_name(name)))
    return theirs


def our_name(theirs: str) -> str:
    return theirs.replace("embedding.weight", "table").replace("lstm_head", "lstm").replace("mlp_head", "mlp")


def a_batch(rows: int = 3, time: int = 7) -> Batch:
    tokens = helpers.tokens(rows, time)
    targets = F.pad(tokens[:, 1:], (0, 1), value=IGNORE)
    targets[0, 1] = IGNORE
    return Batch(tokens, targets, None, None, int((targets != IGNORE).sum()))


def mean_loss(model, batch: Batch):
    hidden = model.hidden(batch.tokens, positions=batch.positions)
    return cross_entropy(hidden, model.head, batch.targets, "sum") / batch.n_targets


@each_base
@each_method
def test_logits_gradients_and_twenty_steps_are_pefts(kind, method, tmp_path):
    ours = prompted(kind, method)
    theirs, batch = in_peft(ours, method, tmp_path), a_batch()
    labels = F.pad(batch.targets[:, :-1], (1, 0), value=IGNORE)  # peft's stand under the token they are
    read = prompt.prepend(ours, batch)
    assert (ours(read.tokens) - theirs(input_ids=batch.tokens).logits).abs().max() < 1e-5

    base = {name: weight.clone() for name, weight in ours.named_parameters() if not weight.requires_grad}
    learned = [p for p in ours.parameters() if p.requires_grad]
    optimizers = [
        torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.1)
        for weights in (learned, theirs.prompt_encoder.parameters())
    ]
    for step in range(20):
        losses = mean_loss(ours, read), theirs(input_ids=batch.tokens, labels=labels).loss
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
        if not step:
            for name, weight in theirs.prompt_encoder["default"].named_parameters():
                mine = extended.rows_of(ours, "default").get_parameter(our_name(name)).grad
                assert (mine - weight.grad).abs().max() < 1e-5 * max(1, weight.grad.abs().max()), name
            first = losses[0].item()
        assert abs(losses[0].item() - losses[1].item()) < 1e-4
        for optimizer in optimizers:
            optimizer.step()
    assert losses[0] < first
    assert all(torch.equal(ours.get_parameter(name), weight) for name, weight in base.items())


@each_base
@each_method
def test_either_reads_what_the_other_wrote_and_writes_the_same_texts(kind, method, tmp_path):
    ours, module = prompted(kind, method), METHODS[method][0]
    with torch.no_grad():
        extended.rows_of(ours, "default").table.mul_(3)
    theirs = in_peft(ours, method, tmp_path / "base")
    module.save(ours, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    text = helpers.tokens(1, 6)
    opened = peft.PeftModel.from_pretrained(in_transformers(ours, tmp_path / "base"), tmp_path / "ours").eval()
    module.load(ours, tmp_path / "theirs", "theirs")
    with torch.no_grad():
        wanted = ours(torch.tensor([prompt.with_prompt(ours, text[0].tolist())]))
        assert (opened(input_ids=text).logits - wanted).abs().max() < 1e-5
        rows = prompt.with_prompt(ours, text[0].tolist(), "theirs")
        assert (ours(torch.tensor([rows])) - wanted).abs().max() < 1e-5
    # Without a mask transformers takes every token 0 of the text for padding.
    options = {"attention_mask": torch.ones_like(text), "eos_token_id": None, "pad_token_id": 0}
    options |= {"max_new_tokens": 6, "do_sample": False}
    greedy = opened.generate(input_ids=text, **options)[0, -6:].tolist()
    assert generate(ours, [rows], 6, temperature=0) == [greedy]
    beams = opened.generate(input_ids=text, num_beams=3, num_return_sequences=3, **options)[:, -6:].tolist()
    assert [beam.tokens for beam in beam_search(ours, [rows], 3, max_new_tokens=6)[0]] == beams


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt3"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_of_a_mixed_batch_are_written_as_if_alone(kind, use_cache):
    model = helpers.model(kind, std=0.3)
    tasks, texts = held(model, (3, 5, 1)), [helpers.tokens(1, n)[0].tolist() for n in (4, 2, 6, 5)]
    rows = [prompt.with_prompt(model, text, task) for text, task in zip(texts, [*tasks, None], strict=True)]
    alone = [generate(model, [row], 8, temperature=0, use_cache=False)[0] for row in rows]
    assert generate(model, rows, 8, temperature=0, use_cache=use_cache) == alone
    assert len({tuple(new) for new in generate(model, [texts[0], *(rows[0][:3] + t for t in texts)], 8)}) > 2
    alone = [beam_search(model, [row], 3, max_new_tokens=5, use_cache=False)[0] for row in rows]
    together = beam_search(model, rows, 3, max_new_tokens=5, use_cache=use_cache)
    assert [[beam.tokens for beam in found] for found in together] == [[beam.tokens for beam in f] for f in alone]
    drawn = [generate(model, [row], 8, seed=5, row=n)[0] for n, row in enumerate(rows)]
    assert generate(model, rows, 8, seed=5, use_cache=use_cache) == drawn


def test_a_plain_row_is_the_base(tmp_path):
    model = helpers.model(std=0.3)
    tokens = helpers.tokens()
    before = model(tokens)
    held(model, (2, 3))
    assert torch.equal(model(tokens), before)
    with torch.no_grad():
        assert torch.equal(model(tokens), before)


def test_a_prompt_begun_from_a_text_is_that_text_bit_for_bit():
    model = helpers.model(std=0.3)
    for length, hard in ((3, [7, 8, 9]), (5, [7, 8, 9, 7, 8]), (2, [7, 8])):
        prompt.attach(model, prompt.PromptConfig(length=length, start="text", text=(7, 8, 9)), name=f"p{length}")
        text = helpers.tokens(1, 6)[0].tolist()
        soft = torch.tensor([prompt.with_prompt(model, text, f"p{length}")])
        assert torch.equal(model(soft), model(torch.tensor([hard + text])))


@each_base
@pytest.mark.parametrize("method", ["lstm", "mlp"])
def test_scattered_virtual_tokens_are_a_loop_over_inputs_embeds(kind, method, tmp_path):
    model = prompted(kind, method)
    theirs, head, tail = in_transformers(model, tmp_path), [5, 6, 7], [8, 9]
    tokens = ptuning.template(model, [1, head, 2, tail, 1], "default")
    assert [token >= V for token in tokens] == [True, *[False] * 3, True, True, False, False, True]
    rows, table = extended.rows_of(model, "default")(), theirs.get_input_embeddings().weight
    embeds, seen = [], 0
    for token in tokens:
        embeds.append(table[token] if token < V else rows[seen])
        seen += token >= V
    with torch.no_grad():
        assert (
            model(torch.tensor([tokens])) - theirs(inputs_embeds=torch.stack(embeds)[None]).logits
        ).abs().max() < 1e-5
    with pytest.raises(Error, match=r"places \[1, 2\] virtual tokens, 'default' has 4"):
        ptuning.template(model, [1, head, 2])


def test_the_lookup_is_its_plain_twin_bit_for_bit():
    weight, rows = torch.randn(V, 8), torch.randn(5, 8, requires_grad=True)
    ids, slope = torch.randint(V + 5, (3, 9)), torch.randn(3, 9, 8)
    assert (ids >= V).any() and torch.equal(extended.fast(ids, weight, rows), extended.plain(ids, weight, rows))
    grads = [torch.autograd.grad(f(ids, weight, rows), rows, slope)[0] for f in (extended.fast, extended.plain)]
    assert torch.allclose(*grads, atol=1e-6) and grads[0].any()


def test_text_keeps_its_own_positions_when_unshifted(tmp_path):
    model = prompted()
    theirs, text = in_transformers(model, tmp_path), helpers.tokens(2, 7)
    batch = Batch(text, text, None, None, 14)
    read = prompt.prepend(model, batch, shift=False)
    places = torch.tensor([[*range(P), *range(7)]])
    assert torch.equal(read.positions, places.expand(2, -1))
    rows = extended.rows_of(model, "default")().expand(2, -1, -1)
    embeds = torch.cat([rows, theirs.get_input_embeddings()(text)], 1)
    wanted = theirs(inputs_embeds=embeds, position_ids=places).logits
    assert (model(read.tokens, positions=read.positions) - wanted).abs().max() < 1e-5
    padded = torch.tensor([[0, 0, *prompt.ids(model), 7, 8]])
    keep = torch.tensor([[False] * 2 + [True] * (P + 2)])
    assert prompt.own_positions(model, padded, keep)[0, 2:].tolist() == [*range(P), 0, 1]
    with prompt.unshifted(model), torch.no_grad():
        assert (model(read.tokens) - wanted).abs().max() < 1e-5
        whole = [prompt.with_prompt(model, row) for row in text.tolist()] + [prompt.with_prompt(model, [3, 4])]
        new = generate(model, whole, 6, temperature=0)
        assert new == generate(model, whole, 6, temperature=0, use_cache=False)
        with pytest.raises(Error, match="must then begin with as many"):
            prompt.with_prompt(model, [3], None)
    for row, written in zip(whole, new, strict=True):
        for token in written:
            ids = torch.tensor([row])
            assert model(ids, positions=prompt.own_positions(model, ids))[0, -1].argmax() == token
            row = [*row, token]
    assert not torch.allclose(model(read.tokens), wanted, atol=0.1)
    with pytest.raises(Error, match="rotary ones are distances"), prompt.unshifted(prompted("llama")):
        pass
