"""A batch of mixed tasks: each row its own method, several of them, or none, in one pass of one frozen model.

    names = ["letters", "short", None, ("letters", "style")]      what is held under these names, by whatever method
    texts = mixed.begin(model, names, texts)                      soft prompts go before their texts, as ids
    with mixed.rows(model, names, lora):                          the rest is put to work row by row
        generate(model, texts)

Every row is computed as if it were alone with its method. The methods of this library are known here; others are
given: any module with `names`, `use` and `rows` of the same meaning, such as `lora`.

A prompt is ids in a row, so `begin` is where a row gets one; `rows` only knows where its text then stands.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import adapter, prefix, prompt
from minigpt.tuning.virtual import with_prompt

METHODS = (adapter, prefix, prompt)  # P-tuning's prompts are held with the others
Names = str | Sequence[str] | None  # what one row has


@contextmanager
def rows(model: GPT, names: Sequence[Names], *others: ModuleType) -> Iterator[None]:
    """Inside, row b of every batch has what names[b] says, and nothing else; texts come from `begin`.

    >>> import torch
    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> report = prefix.attach(model, prefix.PrefixConfig(length=3), "short")
    >>> report = adapter.attach(model, adapter.AdapterConfig(bottleneck=4), "letters")
    >>> with rows(model, ["short", None, ("short", "letters")]):
    ...     logits = model(torch.tensor([[1, 2], [1, 2], [1, 2]]))
    """
    known = _held(model, others)
    chosen = [_chosen(known, each) for each in names]
    with ExitStack() as stack:
        for method, held in known.items():
            if held:
                of_rows = [next((name for name in each if name in held), None) for each in chosen]
                stack.enter_context(method.rows(model, of_rows))
        yield


def use(model: GPT, names: Names, *others: ModuleType) -> None:
    """From now on all rows have this: what is held under these names works, and everything else rests.

    A prompt still has to stand in the texts, see `begin`, and one stored as unshifted asks for `prompt.rows`.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> report = adapter.attach(model, adapter.AdapterConfig(bottleneck=4), "letters")
    >>> use(model, None)  # the base again; use(model, "letters") and the adapter works
    """
    known = _held(model, others)
    chosen = _chosen(known, names)
    for method, held in known.items():
        if method is not prompt and held:
            method.use(model, next((name for name in chosen if name in held), None))


@contextmanager
def alike(model: GPT, names: Names, batch: int, *others: ModuleType) -> Iterator[None]:
    """Inside, all rows of a batch have this, also what `rows` cannot mix, as DoRA; then all works as before."""
    held = [(module, module.active) for module in model.modules() if hasattr(module, "active")]
    prompts = [next((name for name in _several(names) if name in prompt.names(model)), None)] * batch
    use(model, names, *others)
    try:
        with prompt.rows(model, prompts):
            yield
    finally:
        for module, active in held:
            module.active = active


def begin(model: GPT, names: Sequence[Names], texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Each text, after the virtual tokens of the prompts that its row has.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> report = prompt.attach(model, prompt.PromptConfig(length=2), "short")
    >>> begin(model, ["short", None], [[7, 8], [7, 8]])  # ids from V on are virtual
    [[100, 101, 7, 8], [7, 8]]
    """
    held = prompt.names(model)
    prompts = [next((name for name in _several(each) if name in held), None) for each in names]
    return [with_prompt(model, text, name) for text, name in zip(texts, prompts, strict=True)]


def _several(names: Names) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def _held(model: GPT, others: tuple[ModuleType, ...]) -> dict[ModuleType, list[str]]:
    return {method: list(method.names(model)) for method in (*METHODS, *others)}


def _chosen(held: dict[ModuleType, list[str]], names: Names) -> tuple[str, ...]:
    """The names of a row, each held by one method, and no two by the same."""
    chosen, used = _several(names), set()
    for name in chosen:
        owners = [method.__name__.rpartition(".")[2] for method, known in held.items() if name in known]
        if len(owners) != 1:
            known = [each for names in held.values() for each in names]
            what = f"is held by {' and by '.join(owners)}" if owners else f"is not attached: {nearest(name, known)}"
            raise Error(f"mixed rows: {name!r} {what}" + ": give them different names" * bool(owners))
        if owners[0] in used:
            raise Error(f"mixed rows: {' and '.join(chosen)} are of one method: a row has one of each")
        used.add(owners[0])
    return chosen
