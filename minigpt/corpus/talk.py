"""An instruction or a dialogue as tokens: every utterance is closed by the end-of-text token.

    E system E question E answer E question E answer E        E: end of text
    .   .    .    .     .   x    x    .     .   x    x        x: learned, the E that closes an answer too

An instruction is a dialogue of one question. Why this layout, of the many there are:

- Every tokenizer has E, and no text does: its spelling in a note is ordinary text. So nobody's words can end an
  utterance or speak for the other side, and the vocabulary needs no new row.
- "User:" and "Assistant:" would be English in a Chinese dialogue, and a text could contain them.
- The tokens of an utterance do not depend on its neighbours: it is encoded once, dropped whole, and read once.
- An answer ends as a document ends: `generate(eos=E)` needs no stop string.

Who speaks is not written, the sides alternate; two messages in a row of one side are therefore one utterance of two
lines. GPT2-chitchat's [CLS] u1 [SEP] u2 [SEP] is this layout with other ids: `Layout(begin=CLS, end=SEP)`.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from minigpt.errors import Error, nearest
from minigpt.tokenizer import Tokenizer

Encode = Callable[[str], list[int]]


class Example(NamedTuple):
    """A record as tokens; `learned` says of each whether it is a target. `lost`: utterances dropped, or inputs cut."""

    ids: list[int]
    learned: list[bool]
    lost: int = 0


class Part(NamedTuple):
    """A stretch of text that is learned or only read; `closed` if the end token follows it."""

    text: str
    learned: bool
    closed: bool = True


@dataclass(frozen=True)
class Layout:
    """The id a record begins with, and the one that closes each utterance.

    >>> Layout(begin=101, end=102).join([[122, 123], [435, 634]])
    [101, 122, 123, 102, 435, 634, 102]
    """

    begin: int
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Layout":
        return cls(tokenizer.eot, tokenizer.eot)

    def join(self, utterances: Sequence[Sequence[int]]) -> list[int]:
        """The ids of a dialogue."""
        return [self.begin, *(token for utterance in utterances for token in (*utterance, self.end))]

    def example(self, parts: Sequence[Part], encode: Encode, lost: int = 0) -> Example:
        ids, learned = [self.begin], [False]
        for part in parts:
            new = encode(part.text) + [self.end] * part.closed
            ids += new
            learned += [part.learned] * len(new)
        return Example(ids, learned, lost)


def first_kept(lengths: Sequence[int], room: int, most: int | None = None) -> int:
    """Where a history begins: its oldest utterances are dropped, whole, until `room` tokens hold the others, of
    which there are at most `most`.

    >>> first_kept([5, 3, 4], room=12), first_kept([5, 3, 4], room=11), first_kept([5, 3, 4], room=12, most=1)
    (0, 1, 2)
    """
    first = 0 if most is None else max(0, len(lengths) - most)
    while first < len(lengths) and sum(lengths[first:]) > room:
        first += 1
    return first


@dataclass(frozen=True)
class Dialogue:
    """Utterances of alternating sides, after what a system says, if anything."""

    system: str
    parts: tuple[Part, ...]
    task: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.system, *(part.text for part in self.parts))

    def fitted(self, layout: Layout, encode: Encode, room: int) -> Example | None:
        """In at most `room` tokens: without its oldest utterances, if need be; None if no pair of them fits.

        What an utterance answers may be among the dropped: the first one left is read and not learned.
        """
        system = (Part(self.system, False),) if self.system else ()
        encode = cache(encode)
        head = len(layout.example(system, encode).ids)
        lengths = [len(encode(part.text)) + 1 for part in self.parts]
        first = first_kept(lengths, room - head)
        kept = list(self.parts[first:])
        if len(kept) < min(2, len(self.parts)):
            return None
        if first:
            kept[0] = kept[0]._replace(learned=False)
        return layout.example((*system, *kept), encode, lost=first)


class Template:
    """How an instruction and its input become a question. With {output} at its end, the answer goes on in the same
    text, and no end token parts them: a document to be completed. Blanks before {output} belong to the answer.

    >>> Template("{instruction}\\n\\n{input}").parts("Translate:", "chien", "dog")
    (Part(text='Translate:\\n\\nchien', learned=False, closed=True), Part(text='dog', learned=True, closed=True))
    >>> Template("{input} in English is {output}").parts("", "chien", "dog")
    (Part(text='chien in English is', learned=False, closed=False), Part(text=' dog', learned=True, closed=True))
    """

    def __init__(self, text: str):
        names, known = re.findall(r"\{(\w+)\}", text), ("instruction", "input", "output")
        for name in names:
            if name not in known:
                raise Error(f"the template has {{{name}}}: {nearest(name, known)}")
        before, output, after = text.partition("{output}")
        if after.strip() or not set(names) & {"instruction", "input"}:
            raise Error(
                f"the template is {text!r:.60}: give {{instruction}} or {{input}}, and {{output}} last if at all"
            )
        self.needs = ("instruction",) if "instruction" in names else ("input",)
        self.before, self.goes_on = before.rstrip(), bool(output)
        self.blank = before[len(self.before) :] if output else ""

    def parts(self, instruction: str, input: str, output: str) -> tuple[Part, Part]:
        values = {"{instruction}": instruction, "{input}": input}
        question = re.sub("{instruction}|{input}", lambda found: values[found[0]], self.before).rstrip()
        return Part(question, False, not self.goes_on), Part(self.blank + output, True)


@dataclass(frozen=True)
class Instruction:
    """What to do, with what, and the answer."""

    instruction: str
    input: str
    output: str
    template: Template
    mask: bool = True
    task: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(part.text for part in self.template.parts(self.instruction, self.input, self.output))

    def fitted(self, layout: Layout, encode: Encode, room: int) -> Example | None:
        """In at most `room` tokens: with the end of the input cut off, if need be; None if even so there is no room."""

        def cut(characters: int) -> Example:
            parts = self.template.parts(self.instruction, self.input[:characters].rstrip(), self.output)
            parts = (parts[0]._replace(learned=not self.mask), parts[1])
            return layout.example(parts, encode, lost=int(characters < len(self.input)))

        def too_long(characters: int) -> bool:
            return len(cut(characters).ids) > room

        whole = len(self.input)
        if not too_long(whole):
            return cut(whole)
        # More characters are hardly ever fewer tokens; where they are, a few are cut in vain.
        most = bisect_left(range(whole), True, key=too_long) - 1
        return None if most < 0 else cut(most)
