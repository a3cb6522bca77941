"""python -m minigpt.figures RUN: pictures of a model, a run or an adapter, as SVG or PNG."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.cli import parse, run
from minigpt.errors import Error, nearest
from minigpt.files import write_atomic

DESCRIPTION = """
Pictures of a directory: a run, a model in Hugging Face's format, or a LoRA adapter.

  masks       what each token may see: causal, the window of banded layers, documents, padding, a prefix
  attention   where each token of --text looks, by layer and head
  positions   how alike learned positions are; or how often rotary pairs turn, with every scaling
  learning    the loss, over the floors of a model that knows nothing or only which tokens are common
  schedule    the learning rate of this run, by the formula and as recorded
  schedules   all schedules side by side
  memory      where the bytes of a training step go
  adapter     what a LoRA adapter learned, layer by layer (an SVG always)
"""
EXAMPLES = """
examples:
  python -m minigpt.figures runs/notes                                    all that it has, into runs/notes/figures
  python -m minigpt.figures runs/notes --only masks,learning --format png
  python -m minigpt.figures runs/notes --only attention --text "患者咳嗽三天，无发热"
  python -m minigpt.figures runs/radiology --only adapter --other runs/letters    and how much two adapters share
  python -m minigpt.figures --docs                                        the pictures of docs/, again
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Pictures: of what, and where they go."""

    directory: Path | None = field(default=None, metadata={"positional": True})  # of a run, a model or an adapter
    out: Path | None = None  # directory for the pictures; by default `figures` in that one (docs with --docs)
    only: str | None = None  # which, by name and with commas; by default all that the directory has
    format: str = "svg"  # svg or png
    text: str = "The patient has a cough. 患者咳嗽。"  # what attention is drawn of
    other: Path | None = None  # a second adapter, to compare directions with
    docs: bool = False  # draw the pictures of docs/ instead

    def __post_init__(self):
        if self.format not in ("svg", "png"):
            raise Error(f"--format is {self.format!r}: {nearest(self.format, ('svg', 'png'))}")
        if self.directory is None and not self.docs:
            raise Error("directory is missing: give that of a run, a model or an adapter; see --help")


def draw(options: Options) -> int:
    """Write each picture; one that the directory has no data for is passed over, or an error if it was asked for."""
    from tqdm import tqdm

    from minigpt.figures import canvas, gallery

    if not options.directory.is_dir():
        raise Error(f"{options.directory}: no such directory: give that of a run, a model or an adapter")
    names = list(gallery.FIGURES) if options.only is None else [name.strip() for name in options.only.split(",")]
    for name in names:
        if name not in gallery.FIGURES:
            raise Error(f"--only {name!r}: {nearest(name, gallery.FIGURES)}")
    if not any((options.directory / f).is_file() for f in ("config.json", "metrics.jsonl", "adapter_config.json")):
        raise Error(f"{options.directory}: no run, model or adapter: it has no config.json, metrics.jsonl or "
                    "adapter_config.json")  # fmt: skip
    subject = gallery.Subject(options.directory, options.text, options.other, options.format)
    out, said = options.out or options.directory / "figures", []
    for name in tqdm(names, unit="picture", delay=2):
        try:
            kind, data = gallery.make(name, subject)
        except Error as problem:
            if options.only:
                raise
            said.append(f"{name} is left out: {problem}")
            continue
        write_atomic(out / f"{name}.{kind}", data)
        said.append(str(out / f"{name}.{kind}"))
    print("\n".join(said))
    drawn = (out / "attention.png").is_file() and "attention" in names and options.format == "png"
    if drawn and (gone := canvas.missing(options.text)):
        print(f"no font here has {gone}: their code points are drawn; install one, say Noto Sans CJK, or take "
              "--format svg, whose letters the reader's fonts draw", file=sys.stderr)  # fmt: skip
    return 0


def draw_docs(options: Options) -> int:
    from minigpt.figures import docs

    out = options.out or Path("docs")
    for name, data in docs.pictures().items():
        write_atomic(out / name, data)
        print(out / name)
    print("measured, and not drawn again here:")
    for name, command in docs.MEASURED.items():
        print(f"  {name:<22}{command}")
    return 0


def main() -> int:
    (options,) = parse(Options, prog="python -m minigpt.figures", description=DESCRIPTION, epilog=EXAMPLES)
    return draw_docs(options) if options.docs else draw(options)


if __name__ == "__main__":
    run(main, "python -m minigpt.figures")
