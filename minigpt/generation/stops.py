"""Tokens in, text out, up to the first stop string.

A stop string may begin in one token and end in another, or in the middle of one; a character may be two tokens. So
what could still become part of a stop string is held back, and nothing else:

    shown = text[:i],   i the first place where a stop string stands, or could stand after more text
"""

from minigpt.errors import Error
from minigpt.tokenizer import Tokenizer


class TextStream:
    """Pushes tokens, gives the text that is certain to be shown; `done` once a stop string was met.

    The outputs joined are the text up to the first stop string, wherever tokens begin and end. First is what begins
    first: with stops "abcd" and "bc", the text "abc" waits for one more character. The stop itself is not shown.
    The end-of-text token is text like any other here: do not push it.

    >>> tokenizer = Tokenizer.train(["x"], 300)
    >>> stream = TextStream(tokenizer, stops=("\\n\\n", "ab"))
    >>> [stream.push(token) for token in tokenizer.encode("a x\\ny aabc")]
    ['', 'a ', 'x', '', '\\ny', ' ', '', 'a', '', '']
    >>> stream.done, stream.flush()
    (True, '')
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...] = ()):
        if isinstance(stops, str) or not all(isinstance(stop, str) for stop in stops):
            raise Error(f"stops is {stops!r:.60}: give a tuple of texts, such as ('\\n\\n', 'Diagnosis:')")
        if "" in stops:
            raise Error("a stop string is empty, which would stop before the first character: leave it out")
        self.stops, self.done = tuple(stops), False
        self._characters, self._held = tokenizer.stream(), ""

    def push(self, token: int) -> str:
        """The text that became certain; "" once done."""
        return "" if self.done else self._show(self._characters.push(token), last=False)

    def flush(self) -> str:
        """What was held back, when no more tokens come; half a character is U+FFFD. "" if done."""
        return "" if self.done else self._show(self._characters.flush(), last=True)

    def _show(self, new: str, last: bool) -> str:
        text = self._held + new
        end = min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=len(text))
        certain = end if last else self._first_beginning(text, end)
        self.done = certain == end < len(text)
        self._held = text[certain:]
        return text[:certain]

    def _first_beginning(self, text: str, end: int) -> int:
        """The first place before `end` from which `text` is an unfinished stop string; `end` if there is none."""
        longest = max(map(len, self.stops), default=1)
        for start in range(max(0, len(text) - longest + 1), end):
            rest = text[start:]
            if any(stop.startswith(rest) for stop in self.stops):
                return start
        return end
