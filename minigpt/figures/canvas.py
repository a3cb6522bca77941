"""A matplotlib figure as the bytes of a file, and which letters this machine can draw.

An SVG keeps letters as letters: the reader's fonts draw them. A PNG needs the font here; where none has a letter, its
code point is written instead (U+54B3), never an empty box, and a sentence says so.
"""

import io
from functools import cache
from pathlib import Path

from minigpt import svg

PREFERRED = ("DejaVu Sans", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
             "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


def data_of(figure, kind: str, salt: str) -> bytes:
    """The file, white behind it so that it reads on a dark page too."""
    if kind == "svg":
        return svg.text_of(figure, salt).encode()
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"font.family": list(families())}):
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


@cache
def families() -> tuple[str, ...]:
    """Those of `PREFERRED` that are installed, Latin letters first."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(name for name in PREFERRED if name in installed)


@cache
def letters() -> frozenset[int]:
    """The code points that one of these fonts can draw."""
    from matplotlib import font_manager

    files = [Path(font_manager.findfont(name)) for name in families()]
    return frozenset(code for file in files for code in font_manager.get_font(str(file)).get_charmap())


def missing(text: str) -> str:
    """The letters of `text` that no font here has, each once."""
    return "".join(dict.fromkeys(letter for letter in text if letter > " " and ord(letter) not in letters()))


def readable(data: bytes, kind: str) -> str:
    """A token as a label: spaces and line ends are seen, part of a character is its bytes, and in a PNG what no font
    has is its code point.

    >>> readable(b" a\\n", "svg"), readable(b"\\xe5\\x92", "svg")
    ('␣a↵', '<E5 92>')
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{data.hex(' ').upper()}>"
    text = text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    if kind == "svg":
        return text
    gone = missing(text)
    return "".join(f"U+{ord(letter):04X}" if letter in gone else letter for letter in text)
