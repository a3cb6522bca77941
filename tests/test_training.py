"""The training loop: what a step is, what must not change it, and what it must learn."""

import contextlib
import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minigpt import GPT, Error, GPTConfig
from minigpt.corpus.batches import Batches
from minigpt.loss import IGNORE, cross_entropy
from minigpt.memory import Job
from minigpt.tokenizer import Tokenizer
from minigpt.training import compose
from minigpt.training.checkpoint import Progress
from minigpt.training.estimate import first_loss, memory_bytes, unigram_entropy
from minigpt.training.evaluate import evaluate
from minigpt.training.loop import Hooks, fit, train_step
from minigpt.training.optimizer import load_state_by_name, make_optimizer, state_by_name
from minigpt.training.options import SIZES, LoopConfig, OptimizerConfig, RunConfig, ShapeConfig
from minigpt.training.schedule import ScheduleConfig, learning_rate
from minigpt.training.streams import stream_seed


class SilentLog:
    def __init__(self):
        self.records = []

    def record(self, kind, step, **values):
        self.records.append((kind, step, values))

    def best(self, score):
        return (math.inf,)

    def advance(self, loss, speed): ...

    def say(self, text): ...


def tiny(dropout=0.0, **changes) -> GPT:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "context": 16, "n_layers": 2, "n_heads": 2, "d_model": 16}
    rates = dict.fromkeys(("embed_dropout", "attn_dropout", "resid_dropout"), dropout)
    return GPT(GPTConfig(**shape | rates | changes))


def some_batches(n_tokens=700, batch_size=4, **options) -> Batches:
    tokens = np.random.default_rng(0).integers(0, 50, n_tokens).astype(np.uint16)
    return Batches(tokens, context=16, batch_size=batch_size, seed=0, **options)


def train(model, batches, loop: LoopConfig, hooks: Hooks | None = None, rate=1e-2):
    optimizer, log = make_optimizer(model, OptimizerConfig(optimizer="adamw")), SilentLog()
    hooks = hooks or Hooks(lambda step: rate, lambda: {"loss": 0.0, "perplexity": 1.0, "bits_per_byte": 0.0},
                           lambda step: "", lambda: None, lambda progress: None)  # fmt: skip
    fit(model, optimizer, batches, loop, hooks, log, Progress(), clip=1.0)
    return [values["loss"] for kind, _, values in log.records if kind == "train"]


def gradients(model, batches, accumulate):
    """What one step adds up, seen through an optimizer that changes nothing."""
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self):
            seen.update({name: weight.grad.clone() for name, weight in model.named_parameters()})

    train_step(model, Spy(model.parameters(), lr=0.0), batches, LoopConfig(steps=1, accumulate=accumulate), 0, 0.0, 0.0)
    return seen


def test_accumulating_2_by_4_rows_is_the_step_of_8_rows_also_when_the_epoch_ends_inside():
    # 100 tokens are 7 windows: the second micro-batch of 4 has 3 rows, one of them padded.
    model = tiny()
    whole = gradients(model, some_batches(100, batch_size=8), accumulate=1)
    parts = gradients(model, some_batches(100, batch_size=4), accumulate=2)
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-6), name
    batch = some_batches(100, batch_size=8)[0]
    mean = torch.nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
    mean.backward()
    assert torch.allclose(model.head.weight.grad, whole["token_embedding.weight"], atol=1e-6)


def test_evaluating_sampling_and_saving_more_often_changes_no_loss_by_one_bit():
    from minigpt.generation import generate

    losses = []
    for often in (0, 1):
        model, batches = tiny(dropout=0.1), some_batches()

        def judge(model=model):
            return vars(evaluate(model, some_batches(90, shuffle=False), torch.ones(50, dtype=torch.long)))

        def write(step, model=model):
            torch.rand(1)  # who samples may use the global stream too
            return str(generate(model, [[1]], 5, seed=step))

        hooks = Hooks(lambda step: 1e-2, judge, write, lambda: torch.rand(1), lambda progress: torch.rand(1))
        loop = LoopConfig(steps=8, accumulate=2, eval_every=often, sample_every=often, save_every=often)
        losses.append(train(model, batches, loop, hooks))
    assert losses[0] == losses[1] and len(losses[0]) == 8


def test_dropout_differs_from_step_to_step_and_from_micro_batch_to_micro_batch():
    assert len({stream_seed(0, "dropout", step, k) for step in range(50) for k in range(4)}) == 200
    model = tiny(dropout=0.5).train()
    same = Batches(np.ones(17 * 64, dtype=np.uint16), context=16, batch_size=64, seed=0)
    still = [train_step(model, torch.optim.SGD(model.parameters(), lr=0.0), same, LoopConfig(), s, 0.0, 0.0)[0]
             for s in (0, 1, 0)]  # fmt: skip
    assert still[0] == still[2] != still[1]


def test_a_step_is_adamw_with_decay_on_matrices_only():
    model = tiny().double()  # in float32 Adam turns the rounding of a gradient near 0 into a step of its own
    twin = copy.deepcopy(model)
    matrices = [w for w in twin.parameters() if w.ndim >= 2]
    vectors = [w for w in twin.parameters() if w.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-2, betas=(0.8, 0.95), foreach=False, fused=False,
    )  # fmt: skip
    optimizer, batches = (
        make_optimizer(model, OptimizerConfig(optimizer="adamw", weight_decay=0.3, beta1=0.8)),
        some_batches(),
    )
    for step in range(20):
        train_step(model, optimizer, batches, LoopConfig(), step, 1e-2, 1.0)
        batch = batches[step]
        torch.nn.functional.cross_entropy(twin(batch.tokens).flatten(0, 1), batch.targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        reference.step()
        reference.zero_grad()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_tied_and_frozen_weights_stand_once_and_not_at_all_in_the_optimizer():
    model = tiny()
    model.blocks[0].requires_grad_(False)
    grouped = [
        w for group in make_optimizer(model, OptimizerConfig(optimizer="adamw")).param_groups for w in group["params"]
    ]
    wanted = [w for w in model.parameters() if w.requires_grad]
    assert len(grouped) == len(wanted) == len({id(w) for w in grouped} & {id(w) for w in wanted})


def test_optimizer_state_survives_names():
    model, batches = tiny(), some_batches()
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="adamw"))
    train_step(model, optimizer, batches, LoopConfig(), 0, 1e-2, 1.0)
    twin = copy.deepcopy(model)
    second = make_optimizer(twin, OptimizerConfig(optimizer="adamw"))
    load_state_by_name(twin, second, {key: value.clone() for key, value in state_by_name(model, optimizer).items()})
    for m, o in ((model, optimizer), (twin, second)):
        train_step(m, o, batches, LoopConfig(), 1, 1e-2, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    with pytest.raises(Error, match="differ at"):
        load_state_by_name(tiny(n_layers=1), second, state_by_name(model, optimizer))


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd", "constant"])
def test_schedules_equal_transformers(name):
    import transformers

    n, w, f = 40, 5, 0.1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    config = ScheduleConfig(lr=1.0, schedule=name, warmup=w, final_lr=f, decay=0.25)
    ours = [learning_rate(t, n, config) for t in range(n)]
    assert ours[0] == 1 / w and ours[w - 1] == 1.0  # linear, and never a step of size 0
    if name == "constant":
        assert set(ours[w:]) == {1.0}
        return
    assert ours[-1] == pytest.approx(f)
    if name == "cosine":
        theirs = transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, 0, n - 1 - w, min_lr_rate=f)
    else:
        decay = (1 if name == "linear" else 0.25) * (n - 1 - w)
        theirs = transformers.get_wsd_schedule(
            optimizer, num_warmup_steps=0, num_stable_steps=n - 1 - w - decay, num_decay_steps=decay,
            min_lr_ratio=f, decay_type="linear",
        )  # fmt: skip
    for t in range(w, n):
        assert ours[t] == pytest.approx(theirs.get_last_lr()[0], abs=1e-6), t
        optimizer.step()
        theirs.step()


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    model = tiny()
    with torch.no_grad():
        model.final_norm.weight[0] = math.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Error, match=r"step 1: the loss is nan.*lower --lr"):
        train(model, some_batches(), LoopConfig(steps=3))
    assert all(torch.equal(before[k], v) or k == "final_norm.weight" for k, v in model.state_dict().items())


def test_bits_per_byte_by_hand():
    """Token 0 is special (no bytes), token v stands for v bytes."""
    model, batches = tiny().train(), some_batches(100, shuffle=False)
    lengths = torch.arange(50)
    found = evaluate(model, batches, lengths)
    nats = length = total = n = 0.0
    for i in range(len(batches)):
        for tokens, targets in zip(batches[i].tokens, batches[i].targets, strict=True):
            log_p = model(tokens[None])[0].double().log_softmax(-1)
            for t, target in enumerate(targets.tolist()):
                if target != IGNORE:
                    total, n = total - log_p[t, target].item(), n + 1
                    nats, length = nats - log_p[t, target].item() * (target > 0), length + target
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / length, rel=1e-5)
    assert found.loss == pytest.approx(total / n, rel=1e-5) and found.tokens == n == 99
    assert found.perplexity == pytest.approx(math.exp(total / n), rel=1e-5)
    assert model.training, "evaluation leaves the model as it was"


def chain_of(transition: np.ndarray, length: int, seed: int) -> np.ndarray:
    """Tokens of a first-order chain."""
    rng, chain = np.random.default_rng(seed), [0]
    steps = transition.cumsum(1)
    for draw in rng.random(length - 1):
        chain.append(min(int(np.searchsorted(steps[chain[-1]], draw)), len(steps) - 1))
    return np.array(chain, dtype=np.uint16)


def losses(model: GPT, chain: np.ndarray, steps: int, rate: float) -> list[float]:
    """Of each step, in order."""
    batches = Batches(chain, 32, 16, seed=0)
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="adamw", weight_decay=0.0))
    return [train_step(model, optimizer, batches, LoopConfig(), step, rate, 1.0)[0] for step in range(steps)]


def test_a_near_corpus_is_learned_in_fewer_steps_than_a_far_one():
    rng = np.random.default_rng(1)
    known, other = (rng.dirichlet(np.full(12, 0.2), size=12) for _ in range(2))
    base = tiny(vocab_size=12, context=32, d_model=32)
    losses(base, chain_of(known, 20_000, 1), 80, 1e-2)
    steps = []
    for share in (0.9, 0.0):  # of what it knows already
        transition = share * known + (1 - share) * other
        chain = chain_of(transition, 20_000, 2)
        own = -np.log(transition[chain[:-1], chain[1:]]).mean()
        found = losses(copy.deepcopy(base), chain, 80, 3e-3)
        steps.append(next(step for step, loss in enumerate(found) if loss < own + 0.2))
    near, far = steps
    assert 2 * near < far, steps


def test_of_three_learning_rates_the_middle_one_wins():
    chain = chain_of(np.random.default_rng(1).dirichlet(np.full(12, 0.2), size=12), 20_000, 1)
    ends = []
    for rate in (1e-4, 1e-2, 3.0):
        torch.manual_seed(0)
        try:
            found = losses(tiny(vocab_size=12, context=32, d_model=32), chain, 60, rate)
        except Error:  # the loss was not finite
            found = [0.0, math.inf]
        ends.append((found[0], found[-1]))
    slow, right, large = ends
    assert right[1] < slow[1] < slow[0], ends
    assert large[1] > large[0], ends


def test_a_markov_corpus_is_learned_to_its_entropy_and_not_below():
    """First-order chain over 12 tokens: no model can beat its entropy rate, and ours must come within 0.05 nats."""
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.full(12, 0.3), size=12)
    chain = [0]
    for _ in range(60_000):
        chain.append(rng.choice(12, p=transition[chain[-1]]))
    chain = np.array(chain, dtype=np.uint16)
    stationary = np.linalg.matrix_power(transition, 1000)[0]
    safe = np.where(transition > 0, transition, 1)
    entropy = -(stationary[:, None] * transition * np.log(safe)).sum()
    model = tiny(vocab_size=12, context=32, d_model=32)
    batches = Batches(chain[:50_000], 32, 16, seed=0)
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="adamw", weight_decay=0.0))
    schedule = ScheduleConfig(lr=1e-2, warmup=20, final_lr=0.0)
    for step in range(300):
        train_step(model, optimizer, batches, LoopConfig(), step, learning_rate(step, 300, schedule), 1.0)
    held_out = Batches(chain[50_000:], 32, 16, seed=0, shuffle=False)
    loss = evaluate(model, held_out, torch.ones(12, dtype=torch.long)).loss
    # What the chain's own probabilities score on these very tokens; the expectation above differs by chance.
    own = -np.log(transition[chain[50_000:-1], chain[50_001:]]).mean()
    assert abs(own - entropy) < 0.03
    # The first token of a window has no past to tell its state from: 1/32 of the targets.
    assert own - 0.005 < loss < own + 0.05, (loss, own, entropy)


def test_the_first_loss_is_what_the_estimate_says():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=1000, context=64, n_layers=2, n_heads=4, d_model=512)
    model, tokens = GPT(config), torch.randint(1000, (8, 65))
    loss = cross_entropy(model.hidden(tokens[:, :-1]), model.head, tokens[:, 1:])
    assert loss.item() == pytest.approx(first_loss(config), abs=0.03)
    assert abs(loss.item() - math.log(1000)) > 0.05, "the correction is larger than the tolerance"


@pytest.mark.parametrize(
    "shape", [{}, {"norm": "rmsnorm", "gated": True, "activation": "silu", "positions": "rotary", "bias": False}]
)
def test_predicted_activations_are_within_a_tenth_of_what_autograd_saves(shape):
    model = tiny(vocab_size=64, context=64, d_model=64, n_layers=6, n_heads=4, **shape)
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(torch.randint(64, (8, 64)))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    measured = sum(size for pointer, (size, _) in saved.items() if pointer not in weights)
    assert hidden.requires_grad
    assert memory_bytes(model, Job(batch=8))["activations"] == pytest.approx(measured, rel=0.1)


def test_unigram_entropy_in_chunks():
    tokens = np.random.default_rng(0).integers(0, 7, 1000)
    p = np.bincount(tokens) / 1000
    assert unigram_entropy(tokens, 9, chunk=64) == pytest.approx(-(p * np.log(p)).sum())


def test_options_that_cannot_work_name_the_fix():
    with pytest.raises(Error, match="did you mean 'cosine'"):
        ScheduleConfig(schedule="cosinus")
    with pytest.raises(Error, match="steps is 0"):
        LoopConfig(steps=0)
    with pytest.raises(Error, match="above 0"):
        ScheduleConfig(lr=-1.0)


def test_a_sample_ends_with_a_whole_character(monkeypatch):
    letters = Tokenizer.train([""], 257)  # a token is a byte
    gpt = GPT(GPTConfig(vocab_size=257, context=16, n_layers=1, n_heads=2, d_model=32))
    subject = SimpleNamespace(tokenizer=letters, prompt=letters.encode, shown=lambda given, prompt: given)
    method = SimpleNamespace(taken=lambda model: 0, virtual=lambda model: [])
    chosen = SimpleNamespace(run=RunConfig(prompt="主诉"), goal=SimpleNamespace(task="lm"), loop=LoopConfig())
    compute = SimpleNamespace(model=gpt, sampling=contextlib.nullcontext)
    write = compose.sampler(subject, method, chosen, compute)
    for cut in (0, 1, 2, 3):
        monkeypatch.setattr(compose, "generate", lambda *_, cut=cut, **__: [letters.encode("咳嗽")[: 6 - cut]])
        assert write(1) == "主诉" + ("咳嗽" if cut == 0 else "咳")


def test_report_is_one_file_and_shows_hostile_samples_as_text(tmp_path):
    from minigpt.training.report import write_report

    records = [{"kind": "train", "step": s, "loss": 5 / s, "lr": 1e-3, "grad_norm": 1.0} for s in range(1, 30)]
    records += [{"kind": "eval", "step": 29, "loss": 0.2, "perplexity": 1.2, "bits_per_byte": 0.3}]
    records += [{"kind": "sample", "step": 29, "text": "<script>alert(1)</script> 咳嗽"}]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"kind": "tra', encoding="utf-8")  # killed while writing
    write_report(tmp_path, "notes", {"ln V": 8.32}, {"Parameters": {"all": 1234567}})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "咳嗽" in page
    assert page.count("<svg") == 4 and "ln V = 8.32" in page and "1,234,567" in page
    assert 'src="http' not in page and "<link" not in page


def test_a_size_is_chosen_that_has_read_enough_in_its_time(monkeypatch):
    """A machine of 1e12 FLOPs a second: the longer it has, the larger."""
    monkeypatch.setattr(compose, "measure_peak", lambda device, dtype: 1e12)
    found = [compose.choose_size(ShapeConfig(), minutes, 512, "cpu") for minutes in (4**k / 100 for k in range(9))]
    order = list(SIZES)
    assert found[0] == "tiny" and found[-1] == "large" and set(found) == set(order)
    assert [order.index(size) for size in found] == sorted(order.index(size) for size in found)
    assert compose.choose_size(ShapeConfig(), None, 512, "cpu") == "small"
    assert compose.choose_size(ShapeConfig(d_model=64), 1000, 512, "cpu") == "small"
    config = ShapeConfig(size=found[4]).model_config(512)
    tokens = 60 * 4**4 / 100 * compose.UTILISATION * 1e12 / compose.flops_per_token(GPT(config), config.context)
    assert tokens >= compose.TOKENS_A_PARAMETER * sum(w.numel() for w in GPT(config).parameters())


def test_size_fills_what_is_not_given():
    assert ShapeConfig(size="medium", n_layers=2).model_config(100).n_layers == 2
    assert ShapeConfig(size="medium", n_layers=2).model_config(100).d_model == 384
    assert ShapeConfig().model_config(100).d_model == 256
    with pytest.raises(Error, match="did you mean 'medium'"):
        ShapeConfig(size="medum")
