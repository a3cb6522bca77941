"""Which examples are worth showing? The nearest to the query (Liu et al. 2022), or some at random (Brown et al. 2020).

Shapes: N texts of the pool, C channels, V vocabulary; t terms, d texts.

    tfidf       w(t, d) = count of t in d  *  (ln((1 + N) / (1 + df_t)) + 1)      df_t: how many texts have the term
    embedding   w(d) = mean over the tokens of d of their rows in W_e             (C,)
    both        similarity = w(query) . w(d) / (|w(query)| |w(d)|)

Terms are words in lower case; a run of Chinese characters, which has no spaces, gives its characters and their pairs.

Every retriever gives places in the pool, the nearest first, and never the query itself nor a copy of it: an example
that holds the answer to be given would measure nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.prompting.template import Example
from minigpt.tokenizer import Tokenizer

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_RUN = re.compile(rf"[{_HAN}]+|[^\W_{_HAN}]+")


def terms(text: str) -> list[str]:
    """What TF-IDF counts.

    >>> terms("Chest pain, 3 days. 胸痛三天")
    ['chest', 'pain', '3', 'days', '胸', '痛', '三', '天', '胸痛', '痛三', '三天']
    """
    found = []
    for run in _RUN.findall(text.lower()):
        if re.match(rf"[{_HAN}]", run):
            found += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
        else:
            found.append(run)
    return found


class Retriever:
    """A pool of texts; `similarity` says how near each is to a query."""

    def __init__(self, texts: Sequence[str]):
        self.texts = list(texts)

    def similarity(self, query: str) -> np.ndarray:
        raise NotImplementedError

    def nearest(self, query: str, k: int) -> list[int]:
        """The places of k texts, the nearest first; of equals the first; fewer if the pool has no more."""
        order = np.argsort(-self.similarity(query), kind="stable").tolist()
        return [place for place in order if self.texts[place].strip() != query.strip()][:k]


class TfIdf(Retriever):
    """By the words in common, rare ones counting most.

    >>> pool = TfIdf(["fever and cough", "a broken wrist", "cough for days", "咳嗽三天"])
    >>> pool.nearest("dry cough for weeks", 2), pool.nearest("咳嗽", 1), pool.nearest("a broken wrist", 1)
    ([2, 0], [3], [0])
    """

    def __init__(self, texts: Sequence[str]):
        super().__init__(texts)
        counts = [Counter(terms(text)) for text in self.texts]
        frequency = Counter(term for count in counts for term in count)
        self.idf = {term: math.log((1 + len(counts)) / (1 + df)) + 1 for term, df in frequency.items()}
        self.rows: dict[str, tuple[list[int], list[float]]] = {term: ([], []) for term in frequency}
        for place, count in enumerate(counts):
            for term, weight in self._weights(count).items():
                places, weights = self.rows[term]
                places.append(place)
                weights.append(weight)

    def _weights(self, count: Counter) -> dict[str, float]:
        """A text as terms with weights, of length 1; unknown terms have none."""
        weights = {term: n * self.idf[term] for term, n in count.items() if term in self.idf}
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()}

    def similarity(self, query: str) -> np.ndarray:
        found = np.zeros(len(self.texts))
        for term, weight in self._weights(Counter(terms(query))).items():
            places, weights = self.rows[term]
            found[places] += weight * np.asarray(weights)
        return found


class Embedding(Retriever):
    """By the mean of the model's own token vectors: words that it treats alike are alike, order does not count."""

    def __init__(self, texts: Sequence[str], model: GPT, tokenizer: Tokenizer):
        super().__init__(texts)
        self.weight, self.tokenizer = model.token_embedding.weight.detach(), tokenizer
        vectors = [self._vector(text) for text in self.texts]
        self.vectors = torch.stack(vectors) if vectors else self.weight.new_zeros(0, self.weight.shape[1])

    def _vector(self, text: str) -> Tensor:
        """(C,) of length 1; 0 for a text of no tokens."""
        ids = self.tokenizer.encode(text)
        mean = self.weight[ids].float().mean(0) if ids else self.weight.new_zeros(self.weight.shape[1]).float()
        return mean / mean.norm().clamp(min=1e-12)

    def similarity(self, query: str) -> np.ndarray:
        return (self.vectors @ self._vector(query)).cpu().numpy()


class Random(Retriever):
    """Others for each query, drawn from the seed and the query's text: the same in any order of queries."""

    def __init__(self, texts: Sequence[str], seed: int = 0):
        super().__init__(texts)
        self.seed = seed

    def similarity(self, query: str) -> np.ndarray:
        return np.random.default_rng([self.seed, *query.encode()]).random(len(self.texts))


class Fixed(Random):
    """The same for every query, drawn from the seed: read once, as all prompts begin with them."""

    def similarity(self, query: str) -> np.ndarray:
        return super().similarity("")


RETRIEVERS = ("random", "fixed", "tfidf", "embedding")


def make_retriever(name: str, texts: Sequence[str], model: GPT, tokenizer: Tokenizer, seed: int = 0) -> Retriever:
    """By name: "random", "fixed", "tfidf" or "embedding"."""
    if name == "tfidf":
        return TfIdf(texts)
    if name == "embedding":
        return Embedding(texts, model, tokenizer)
    if name in ("random", "fixed"):
        return (Random if name == "random" else Fixed)(texts, seed)
    raise Error(f"retrieve is {name!r}: {nearest(str(name), RETRIEVERS)}")


Row = tuple[Example, list[Example]]  # what is asked, and what is shown before it


def demonstrated(asked: Sequence[Example], pool: Sequence[Example], retriever: Retriever, k: int) -> Iterator[Row]:
    """Each with its k nearest of the pool, whose texts `retriever` holds; the nearest last, itself never."""
    for example in asked:
        yield example, [pool[place] for place in retriever.nearest(example.text, k)[::-1]] if k else []
