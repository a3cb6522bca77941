"""Logits of every kind, unequal texts, how to ask transformers' processors about them, and a chi-square test."""

import math
from dataclasses import dataclass

import torch
from transformers.generation import logits_process as hf

V = 97


@dataclass
class Text:
    tokens: list[int]
    prompt: int


def logits_of_all_kinds():
    torch.manual_seed(0)
    flat, sharp = torch.randn(4, V), 8 * torch.randn(4, V)
    tied = torch.randint(-3, 4, (4, V)).float()
    masked = torch.randn(4, V).masked_fill(torch.rand(4, V) < 0.5, -math.inf)
    quarters = torch.full((1, V), -math.inf).index_fill(1, torch.tensor([3, 40, 41, 90]), 0.0)
    return torch.cat([flat, sharp, tied, masked, flat + 1000, flat.log_softmax(-1), quarters])


def texts(n: int, seed: int = 0, few: int = 6) -> list[Text]:
    """Unequal lengths, few different tokens, so that n-grams and banned sequences do come back."""
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 25, (n,), generator=stream).tolist()
    tokens = [torch.randint(few, (length,), generator=stream).tolist() for length in lengths]
    return [Text(row, 1 + i % len(row)) for i, row in enumerate(tokens)]


def by_row(process, z, histories):
    """transformers' processors take histories of one length: a row at a time."""
    rows = zip(z, histories, strict=True)
    return torch.cat([process(torch.tensor([text.tokens]), row[None].clone()) for row, text in rows])


def filtered(process, z):
    """transformers' probabilities, and the rows where its choice does not hang on the order of equal tokens."""
    expected, firm = process(None, z).softmax(-1), torch.ones(len(z), dtype=torch.bool)
    for _ in range(4):
        order = torch.randperm(V)
        shuffled = process(None, z[:, order]).softmax(-1)[:, order.argsort()]
        firm &= ((shuffled > 0) == (expected > 0)).all(-1)
    return expected, firm


def same(ours, expected, firm, least):
    assert firm.sum() >= least
    assert torch.equal((ours > 0)[firm], (expected > 0)[firm])
    assert torch.allclose(ours[firm], expected[firm], atol=5e-6)


def their_adjusters(options, text, ends):
    if options["repetition_penalty"]:
        yield hf.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    if options["no_repeat_ngram"]:
        yield hf.NoRepeatNGramLogitsProcessor(options["no_repeat_ngram"])
    if options["banned"]:
        yield hf.NoBadWordsLogitsProcessor(options["banned"])
    yield hf.MinNewTokensLengthLogitsProcessor(text.prompt, options["min_new_tokens"], ends)
    if options["force_end"]:
        yield hf.ForcedEOSTokenLogitsProcessor(text.prompt + options["max_new_tokens"], ends)


def their_filters(options):
    yield hf.TemperatureLogitsWarper(options["temperature"])
    kinds = {"top_k": hf.TopKLogitsWarper, "top_p": hf.TopPLogitsWarper, "min_p": hf.MinPLogitsWarper}
    for name, kind in (kinds | {"typical_p": hf.TypicalLogitsWarper}).items():
        if options[name]:
            yield kind(options[name])


def chi_square_p(counts, expected):
    """Upper tail of the chi-square test; cells with an expectation under 5 are pooled."""
    small = expected < 5
    counts = torch.cat([counts[~small], counts[small].sum()[None]])
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    keep = expected > 0
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    return torch.special.gammaincc((keep.sum() - 1) / 2, statistic / 2).item()
