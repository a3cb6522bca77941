"""Instruction prompt tuning: a soft prompt learns to stand before instruction, examples and question.

    [soft prompt] [instruction] [example 1] ... [example k] [question] -> answer
     P vectors     words         retrieved: the nearest to the question
     learned       frozen, as the model is

Two works under one name. Med-PaLM (Singhal et al. 2022): P = 100 vectors of a frozen 540 B model, before an instruction
and examples written by clinicians. IPT (Sun et al. 2023) retrieves the examples. With k = 0 it is prompt tuning of
Lester et al. 2021, and without the vectors it is few-shot prompting: so the ablation is a table of two by two.

    prompt.attach(model, prompt.PromptConfig(length=20))
    fit on tuning_batch(model, builder, demonstrated(examples, pool, retriever, k))
    run_trial(..., shots=k, front=prompt.ids(model))
"""

import math
from collections.abc import Sequence

import torch

from minigpt.corpus.batches import Batch
from minigpt.errors import Error
from minigpt.generation.checks import context_of
from minigpt.loss import IGNORE
from minigpt.model import GPT
from minigpt.prompting.answers import Candidates
from minigpt.prompting.retrieval import Row
from minigpt.prompting.template import Builder
from minigpt.tuning.extended import ids
from minigpt.tuning.virtual import prepend, with_prompt


def answer_batch(builder: Builder, rows: Sequence[Row], room: int | None = None) -> Batch:
    """Prompt and answer of each row, padded on the right; targets on the answers only.

    `room`: tokens a row may have read; examples are dropped until it holds. The last token of an answer is a target,
    never read.
    """
    if not rows:
        raise Error("a batch of no rows teaches nothing: give at least one")
    texts = []
    for asked, shown in rows:
        answer = builder.tokenizer.encode(builder.template.answered(asked.answer))
        prompt = builder.build(asked.text, shown, None if room is None else room - len(answer) + 1)
        texts.append((prompt.ids, answer))
    width = max(len(prompt) + len(answer) - 1 for prompt, answer in texts)
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORE)
    for row, (prompt, answer) in enumerate(texts):
        read, end = [*prompt, *answer[:-1]], len(prompt) + len(answer) - 1
        tokens[row, :end], targets[row, len(prompt) - 1 : end] = torch.tensor(read), torch.tensor(answer)
    return Batch(tokens, targets, None, None, sum(len(answer) for _, answer in texts))


def tuning_batch(model: GPT, builder: Builder, rows: Sequence[Row], name: str = "default", shift: bool = True) -> Batch:
    """The same behind the soft prompt `name`; for `shift` see tuning/virtual.py.

    >>> from minigpt import GPTConfig
    >>> from minigpt.prompting import Example, Template
    >>> from minigpt.tokenizer import Tokenizer
    >>> from minigpt.tuning import prompt
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=300, context=64))
    >>> report = prompt.attach(model, prompt.PromptConfig(length=2))
    >>> builder = Builder(Tokenizer.train(["x"], 300), Template(question="{text}=", answer="{answer}"), ["a", "b"])
    >>> batch = tuning_batch(model, builder, [(Example("x", "b"), [])])
    >>> batch.tokens.tolist(), batch.targets.tolist()
    ([[300, 301, 256, 87, 28]], [[-100, -100, -100, -100, 65]])
    """
    room = context_of(model) - len(ids(model, name))
    return prepend(model, answer_batch(builder, rows, room), name, shift)


def mixture(
    model: GPT, prompt: Sequence[int], answers: Sequence[Sequence[int]], names: Sequence[str],
    weights: Sequence[float] | None = None,
) -> list[float]:  # fmt: skip
    """log P of each answer under a mixture of soft prompts (Qin & Eisner 2021), equal weights if none.

    P(answer | prompt) = sum_k w_k P(answer | P_k, prompt)        computed as logsumexp_k (log w_k + log P_k)
    """
    weights = [1 / max(1, len(names))] * len(names) if weights is None else list(weights)
    if not names or len(weights) != len(names) or min(weights) <= 0 or not math.isclose(sum(weights), 1, rel_tol=1e-6):
        raise Error(f"{len(names)} soft prompts have the weights {weights}: give each one above 0, that sum to 1")
    candidates = Candidates(model, answers)
    each = [[found.total for found in candidates.score(with_prompt(model, prompt, name))] for name in names]
    logs = torch.tensor(each, dtype=torch.float64) + torch.tensor(weights, dtype=torch.float64).log()[:, None]
    return logs.logsumexp(0).tolist()
