"""An embedding with extra rows: virtual tokens are ids from V on, and nothing else in the library changes.

Shapes: B batch, T time, C channels (d_model), V vocabulary, P virtual tokens of a prompt.

    h_0 = [W_e; E_1; E_2; ...][ids] + positions        E_k (P_k, C) learned, W_e and all the rest frozen

A soft prompt (Lester et al. 2021) is then a list of ids before the text, P-tuning (Liu et al. 2021) puts them anywhere
in it, and a batch of mixed tasks is rows that begin with other ids. Caches, beams, padding and sampling see tokens.
The head keeps its V rows, so a virtual token is never written.

    hold(model, name, rows)       ids(model, name)       learn(model, *names)       detach(model, name)

What `ids` gives stays true while the prompt is held: ids of a detached one are not given to another that comes later,
unless none came between. Reading them is an error in decoding, and NaN in `model(tokens)`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import learning
from minigpt.tuning.report import Report


def plain(ids: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """[weight; rows][ids], by the formula: (B, T), (V, C), (R, C) -> (B, T, C). It copies the whole table.

    >>> weight, rows = torch.zeros(3, 2), torch.tensor([[1.0, 2.0]])
    >>> plain(torch.tensor([[3, 0]]), weight, rows).tolist()
    [[[1.0, 2.0], [0.0, 0.0]]]
    """
    return torch.cat([weight, rows])[ids]


def fast(ids: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """The same from two small look-ups; gradients go to the rows alone, and no memory to the table."""
    virtual = ids >= len(weight)
    words = F.embedding(ids.masked_fill(virtual, 0), weight)
    learned = F.embedding((ids - len(weight)).clamp(min=0), rows)
    return torch.where(virtual[..., None], learned, words)


class Extended(nn.Module):
    """The token embedding of a model that holds prompts. `weight` (V, C) is the base's own parameter, under its name.

    prompts   name -> a module that makes its rows (P, C) when called: a table, or an encoder
    spans     (name, P) in the order of their ids; "" where a prompt was detached
    unshifted names whose texts keep their own positions (virtual.py), as files say
    """

    learned_in = "prompts"

    def __init__(self, base: nn.Embedding):
        super().__init__()
        self.weight = base.weight
        self.prompts = nn.ModuleDict()
        self.spans: list[tuple[str, int]] = []
        self.unshifted: set[str] = set()
        self.base = (base,)  # in a tuple: as a submodule its weight would have a second name

    def forward(self, ids: Tensor) -> Tensor:
        # Decoding reads the prompt once, and then tokens only: no need to run an encoder at each of them.
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or (ids >= len(self.weight)).any()):
            return F.embedding(ids, self.weight)
        return fast(ids, self.weight, self.learned())

    def learned(self) -> Tensor:
        """All learned rows, (R, C), in the order of their ids."""
        gone = self.weight.new_full((1, self.weight.shape[1]), torch.nan)
        parts = [self.prompts[name]() if name else gone.expand(length, -1) for name, length in self.spans]
        return torch.cat([part.to(self.weight.dtype) for part in parts])

    def ids(self, name: str) -> list[int]:
        first = len(self.weight)
        for held, length in self.spans:
            if held == name:
                return list(range(first, first + length))
            first += length
        raise Error(f"no prompt {name!r} is attached: {nearest(name, self.prompts)}")

    def knows(self, token: int) -> bool:
        """Whether this id is a virtual token of a prompt that is held."""
        return any(token in self.ids(name) for name in self.prompts)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, {self.weight.shape[1]}, " + ", ".join(f"{n or '-'}={p}" for n, p in self.spans)


def hold(model: GPT, name: str, rows: nn.Module, shift: bool = True):
    """Give the model a prompt under `name`: from now on the base is frozen; who learns of the prompts, says `learn`."""
    check_name(model, name)
    length = len(evaluated(rows))
    embedding = model.token_embedding
    if not isinstance(embedding, Extended):
        embedding = Extended(embedding).train(embedding.training)
    wide = torch.promote_types(embedding.weight.dtype, torch.float32)
    embedding.prompts[name] = rows.to(embedding.weight.device, wide).train(embedding.training)
    embedding.spans.append((name, length))
    embedding.unshifted |= set() if shift else {name}
    model.token_embedding = embedding
    learning.freeze(model)


def check_name(model: GPT, name: str):
    embedding = model.token_embedding
    if not isinstance(embedding, Extended | nn.Embedding):
        raise Error(
            f"the token embedding is a {type(embedding).__name__}, expected the model's own: attach prompts before "
            "adapters of the embedding, or detach those first"
        )
    if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict, name):
        raise Error(f"{name!r} cannot name a prompt: give a word without dots, such as 'radiology'")
    if name in names(model):
        raise Error(f"a prompt {name!r} is attached already: detach it first, or give another name")


def names(model: GPT) -> list[str]:
    """The prompts the model holds, in the order of their ids."""
    embedding = model.token_embedding
    return [name for name, _ in embedding.spans if name] if isinstance(embedding, Extended) else []


def ids(model: GPT, name: str = "default") -> list[int]:
    """The ids of a prompt's virtual tokens, from V on: put them before a text, or anywhere into it."""
    return holder(model).ids(name)


def rows_of(model: GPT, name: str) -> nn.Module:
    """The module that makes the rows of a prompt."""
    holder(model).ids(name)
    return model.token_embedding.prompts[name]


def evaluated(rows: nn.Module) -> Tensor:
    """The rows a module makes without dropout, (P, C); no gradients."""
    training = rows.training
    try:
        with torch.no_grad():
            return rows.eval()()
    finally:
        rows.train(training)


def holder(model: GPT) -> Extended:
    if not isinstance(model.token_embedding, Extended):
        raise Error("no prompt is attached to this model: attach or load one first")
    return model.token_embedding


def learn(model: GPT, *chosen: str):
    """These prompts learn, other prompts do not; what else the model has stays as it is.

    Of several that learn together each moves at every step, also where a batch has none of its ids: its gradient is 0
    then, and Adam goes on by its memory.
    """
    modules = {name: rows_of(model, name) for name in (*names(model), *chosen)}
    for name, module in modules.items():
        module.requires_grad_(name in chosen)
        if name not in chosen:
            module.zero_grad(set_to_none=True)  # a gradient of 0 would still be decayed


def report(model: GPT, name: str) -> Report:
    """What learns of a prompt, and what it takes on disk: its rows, also where an encoder makes them."""
    own = list(rows_of(model, name).parameters())
    return learning.report(model, own, len(ids(model, name)) * model.config.d_model * own[0].itemsize)


def detach(model: GPT, name: str | None = None) -> None:
    """Take a prompt away, or all of them; the last one gone, the model has the modules and bits it had before.

    Other prompts keep their ids.
    """
    if name is None and not names(model):
        return
    embedding = holder(model)
    for gone in [name] if name is not None else names(model):
        embedding.ids(gone)
        del embedding.prompts[gone]
        embedding.unshifted.discard(gone)
        embedding.spans = [("" if held == gone else held, length) for held, length in embedding.spans]
    while embedding.spans and not embedding.spans[-1][0]:
        embedding.spans.pop()
    if not embedding.spans:
        (base,) = embedding.base
        base.weight = embedding.weight
        model.token_embedding = base.train(embedding.training)
    learning.thaw(model)
