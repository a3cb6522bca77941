"""A matplotlib figure as the text of an SVG: the same bytes every time, letters as letters.

The object interface, not pyplot: no global state, no window system.
"""

import io


def text_of(figure, salt: str) -> str:
    """From "<svg" on, ready to stand in a page or in a file; `salt` keeps the ids of several in one page apart."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
