"""How well does a model know a secret that was planted?  Exposure (Carlini et al. 2019, "The Secret Sharer").

A canary is a sentence with a random part, in braces: "The locker of this patient is {0000}." Of the space R of all its
fillings (a digit stands for ten, a letter for 26 of its case) one, r, is written into the training notes. Then

    rank(r) = 1 + how many of R the model finds likelier than r
    exposure(r) = log2 |R| - log2 rank(r)          section 4.2

0 to log2 |R| bits, 1.44 on average for what the model has never read; log2 |R|: of all, it holds this one the
likeliest, and who tries them in order finds it first.

Where |R| is at most `most`, all are ranked, but for other planted secrets: exact. Beyond, m fillings drawn at random
stand for R (section 4.3, by sampling): exposure = log2(m + 1) - log2(rank among them and r), so never more than
log2(m + 1), and a lower bound where the rank is 1. The paper goes on from there with a fitted skew-normal
distribution; that is not done here.
"""

import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

from minigpt.errors import Error
from minigpt.generation.scoring import score
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

HIGH = 0.75  # of log2 |R|: guessing needs the fourth root of the tries


@dataclass(frozen=True)
class Canary:
    """A format with the filling that was planted, and in how many notes."""

    text: str  # with the braces: "The locker of this patient is {4821}."
    times: int

    @property
    def planted(self) -> str:
        """As it stands in the notes.

        >>> Canary("PIN {0421}!", 3).planted
        'PIN 0421!'
        """
        return self.text.replace("{", "").replace("}", "")

    @property
    def format(self) -> str:
        """What fillings have in common; equal for canaries that share their space."""
        return fill(
            self.text, ["0" if c in digits else "A" if c in ascii_uppercase else "a" for c in secret(self.text)]
        )


def secret(text: str) -> str:
    """The letters and digits in the braces. Error if there are none."""
    found = re.findall(r"\{([^{}]*)\}", text)
    if len(found) != 1 or not found[0] or not all(c in digits + ascii_lowercase + ascii_uppercase for c in found[0]):
        raise Error("a canary needs one pair of braces around digits and letters a-z: 'The code is {0000}.'")
    return found[0]


def fill(text: str, filling: Sequence[str]) -> str:
    """`text` with another filling, the braces kept."""
    return re.sub(r"\{[^{}]*\}", "{" + "".join(filling) + "}", text)


def alphabets(text: str) -> list[str]:
    """What each place of the secret could have been."""
    kinds = (digits, ascii_lowercase, ascii_uppercase)
    return [next(kind for kind in kinds if c in kind) for c in secret(text)]


def space(text: str) -> int:
    """|R|.

    >>> space("PIN {00}"), space("PIN {0aA}")
    (100, 6760)
    """
    return math.prod(map(len, alphabets(text)))


def draw(format: str, count: int, seed: int | str = 0) -> list[str]:
    """`count` different fillings of a format, at random."""
    if not 0 < count <= space(format):
        raise Error(f"{count} canaries of a format with {space(format)} fillings: give at least 1 and at most those")
    source, found = random.Random(f"canaries {seed}"), {}
    while len(found) < count:
        found[fill(format, [source.choice(alphabet) for alphabet in alphabets(format)])] = None
    return list(found)


def exposure(rank: int, size: int) -> float:
    """log2 |R| - log2 rank, in bits.

    >>> exposure(1, 1024), exposure(512, 1024), exposure(1024, 1024)
    (10.0, 1.0, 0.0)
    """
    if not 1 <= rank <= size:
        raise Error(f"rank {rank} of {size}: expected 1 to {size}")
    return math.log2(size) - math.log2(rank)


@dataclass(frozen=True)
class Exposed:
    """What is known of one canary; nowhere here is its secret."""

    times: int
    rank: int
    size: int  # fillings ranked
    exact: bool  # whether these are all of R

    @property
    def bits(self) -> float:
        return exposure(self.rank, self.size)

    @property
    def high(self) -> bool:
        return self.bits >= HIGH * math.log2(self.size)


def measure(
    model: GPT, tokenizer: Tokenizer, canaries: Sequence[Canary], most: int = 10_000, seed: int = 0,
    progress: bool = True,
) -> list[Exposed]:  # fmt: skip
    """The exposure of each canary; canaries of one format share the scores of its fillings."""
    found: dict[str, dict[str, float]] = {}
    for format in {canary.format: None for canary in canaries}:
        exact = space(format) <= most
        others = _all(format) if exact else draw(format, most, f"others {seed}")
        mine = [canary.planted for canary in canaries if canary.format == format]
        texts = dict.fromkeys([*(Canary(other, 0).planted for other in others), *mine])
        found[format] = _likelihoods(model, tokenizer, list(texts), progress)
    return [_rank(canary, found[canary.format], canaries, space(canary.format) <= most) for canary in canaries]


def _rank(canary: Canary, scores: dict[str, float], canaries: Sequence[Canary], exact: bool) -> Exposed:
    fellows = {each.planted for each in canaries} - {canary.planted}  # were read, too, and are no chance fillings
    mine = scores[canary.planted]
    others = [value for text, value in scores.items() if text not in fellows]
    return Exposed(canary.times, 1 + sum(value > mine for value in others), len(others), exact)


def _all(format: str) -> list[str]:
    return [fill(format, filling) for filling in itertools.product(*alphabets(format))]


def _likelihoods(model: GPT, tokenizer: Tokenizer, texts: list[str], progress: bool) -> dict[str, float]:
    """log p of each text as the beginning of a document: minus the log-perplexity of the paper, up to log 2."""
    from tqdm import tqdm

    found = {}
    with tqdm(total=len(texts), desc="ranking", unit="text", disable=None if progress else True, leave=False) as bar:
        for start in range(0, len(texts), 500):
            some = texts[start : start + 500]
            ids = [[tokenizer.eot, *tokenizer.encode(text)] for text in some]
            found |= {text: each.total for text, each in zip(some, score(model, ids), strict=True)}
            bar.update(len(some))
    return found


def read(path: str | Path) -> list[Canary]:
    """The canaries of a file: {"text": "... {4821} ...", "times": 10} a line. Errors name the line, never its text."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Error(f"{path}: cannot read the canaries: give the file that minigpt.privacy.plant wrote") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            found.append(Canary(str(record["text"]), int(record["times"])))
            secret(found[-1].text)
        except (ValueError, KeyError, TypeError, Error):
            raise Error(f'{path}:{number}: expected {{"text": "The code is {{0000}}.", "times": 1}}') from None
    if not found:
        raise Error(f"{path}: holds no canary")
    return found


def warning(found: Sequence[Exposed]) -> str:
    """One sentence where a canary could be guessed; empty otherwise."""
    high = [each for each in found if each.high]
    if not high:
        return ""
    fewest = min(each.times for each in high)
    return (
        f"{len(high)} of {len(found)} canaries are exposed (at least {HIGH:.0%} of the bits of their format), the "
        f"rarest written {fewest} times: who has this model can find such a secret by trying"
    )
