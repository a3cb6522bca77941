"""The baseline a tuned model has to beat: TF-IDF and multinomial naive Bayes, one reading of the counts.

    tf-idf     x_w = count of w in the text times (1 + ln((1 + n) / (1 + texts with w))), then x / |x|
    law        P(w | c) = (sum of x_w over c's texts + alpha) / (sum over all words + alpha V)        P(c) = share of c
    answer     argmax_c  ln P(c) + sum_w x_w ln P(w | c)

A word is a run of Latin letters and digits in lower case, or two Chinese characters side by side. Words of the training
texts alone are known. `alpha` is what there is to choose.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]+")
ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def words(text: str) -> list[str]:
    """
    >>> words("MI in 2019: 高血压")
    ['mi', 'in', '2019', '高血', '血压']
    """
    found = []
    for run in WORD.findall(text.lower()):
        found += [run] if run.isascii() or len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]
    return found


class NaiveBayes:
    """Learns in its constructor; `answers` texts.

    >>> NaiveBayes(["chest pain", "skin rash", "itchy skin"], ["heart", "skin", "skin"]).answers(["pain in the chest"])
    ['heart']
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str], alpha: float = 0.1):
        self.labels = sorted(set(labels))
        seen = Counter(word for text in texts for word in set(words(text)))
        self.ids = {word: i for i, word in enumerate(seen)}
        self.idf = np.array([1 + math.log((1 + len(texts)) / (1 + n)) for n in seen.values()])
        sums = np.full((len(self.labels), len(seen)), alpha)
        for text, label in zip(texts, labels, strict=True):
            ids, values = self.features(text)
            sums[self.labels.index(label), ids] += values
        share = Counter(labels)
        self.prior = np.log([share[label] / len(labels) for label in self.labels])
        self.law = np.log(sums / sums.sum(1, keepdims=True))

    def features(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The known words of a text, and x of each."""
        counts = Counter(self.ids[word] for word in words(text) if word in self.ids)
        ids = np.array(list(counts), dtype=int)
        values = np.array(list(counts.values()), dtype=float) * self.idf[ids]
        return ids, values / max(np.linalg.norm(values), 1e-12)

    def scores(self, text: str) -> np.ndarray:
        """ln P(c) + ln P(x | c) of each label, up to a constant."""
        ids, values = self.features(text)
        return self.prior + self.law[:, ids] @ values

    def answers(self, texts: Sequence[str]) -> list[str]:
        return [self.labels[int(self.scores(text).argmax())] for text in texts]


def best_alpha(train: Sequence[tuple[str, str]], inner: Sequence[tuple[str, str]]) -> float:
    """The alpha that answers most of `inner` right, a further part of the training texts."""
    (texts, labels), (asked, truth) = zip(*train, strict=True), zip(*inner, strict=True)

    def right(alpha: float) -> int:
        answers = NaiveBayes(texts, labels, alpha).answers(asked)
        return sum(a == t for a, t in zip(answers, truth, strict=True))

    return max(ALPHAS, key=right)
