"""The one exception of this library, and the nearest-name hint its messages use."""

from difflib import get_close_matches

LONGEST = 1000  # characters of a message: the value that it quotes may be a whole file


class Error(Exception):
    """Something the caller can mend: the message names what was expected, found, and to do.

    Scripts print the message on stderr and exit with code 2; nobody should see a traceback for bad input.

    >>> raise Error("notes.jsonl:3: field 'note' is missing; found 'text': use --field text")
    Traceback (most recent call last):
    minigpt.errors.Error: notes.jsonl:3: field 'note' is missing; found 'text': use --field text
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} [...] {text[-LONGEST // 4 :]}"


def nearest(name: str, known) -> str:
    """A hint for a misspelt name: the closest known one, or the list of all.

    >>> nearest("vocab_sise", ["vocab_size", "context"])
    "did you mean 'vocab_size'?"
    >>> nearest("zzz", ["a", "b"])
    "known: 'a', 'b'"
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(map(repr, known))
