"""The one exception of this library, and the nearest-name hint its messages use."""

from difflib import get_close_matches


class Error(Exception):
    """Something the caller can mend: the message names what was expected, found, and to do."""


def nearest(name: str, known) -> str:
    """A hint for a misspelt name: the closest known one, or some of all.

    >>> nearest("q_porj", ["q_proj", "v_proj"])
    "did you mean 'q_proj'?"
    """
    known = sorted(known)
    if close := get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    more = f" and {len(known) - 12} more" if len(known) > 12 else ""
    return "known: " + (", ".join(map(repr, known[:12])) or "none") + more
