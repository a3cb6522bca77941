"""The one exception of this library, and the nearest-name hint its messages use."""

from difflib import get_close_matches

LONGEST = 1000  # characters of a message: the value that it quotes may be a whole file


class Error(Exception):
    """Something the caller can mend: the message names what was expected, found, and to do."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} [...] {text[-LONGEST // 4 :]}"


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
