"""What a run will cost, and what a healthy loss looks like: said before the first step.

Symbols: N tokens a micro-batch, C channels, V vocabulary.
"""

import math

import numpy as np

from minigpt import room
from minigpt.config import GPTConfig
from minigpt.memory import Job, Plan, largest_batch, predict
from minigpt.model import GPT

BESIDE = 256 << 20  # bytes that threads, kernels and the report take, whatever the model
ADDED = {"adapters", "prompts", "prefixes"}  # parts of the names of parameters that a method has put in


def first_loss(config: GPTConfig) -> float:
    """Expected loss of untrained weights, in nats: ln V + C std^2 / 2.

    A normed hidden state has length sqrt(C); against a head of N(0, std) the logits are N(0, C std^2), and the mean
    of log sum exp of V such numbers is ln V plus half their variance.

    >>> round(first_loss(GPTConfig()), 4)
    10.9785
    """
    return math.log(config.vocab_size) + config.d_model * config.init_std**2 / 2


def unigram_entropy(tokens: np.ndarray, vocab_size: int, chunk: int = 1 << 22) -> float:
    """-sum_v p(v) ln p(v) of the token frequencies, in nats: the loss of who has learned nothing but those.

    >>> round(unigram_entropy(np.array([0, 1, 0, 1]), 5), 4) == round(math.log(2), 4)
    True
    """
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), chunk):
        counts += np.bincount(tokens[start : start + chunk], minlength=vocab_size)
    p = counts[counts > 0] / max(1, counts.sum())
    return float(-(p * np.log(p)).sum())


def memory_bytes(model: GPT, job: Job) -> dict[str, int]:
    """Bytes of a step, by what they are for, of the model as it stands, and at the peak: see `minigpt.memory`.

    >>> from minigpt import presets
    >>> model = GPT(presets.gpt2(n_layers=1, vocab_size=512, context=64))
    >>> memory_bytes(model, Job(batch=1))["weights"] == 4 * sum(w.numel() for w in model.parameters())
    True
    """
    found = predict(model.config, job, Plan.of_model(model))
    return {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "activations": found.activations,
        "loss": found.loss + found.logits,
        "at the peak, predicted": found.peak,
    }


def parameter_table(model: GPT) -> dict[str, int]:
    """Parameters by part; a tied head counts once, with the embedding."""
    config = model.config
    weights = dict(model.named_parameters())
    own = {name: weight.numel() for name, weight in weights.items() if ADDED.isdisjoint(name.split("."))}

    def count(part: str) -> int:
        return sum(size for name, size in own.items() if part in name)

    parts = {"token embedding" + (" = head" if config.tied else ""): count("token_embedding")}
    if config.positions == "learned":
        parts["position embedding"] = count("position_embedding")
    parts |= {"attention": count(".attn."), "feed-forward": count(".mlp."), "norms": count("norm")}
    if not config.tied:
        parts["head"] = count("head.")
    if len(own) < len(weights):
        parts["adapters, virtual tokens"] = sum(weight.numel() for weight in weights.values()) - sum(own.values())
    return parts | {"all": sum(parts.values())}


def describe_model(model: GPT, job: Job) -> list[str]:
    """Two lines: the model, and the memory of a step."""
    config, memory = model.config, memory_bytes(model, job)
    peak = memory.popitem()[1]
    n_parameters = sum(weight.numel() for weight in model.parameters())
    n_learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    learning = f", {n_learning:,} of them learn" if n_learning < n_parameters else ""
    parts = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in memory.items())
    return [
        f"model       {n_parameters:,} parameters{learning}; {config.n_layers} layers, {config.n_heads} heads, "
        f"{config.d_model} wide, context {config.context}, vocabulary {config.vocab_size}",
        f"memory      about {peak / room.GIB:.2f} GiB at the peak of a step, beside PyTorch itself (MiB: {parts})",
    ]


def check_memory(model: GPT, job: Job):
    """`Error` if the steps of this job need more memory than is left, with what would do."""
    plan, left = Plan.of_model(model), room.free(job.device)
    if left is None:
        return
    left += sum(weight.nbytes for weight in model.parameters()) - BESIDE  # weights are there already
    ranks = job.ranks if job.device == "cpu" else 1  # of one machine, mostly
    rows = largest_batch(model.config, job, left // ranks, job.batch, plan)
    less = "give a shorter --context, or a smaller --size"
    if rows:
        same = next(n for n in range(rows, 0, -1) if job.batch % n == 0)
        less = (
            f"--batch-size {rows} fits; {same} with --accumulate {job.accumulate * job.batch // same} is the same step"
        )
    if not job.checkpointing:
        less += ", or try --checkpointing"
    need = ranks * predict(model.config, job, plan).peak
    room.check(need, f"a step of {job.batch} rows", less, left=left)


def announce(model: GPT, job: Job, steps: int, tokens: np.ndarray, trained: bool = False) -> str:
    """The lines a run begins with; `trained` if the model is not new, so that its first loss is its own."""
    config, n_tokens_step = model.config, job.batch * job.accumulate * (job.length or model.config.context)
    n_parameters = sum(weight.numel() for weight in model.parameters())
    n_learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    entropy = unigram_entropy(tokens, config.vocab_size)
    spent = steps * n_tokens_step
    epochs = spent / max(1, len(tokens))
    lines = [
        *describe_model(model, job),
        f"data        {len(tokens):,} training tokens; {steps:,} steps of {n_tokens_step:,} "
        f"= {epochs:.1f} epochs, {(4 * n_parameters + 2 * n_learning) * spent:.1e} floating-point operations",
    ]
    new = f"{first_loss(config):.2f} expected = ln {config.vocab_size} + {config.d_model} x {config.init_std}^2 / 2; "
    begin = "that of the model it begins with" if trained else new + f"token frequencies alone give {entropy:.2f}"
    falls = "falls from the first step on" if trained else "falls below the frequencies in a hundred steps or so"
    lines += [
        f"first loss  {begin}",
        f"healthy     {falls}, then slowly; validation follows training.",
        "            Stuck: raise --lr. Rising or NaN: lower it. Validation rising while training falls: the model",
        "            is learning the notes by heart. The best one is kept.",
    ]
    if epochs > 5 and not config.resid_dropout:
        lines.append(
            f"advice      the same text is read {epochs:.0f} times: more text, fewer steps, or --dropout 0.2 learn more"
        )
    return "\n".join(lines)
