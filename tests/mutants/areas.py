"""The core of the library, area by area: files, and the tests that are to notice when one of them is wrong."""

AREAS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "attention": (("minigpt/attention.py",), ("attention", "sinks", "banded")),
    "masks": (("minigpt/masks.py",), ("attention", "model", "sinks", "local", "banded")),
    "model": (("minigpt/model.py",), ("model", "hub", "optimizer", "sinks", "rope")),
    "positions": (("minigpt/positions.py",), ("positions", "rope")),
    "loss": (("minigpt/loss.py",), ("loss", "precision")),
    "LoRA layer": (
        ("lora/layers.py", "lora/product.py", "lora/adapter.py"),
        ("lora_layers", "lora_peft", "lora_states", "lora_fused", "lora_merge", "lora_nf4"),
    ),
    "merge": (("lora/merging.py", "lora/exact.py"), ("lora_merge", "lora_verify", "lora_peft", "lora_judging")),
    "verify": (
        ("lora/verify.py", "lora/compare.py", "lora/bound.py"),
        ("lora_judging", "lora_verify", "lora_cli", "lora_rounded"),
    ),
    "samplers": (
        ("minigpt/generation/sampling.py", "minigpt/generation/processors.py", "minigpt/generation/penalties.py"),
        ("sampler", "processors", "generation", "constraints"),
    ),
    "beam search": (
        ("minigpt/generation/search.py", "minigpt/generation/beams.py"),
        ("search", "beams", "constraints"),
    ),
}


def tests_of(area: str) -> list[str]:
    """Files for pytest: the examples in the docstrings first, as they are the quickest."""
    files, tests = AREAS[area]
    return [*files, *(f"tests/test_{name}.py" for name in tests)]


def area_of(file: str) -> str:
    return next(area for area, (files, _) in AREAS.items() if file in files)
