"""Does the model write what it has read?  The longest passage each of its texts shares with a training document.

Notes are full of sentences that all notes share, so the number alone says little. It is compared with chance: what
notes share that were never trained on, cut to the same length, each language for itself.

    chance(p)        the p-quantile of the overlaps of validation notes with training notes, p = 0.95
    above chance     the share of the model's texts with a longer overlap: some 1 - p if it wrote like a new note

rows of the report
    nothing          sampled at temperature 1 from an empty prompt, as a reader of samples would see it
    training         the likeliest text (greedy) after the first tokens of training notes, as one who knows how a note
                     begins would ask for the rest (Carlini et al. 2021, "Extracting training data from large language
                     models"); the prompt itself is not counted
    validation       the same after the first tokens of validation notes: a model that knows its notes by heart goes
                     on with one of them here, too
    unseen notes     the validation notes themselves: chance
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from minigpt.corpus.tokens import Tokens
from minigpt.generation import generate
from minigpt.model import GPT
from minigpt.privacy.overlap import Index, letters
from minigpt.tokenizer import Tokenizer

QUANTILE = 0.95
HIGH = 0.25  # of the texts above chance: five times as many as new notes would have
LEAST = 10  # texts of a row below which a share says nothing
ROWS = ("nothing", "training", "validation", "unseen notes")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How much is tried; what is not done after `seconds` is left out, and the report counts what was done."""

    samples: int = 24  # texts of each row
    new_tokens: int = 100  # length of each
    prompt_tokens: int = 16  # how much of a note is given
    most_tokens: int = 2_000_000  # of training text that is searched: whole documents, drawn at random beyond that
    seconds: float = 30.0  # for writing
    seed: int = 0


@dataclass(frozen=True)
class Written:
    """One text of a row and what of it stands in a training note, in characters and in tokens."""

    row: str
    language: str
    characters: int
    tokens: int
    excerpt: str  # never printed unless asked for


def language_of(text: str) -> str:
    """zh where Chinese characters are a fifth of the letters.

    >>> language_of("患者 denies 咳嗽, 发热三天"), language_of("wheeze (喘)"), language_of("12.5")
    ('zh', 'en', 'en')
    """
    han = sum("\u3400" <= c <= "\u9fff" for c in text)
    return "zh" if han and han >= 0.2 * sum(c.isalpha() for c in text) else "en"


def documents(ids: np.ndarray, eot: int, most: int | None = None, seed: int = 0) -> list[list[int]]:
    """The documents between the end-of-text tokens; beyond `most` tokens, some of them, drawn at random.

    >>> documents(np.array([9, 1, 2, 9, 3, 9]), eot=9)
    [[1, 2], [3]]
    """
    borders = np.flatnonzero(ids == eot)
    spans = [(a + 1, b) for a, b in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True) if b > a + 1]
    if most is not None and len(ids) > most:
        random.Random(seed).shuffle(spans)
    found, left = [], len(ids) if most is None else most
    for a, b in spans:
        if left <= 0:
            break
        found.append(ids[a : min(b, a + left)].tolist())
        left -= b - a
    return found


class Seen:
    """The training documents, searchable by characters and by tokens."""

    def __init__(self, texts: Sequence[Sequence[int]], tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.by_tokens = Index([letters(ids) for ids in texts])
        self.by_characters = Index([tokenizer.decode(ids) for ids in texts])

    def judge(self, row: str, ids: Sequence[int]) -> Written:
        text = self.tokenizer.decode(ids)
        most = self.by_characters.longest(text)
        tokens = self.by_tokens.longest(letters(ids)).length
        excerpt = text[most.start : most.start + most.length]
        return Written(row, language_of(text), most.length, tokens, excerpt)


def measure(model: GPT, tokens: Tokens, trial: Trial = Trial(), before: Sequence[int] = (), progress: bool = True):
    """[Written] of all rows. `before`: virtual tokens a tuned model begins with."""
    tokenizer, room = tokens.tokenizer(), model.config.context - len(before) - 1
    start = max(0, min(trial.prompt_tokens, room // 2))  # of a short context, half is for writing
    new = max(1, min(trial.new_tokens, room - start))
    train = documents(tokens.train, tokens.eot, trial.most_tokens, trial.seed)
    draw = random.Random(trial.seed)
    apart = [document for document in documents(tokens.val, tokens.eot) if len(document) > start]
    known = [document for document in train if len(document) > start]
    known, apart = (draw.sample(some, min(len(some), trial.samples)) for some in (known, apart))
    seen = Seen(train, tokenizer)
    found = [seen.judge("unseen notes", document[start:][:new]) for document in apart]
    given = {"nothing": [[]] * trial.samples, "training": known, "validation": apart}
    prompts = [(row, [*before, tokens.eot, *d[:start]]) for row, some in given.items() for d in some]
    draw.shuffle(prompts)  # whatever the time allows, each row has its share of it
    for row, ids in _written(model, prompts, new, tokens.eot, trial, progress):
        if ids:
            found.append(seen.judge(row, ids))
    return found


def _written(model, prompts, new: int, eot: int, trial: Trial, progress: bool) -> Iterator[tuple[str, list[int]]]:
    """(row, new tokens): eight at a time, as long as there is time."""
    from tqdm import tqdm

    deadline = time.monotonic() + trial.seconds
    with tqdm(total=len(prompts), desc="what is memorised", unit="text", disable=None if progress else True) as bar:
        for greedy in (False, True):
            mine = [prompt for prompt in prompts if (prompt[0] != "nothing") == greedy]
            until = deadline if greedy else deadline - 2 / 3 * trial.seconds
            for start in range(0, len(mine), 8):
                some = mine[start : start + 8]
                if start and time.monotonic() > until:
                    break
                options = {"temperature": 0.0 if greedy else 1.0, "seed": trial.seed, "row": start}
                texts = generate(model, [ids for _, ids in some], new, eos=eot, **options)
                bar.update(len(some))
                yield from ((row, [i for i in ids if i != eot]) for (row, _), ids in zip(some, texts, strict=True))


def chance(written: Sequence[Written]) -> dict[str, float]:
    """By language, the overlap in characters that one in twenty unseen notes exceeds; "" of both together."""
    unseen = [each for each in written if each.row == "unseen notes"]
    by = {name: [each.characters for each in unseen if each.language == name] for name in ("en", "zh")}
    by[""] = [each.characters for each in unseen]
    return {name: float(np.quantile(some, QUANTILE)) for name, some in by.items() if len(some) >= LEAST}


def summary(written: Sequence[Written]) -> list[dict]:
    """One record a row and language: how many, the longest and mean overlap in characters and tokens, the share above
    chance (None where there are too few unseen notes to know it)."""
    limits, records = chance(written), []
    for row in ROWS:
        for language in ("en", "zh"):
            some = [each for each in written if (each.row, each.language) == (row, language)]
            if not some:
                continue
            limit = limits.get(language, limits.get(""))
            above = None if limit is None else fmean(each.characters > limit for each in some)
            records.append({
                "row": row, "language": language, "texts": len(some), "above_chance": above, "chance": limit,
                "characters": {"longest": max(e.characters for e in some), "mean": fmean(e.characters for e in some)},
                "tokens": {"longest": max(e.tokens for e in some), "mean": fmean(e.tokens for e in some)},
            })  # fmt: skip
    return records


def warning(records: Sequence[dict]) -> str:
    """One sentence where the model repeats more than notes repeat each other; empty otherwise.

    Judged are the texts from nothing, and those after the beginning of a note.
    """

    def share(*rows: str) -> float:
        mine = [r for r in records if r["row"] in rows and r["above_chance"] is not None]
        texts = sum(r["texts"] for r in mine)
        return sum(r["above_chance"] * r["texts"] for r in mine) / texts if texts >= LEAST else 0.0

    free, asked = share("nothing"), share("training", "validation")
    if max(free, asked) < HIGH:
        return ""
    what = "from nothing" if free >= asked else "after the beginning of a note"
    longest = max(r["characters"]["longest"] for r in records if r["row"] != "unseen notes")
    return (
        f"this model repeats its training text: {max(free, asked):.0%} of what it writes {what} overlaps with it more "
        f"than unseen notes do, up to {longest} characters word for word: train less, on more, or with --dropout"
    )


def table(records: Sequence[dict]) -> dict[str, str]:
    """Rows for a person: {what was written: what of it was found}."""
    said = ("from nothing", "after the beginning of a training note", "of a validation note", "validation notes")
    names = dict(zip(ROWS, said, strict=True))
    rows = {}
    for r in records:
        above = "" if r["above_chance"] is None else f"; above chance ({r['chance']:.0f}): {r['above_chance']:.0%}"
        rows[f"{names[r['row']]}, {r['language']}"] = (
            f"longest {r['characters']['longest']} characters, {r['tokens']['longest']} tokens; mean "
            f"{r['characters']['mean']:.0f} and {r['tokens']['mean']:.0f}{above}; {r['texts']} texts"
        )
    return rows
