"""The pictures of docs/ that our code makes in seconds; the others are measurements, with the command of each."""

from minigpt import presets, rope
from minigpt.figures import bars, canvas, choices, curves, masks, parts, places, vocabulary
from minigpt.memory.job import Job

MEASURED = {  # file -> what makes it, in minutes or hours
    "ablation.svg": "python -m bench ablation",
    "bench-adapters.svg": "python -m bench adapters --plot FILE.svg",
    "bench-growth.svg": "python -m bench growth --plot FILE.svg",
    "context-*.svg": "python -m bench context, python -m bench context_cost",
    "demo-loss.svg": "make demo, then python -m minigpt.figures runs/demo --only learning",
    "gpt-family.svg": "python -m bench family --plot FILE.svg",
    "methods.svg": "python -m bench methods",
    "step-cost.svg": "python -m bench length --plot FILE.svg",
}


def pictures() -> dict[str, bytes]:
    """File name -> the bytes of an SVG."""
    banded = presets.llama_like(window=128, banded_layers=(0, 2), sinks=4)
    llama = presets.llama_like(rope_scaling=rope.Yarn(factor=4.0, original=256))
    made = {
        "schedules": curves.schedules(),
        "figures-masks": masks.draw(banded),
        "figures-positions": places.draw_rotary(llama),
        "figures-memory": bars.draw(presets.gpt2(), Job()),
        "figures-choices": choices.draw(),
        "figures-parts": parts.draw(),
        "figures-vocabulary": vocabulary.draw(),
    }
    return {f"{name}.svg": canvas.data_of(figure, "svg", name) for name, figure in made.items()}
