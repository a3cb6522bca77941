# ruff: noqa: E501  (a change on a line is easier to read than one on three)
"""Changes that mean something: mistakes that were made in well-known libraries, or could be made in this one."""

from pathlib import Path

from tests.mutants.by_lot import Mutation

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "minigpt/model.py": [
        ('approximate="tanh"', 'approximate="none"', "GELU: the exact one for GPT-2's"),
        ("x = x + self.attn(self.attn_norm(x), mask, turn, cache)", "x = self.attn(self.attn_norm(x), mask, turn, cache)", "no residual"),
        ("return x + self.mlp(self.mlp_norm(x))", "return x + self.mlp(x)", "the feed-forward reads what was not normalised"),
        ("std=std / math.sqrt(2 * self.config.n_layers)", "std=std / math.sqrt(self.config.n_layers)", "1/sqrt(n) for 1/sqrt(2n)"),
        ("return (keep.cumsum(-1) - 1).clamp(min=0)[:, past:]", "return torch.arange(past, past + time, device=device)[None]", "padding takes positions"),
        ("self.attn_dropout if self.training else 0.0", "self.attn_dropout", "dropout while evaluating"),
        ("if config.tied:\n            self.head.weight = self.token_embedding.weight", "if config.tied:\n            self.head.weight = nn.Parameter(self.token_embedding.weight.detach().clone())", "a tied head that is a copy"),
        ("return self.final_norm(x)", "return x", "no last norm"),
    ],
    "minigpt/attention.py": [
        ("/ math.sqrt(q.shape[-1])", "/ q.shape[-1]", "divided by d, not by its root"),
        ("masked_fill(~mask, -math.inf)", "masked_fill(~mask, -1e4)", "a large number for minus infinity"),
        ('repeat(k, "b g l d -> b (g n) l d"', 'repeat(k, "b g l d -> b (n g) l d"', "query heads take turns with the key heads"),
        ("is_causal = mask is None and n_queries == n_keys", "is_causal = mask is None", "the kernel's mask with a cache"),
    ],
    "minigpt/masks.py": [
        ("    return i - j < window\n", "    return i - j <= window\n", "a window of W + 1"),
        ("    return j <= i\n", "    return j < i\n", "a token does not see itself"),
    ],
    "minigpt/positions.py": [
        ("torch.cat((-second, first), dim=-1)", "torch.cat((second, -first), dim=-1)", "turned the other way"),
        ("plain / scaling.factor * ramp + plain * (1 - ramp)", "plain / scaling.factor * (1 - ramp) + plain * ramp", "YaRN upside down"),
        ("return 1.0 / theta**exponents", "return 1.0 / theta ** (exponents / 2)", "half the exponent"),
    ],
    "minigpt/loss.py": [
        ("return total / (targets != IGNORE).sum().clamp(min=1)", "return total / targets.numel()", "the mean over ignored tokens too"),
        ("slope = slope.masked_fill_(~real, 0).to(narrow)", "slope = slope.to(narrow)", "ignored tokens have a gradient"),
        ("(grad * scale).to(dtype)", "grad.to(dtype)", "what comes after does not scale the gradient"),
    ],
    "lora/product.py": [
        ("return (h + (x.to(A.dtype) @ A.T * scale) @ B.T).to(h.dtype)", "return (h + (x.to(A.dtype) @ A.T) @ B.T).to(h.dtype)", "no alpha / r"),
        ("du = (g @ B).mul_(ctx.scale)", "du = g @ B", "no alpha / r in the gradient of A"),
        ("u = (x @ A.T).mul_(scale)", "u = x @ A.T", "no alpha / r where it learns"),
    ],
    "lora/adapter.py": [
        ("torch.zeros(sum(adapted), r,", "torch.ones(sum(adapted), r,", "B does not start at zero"),
        ("nn.init.normal_(self.A, std=1 / r)", "nn.init.normal_(self.A, std=1 / math.sqrt(r))", "A starts wider"),
        ("B = [B * adapter.scale for", "B = [B for", "several adapters without their scales"),
    ],
    "lora/layers.py": [
        ("return F.dropout(x, p) if self.training and p else x", "return F.dropout(x, p) if p else x", "dropout while evaluating"),
    ],
    "lora/merging.py": [
        ("layer.original = (made[_key(layer)][0], old)", "layer.original = (nn.Parameter(layer.base.weight.detach() + made[_key(layer)][0]), old)", "W is added twice"),
        ("if layer.enabled:\n                layer.exchange()", "layer.exchange()", "merging a layer that is off turns it on"),
    ],
    "lora/exact.py": [
        ("merged = delta.mul_(self.update.scale).add_(weight)", "merged = delta.add_(weight)", "merged without alpha / r"),
        ("bits |= (back != x).int()", "", "two roundings to 16 bits"),
        ("return (A.T, B.T) if self.transposed else (B, A)", "return (B, A)", "a transposed weight taken for a plain one"),
        ("torch.where(truth == before, self.weight[rows].detach(), rounded)", "rounded", "-0 becomes 0"),
    ],
    "lora/bound.py": [
        ("power.mul_(UNIT[dtype])", "power.mul_(2 * UNIT[dtype])", "a whole spacing for half of one"),
        ("self.eps = six + many + six * many", "self.eps = 100 * (six + many + six * many)", "a bound that lets almost everything pass"),
    ],
    "minigpt/generation/processors.py": [
        ("return logits / value\n", "return logits * value\n", "temperature the other way"),
        ("logits.masked_fill(logits < kth, -math.inf)", "logits.masked_fill(logits <= kth, -math.inf)", "the k-th itself goes"),
    ],
    "minigpt/generation/penalties.py": [
        ("torch.where(z < 0, z * penalty, z / penalty)", "z / penalty", "a penalty that rewards what is below zero"),
        ("Counter(history.tokens[history.prompt :])", "Counter(history.tokens)", "the prompt counts"),
    ],
    "minigpt/generation/sampling.py": [
        ("manual_seed((seed + row * STRIDE) % SEEDS)", "manual_seed(seed)", "all rows draw alike"),
        ("exponential_(generator=generator)", "uniform_(generator=generator)", "another race"),
    ],
    "minigpt/generation/search.py": [
        ("self.rules.early_stopping is True", "self.rules.early_stopping", '"never" taken for True'),
    ],
}  # fmt: skip


def semantic() -> list[Mutation]:
    """Each at its one place; a change whose place is gone has to be written anew."""
    found = []
    for file, changes in CHANGES.items():
        source = (ROOT / file).read_text(encoding="utf-8")
        for old, new, why in changes:
            if source.count(old) != 1:
                raise SystemExit(
                    f"tests/mutants/semantic.py: {file} has {source.count(old)} places with {old!r}, not one"
                )
            start = source.index(old)
            line = source.count("\n", 0, start) + 1
            found.append(Mutation(file, start, start + len(old), old, new, line, why))
    return found
