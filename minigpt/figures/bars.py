"""Where the memory of a training step goes, as bars: the numbers are those of `python -m minigpt.memory`."""

from minigpt.config import GPTConfig
from minigpt.memory.job import Job
from minigpt.memory.predict import predict
from minigpt.memory.show import human, parts


def draw(config: GPTConfig, job: Job):
    """One bar a part, the largest on top as they come in a step, its bytes behind it."""
    from matplotlib.figure import Figure

    found = predict(config, job)
    rows = parts(found, job)
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(rows), [size / 2**20 for size in rows.values()], color="#36c", alpha=0.7)
    for place, size in enumerate(rows.values()):
        axes.text(size / 2**20, place, f" {human(size)}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"MiB; {job.method}, {job.dtype}, {job.batch} rows of {job.length or config.context} tokens; "
                    f"peak of a step {human(found.peak)}")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    return figure
