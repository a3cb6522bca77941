"""A conversation: what was said is the prompt of what is said next, and is read once.

    E u1 E  ->  a1 E        the model reads u1 and writes a1
    E u1 E a1 E u2 E  ->  a2 E        it reads the E after a1, and u2 E, and nothing of u1 and a1 again

The layout is that of training (corpus/talk.py). The history is one of whole utterances, of both sides: when the
context has no room for the answer, or there are more than `history` of them, the oldest go; what is left then stands
at other positions, and is read anew.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from minigpt.corpus.talk import Layout, first_kept
from minigpt.errors import Error
from minigpt.generation.beams import beam_search
from minigpt.generation.checks import context_of
from minigpt.generation.generate import generate, stream
from minigpt.generation.reader import Memory
from minigpt.generation.stops import TextStream
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

CHANCE = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")  # what a beam search has no use for


@dataclass(frozen=True)
class Answer:
    """What the model said. `finish`: "end" (its own), "stop" (a stop string), "length", or "broken" off by the caller.

    Of `prompt_tokens`, `read_tokens` were read for this answer; `forgotten` utterances were no longer seen.
    """

    text: str
    tokens: list[int]
    finish: str
    prompt_tokens: int
    read_tokens: int
    forgotten: int


class Chat:
    """Say something, and hear what the model answers; it remembers what was said.

    system: what it is told before all else, and never forgets. history: how many utterances it sees at most, the one
    to be answered among them; 3 are an utterance, the answer, and the next. Answer i draws from (seed, i): the same
    seed and words give the same conversation, with a cache or without. `options` are those of `stream`. With `beams`,
    options of `beam_search` such as {"num_beams": 4}, an answer is the likeliest that it finds. `before`: virtual
    tokens that every prompt begins with (tuning/prompt.py).

    >>> from minigpt import GPTConfig
    >>> tokenizer = Tokenizer.train(["x"], 300)
    >>> model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, context=64, n_layers=1, n_heads=2, d_model=32))
    >>> chat = Chat(model, tokenizer, max_new_tokens=5, temperature=0, stop=("never",))
    >>> first, second = chat.answer("a cough"), chat.answer("since when?")
    >>> first.read_tokens, second.read_tokens <= 14, second.prompt_tokens >= 22
    (9, True, True)
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        system: str = "",
        history: int | None = None,
        max_new_tokens: int = 128,
        stop: tuple[str, ...] = (),
        beams: dict | None = None,
        before: Sequence[int] = (),
        use_cache: bool = True,
        **options,
    ):
        if history is not None and history < 1:
            raise Error(f"history is {history}: give at least 1 utterance, the one to be answered")
        self.model, self.tokenizer, self.layout = model, tokenizer, Layout.of(tokenizer)
        self.system = [tokenizer.encode(system)] if system else []
        self.history, self.max_new_tokens, self.stop = history, max_new_tokens, stop
        self.beams, self.before, self.use_cache = beams, list(before), use_cache
        self.options = {"eos": self.layout.end} | options
        self.answers = 0
        self.begin()

    def begin(self):
        """A new conversation. The answers are counted on: it is not drawn as the last one was."""
        self.said: list[list[int]] = []  # whole utterances, of both sides in turn
        self.memory = Memory(self.model) if self.use_cache else None
        self.last: Answer | None = None

    def answer(self, text: str) -> Answer:
        """The whole answer."""
        for _ in self.say(text):
            pass
        return self.last

    def say(self, text: str) -> Iterator[str]:
        """The answer as it is made, in whole characters; then it is `last`. `Error` comes at the call."""
        if not text.strip():
            raise Error("nothing was said: write something")
        said = [*self.said, self.tokenizer.encode(text)]
        first = self._first_seen(said)
        prompt = self.before + self.layout.join(self.system + said[first:])
        return self._told(said, first, prompt, self._tokens(prompt), TextStream(self.tokenizer, self.stop))

    def _first_seen(self, said: list[list[int]]) -> int:
        """The oldest utterance that the prompt still holds."""
        head = len(self.before + self.layout.join(self.system))
        lengths = [len(each) + 1 for each in said]
        whose = "the system's" if self.system else ""
        return first_seen(lengths, head, context_of(self.model), self.max_new_tokens, self.history, whose)

    def _tokens(self, prompt: list[int]) -> Iterator[int]:
        options = {"max_new_tokens": self.max_new_tokens} | self.options
        if self.beams:
            options = {name: value for name, value in options.items() if name not in CHANCE} | self.beams
            found = beam_search(self.model, [prompt], use_cache=self.use_cache, memory=self.memory, **options)
            return iter(found[0][0].tokens)
        options["row"] = self.answers
        if self.memory is None:
            return iter(generate(self.model, [prompt], use_cache=False, **options)[0])
        return stream(self.model, prompt, memory=self.memory, **options)

    def _told(self, said, first: int, prompt: list[int], tokens: Iterator[int], text: TextStream) -> Iterator[str]:
        written, shown, finish = [], "", "broken"
        try:
            for token in tokens:
                written.append(token)
                piece = "" if token == self.layout.end else text.push(token)
                shown += piece
                yield piece
                if text.done:
                    break
            rest = text.flush()
            shown += rest
            finish = "stop" if text.done else "end" if written[-1] == self.layout.end else "length"
            yield rest
        finally:
            if written:
                self._remember(said, Answer(shown, written, finish, len(prompt), self._read(prompt), first))

    def _read(self, prompt: list[int]) -> int:
        return len(prompt) if self.memory is None else self.memory.fresh

    def _remember(self, said: list[list[int]], answer: Answer):
        tokens = answer.tokens
        if answer.finish == "stop":  # what comes after is no part of the conversation
            tokens = self.tokenizer.encode(answer.text)
        elif tokens[-1] == self.layout.end:
            tokens = tokens[:-1]
        self.said, self.last = [*said, tokens], answer
        self.answers += 1


def first_seen(
    lengths: Sequence[int], head: int, context: int, new: int, history: int | None = None, whose: str = ""
) -> int:
    """The oldest utterance that a prompt still holds: of those of so many tokens, after a `head` that always stays.

    There is room for an answer of `new` tokens; but for a long one at most half of the context. The error says `whose`
    the head is.

    >>> first_seen([5, 3, 4], head=1, context=20, new=5), first_seen([5, 3, 4], head=1, context=20, new=9)
    (0, 1)
    """
    if head + lengths[-1] > context:
        told = f" after {head} of {whose}" if whose else ""
        raise Error(f"this has {lengths[-1]} tokens{told}, the model's context holds {context}: shorten it")
    room = context + 1 - head - min(new, context // 2)
    return min(first_kept(lengths, room, history), len(lengths) - 1)


def converse(chat: Chat, lines: Iterable[str], as_json: bool = False):
    """Answer every line on standard output; an empty one begins a new conversation.

    With `as_json` an answer is a JSON object a line, and what is said may be one too, with the field "content".
    What cannot be answered costs a message, not the conversation.
    """
    for line in lines:
        if not line.strip():
            chat.begin()
            print("(a new conversation)", file=sys.stderr)
            continue
        try:
            text = _content(line) if as_json and line.startswith("{") else line
            pieces = chat.say(text)
        except Error as problem:
            print(f"sample.py: {problem}", file=sys.stderr)
            continue
        for piece in pieces:
            if not as_json:
                print(piece, end="", flush=True)
        print(json.dumps({"prompt": text} | asdict(chat.last), ensure_ascii=False) if as_json else "", flush=True)


def _content(line: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("content"), str):
        raise Error('not an object with the text field "content", such as {"content": "a cough"}')
    return found["content"]
