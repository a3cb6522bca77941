"""How good a classifier is: accuracy, macro-F1 and the confusion matrix, in numbers and as a picture.

Shapes: N examples, K classes.

    M[t, p]   examples of class t that were called p                   (K, K)
    accuracy  sum_k M[k, k] / N
    F1_k      2 M[k, k] / (sum_p M[k, p] + sum_t M[t, k])              harmonic mean of precision and recall
    macro-F1  mean of F1_k over the classes that occur, in truth or in answers

Accuracy is won by naming the common class; macro-F1 counts a rare diagnosis as much as a common one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt import svg
from minigpt.errors import Error


def confusion(labels, answers, n_classes: int) -> Tensor:
    """M, (K, K) int64: rows are the truth.

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    labels, answers = torch.as_tensor(labels, dtype=torch.int64), torch.as_tensor(answers, dtype=torch.int64)
    if labels.shape != answers.shape or labels.ndim != 1:
        raise Error(f"confusion: {tuple(labels.shape)} labels, {tuple(answers.shape)} answers: give N of each")
    for name, given in (("label", labels), ("answer", answers)):
        if (bad := (given < 0) | (given >= n_classes)).any():
            raise Error(f"confusion: a {name} is {given[bad][0].item()}: classes are 0 to {n_classes - 1}")
    return (labels * n_classes + answers).bincount(minlength=n_classes**2).view(n_classes, n_classes)


@dataclass(frozen=True)
class Scores:
    """What the confusion matrix says.

    >>> scores = Scores(confusion([0, 0, 1, 2], [0, 1, 1, 2], 3))
    >>> f"{scores.accuracy:.2f} {scores.macro_f1:.4f} {[f'{f:.3f}' for f in scores.f1]}"
    "0.75 0.7778 ['0.667', '0.667', '1.000']"
    """

    matrix: Tensor

    @property
    def accuracy(self) -> float:
        return self.matrix.trace().item() / max(1, self.matrix.sum().item())

    @property
    def f1(self) -> list[float | None]:
        """Of each class; None where it occurs neither in truth nor in answers."""
        both = (self.matrix.sum(0) + self.matrix.sum(1)).tolist()
        right = self.matrix.diagonal().tolist()
        return [2 * hits / n if n else None for hits, n in zip(right, both, strict=True)]

    @property
    def macro_f1(self) -> float:
        found = [value for value in self.f1 if value is not None]
        return sum(found) / max(1, len(found))

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.4f}, macro-F1 {self.macro_f1:.4f} of {self.matrix.sum().item():,} examples"


def draw(matrix: Tensor, names: Sequence[str] | None = None) -> str:
    """The matrix as an SVG: counts, shaded by their share of the row, so that a rare class is as visible as a common.

    >>> draw(torch.tensor([[3, 1], [0, 2]]), ["benign", "malignant"])[:4]
    '<svg'
    """
    from matplotlib.figure import Figure

    n = len(matrix)
    names = list(map(str, range(n) if names is None else names))
    if len(names) != n:
        raise Error(f"draw: {len(names)} names for {n} classes: give one for each")
    share = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(1.6 + 0.7 * n, 1.2 + 0.7 * n), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for t in range(n):
        for p in range(n):
            colour = "white" if share[t, p] > 0.5 else "black"
            axes.text(p, t, f"{matrix[t, p].item():,}", ha="center", va="center", color=colour)
    axes.set_xticks(range(n), names, parse_math=False, rotation=30, ha="right")
    axes.set_yticks(range(n), names, parse_math=False)
    axes.set(xlabel="answer", ylabel="truth")
    return svg.text_of(figure, salt="confusion")
