"""A prediction for a person (a table with bars) and for a script (one flat record)."""

from minigpt.config import GPTConfig
from minigpt.memory.job import Job
from minigpt.memory.predict import Prediction
from minigpt.memory.rules import Rule

BAR = 30  # characters of the longest bar


def human(size: int) -> str:
    """Bytes in the unit that leaves two to four digits.

    >>> human(500), human(1 << 20), human(3 << 29)
    ('500 B', '1.0 MiB', '1.50 GiB')
    """
    if size < 1 << 10:
        return f"{size} B"
    for unit, digits in (("KiB", 1), ("MiB", 1), ("GiB", 2)):
        size /= 1 << 10
        if size < 1 << 10 or unit == "GiB":
            return f"{size:,.{digits}f} {unit}"
    raise AssertionError


def parts(found: Prediction, job: Job) -> dict[str, int]:
    """What a training step holds, part by part; together an upper bound of the peak."""
    states = {"adamw": "AdamW", "momentum": "SGD, momentum", "sgd": "SGD", "muon": "Muon and AdamW"}
    rows = {
        "weights": found.weights,
        "gradients": found.gradients,
        f"optimizer ({states[job.optimizer]})": found.optimizer,
        "gathered from all ranks": found.gathered,
    }
    rows |= {f"activations: {kind}": size for kind, size in found.by_kind().items()}
    rows |= {"loss: its gradients": found.loss, "loss: a chunk of logits": found.logits}
    return {name: size for name, size in rows.items() if size}


def table(config: GPTConfig, job: Job, found: Prediction) -> str:
    """The parts with bars, the peak of a step, and inference."""
    rows = parts(found, job)
    length, longest = job.length or config.context, max(*rows.values(), 1)
    processes = "" if job.ranks == 1 else f", each of {job.ranks} processes ({job.parallel})"
    lines = [
        f"{found.parameters:,} parameters, {found.learning:,} of them learn; {config.n_layers} layers, "
        f"{config.d_model} wide, vocabulary {config.vocab_size}",
        f"{job.method}, {job.dtype}, {job.batch} rows of {length} tokens on {job.device}{processes}",
        "",
    ]
    for name, size in rows.items():
        bar = "█" * max(1, round(BAR * size / longest))
        lines.append(f"  {name:<32}{human(size):>12}  {bar}")
    lines += [
        f"  {'all parts':<32}{human(sum(rows.values())):>12}",
        f"  {'peak of a training step':<32}{human(found.peak):>12}  gradients come as activations go",
        f"  {'inference with a full cache':<32}{human(found.inference):>12}  "
        f"weights {human(found.weights)} + keys and values {human(found.cache)}",
    ]
    return "\n".join(lines)


def layers(found: Prediction) -> str:
    """Activations, a line a block."""
    by_layer = found.by_layer()
    longest = max([*by_layer.values(), 1])
    lines = ["activations by block"]
    for layer in sorted(by_layer, key=_place):
        name = "outside" if layer is None else f"block {layer}"
        bar = "█" * max(1, round(BAR * by_layer[layer] / longest))
        lines.append(f"  {name:<32}{human(by_layer[layer]):>12}  {bar}")
    return "\n".join(lines)


def _place(layer: int | None) -> int:
    return -1 if layer is None else layer


def rules_table(rules: list[Rule]) -> str:
    """Claimed, exact, and where the rule fails."""
    lines = [f"{'rule of thumb':<48}{'says':>12}{'exact':>12}   but"]
    lines += [f"{rule.name:<48}{human(rule.claimed):>12}{human(rule.exact):>12}   {rule.but}" for rule in rules]
    return "\n".join(lines)


def record(found: Prediction, job: Job, rules: list[Rule], room: int | None, fits: int | None) -> dict:
    """Plain values, in bytes, ready for JSON."""
    names = ("weights", "gradients", "optimizer", "gathered", "activations", "loss", "logits", "temporary", "cache")
    values = {name: getattr(found, name) for name in (*names, "peak", "inference", "parameters", "learning")}
    saved = [{"layer": layer, "kind": kind, "bytes": size} for (layer, kind), size in found.saved.items()]
    folk = [{"rule": rule.name, "claimed": rule.claimed, "exact": rule.exact} for rule in rules]
    fit = {} if room is None else {"room": room, "largest_batch": fits}
    return values | {"batch": job.batch, "saved": saved, "rules": folk} | fit
