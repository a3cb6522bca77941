"""From prompts to printed texts: what sample.py does with a model and its options.

encode -> generate, beam_search or score -> text up to the first stop string, or a record for scripts
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from minigpt.errors import Error
from minigpt.generation.beams import beam_search
from minigpt.generation.checks import context_of
from minigpt.generation.constraints import OneOf, StartsWith
from minigpt.generation.generate import generate, stream
from minigpt.generation.scoring import best_of_n, score
from minigpt.generation.speculative import Tally, check_vocabulary, checked_limit, rounds, speculate
from minigpt.generation.stops import TextStream
from minigpt.generation.tree import as_html, as_text
from minigpt.model import GPT
from minigpt.sample_options import Beams, Choosing, Steering
from minigpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Text:
    """A continuation: `finish` is "end" (the model's), "stop" (a stop string) or "length"."""

    text: str
    tokens: list[int]
    finish: str
    more: dict  # scores, or what a draft did, as far as there are any


class Writer:
    """Prompts in, texts out. A `draft` proposes `draft_tokens` at a time; `tally` says how often it was right."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, choosing: Choosing, steering: Steering, beams: Beams,
        draft: GPT | None = None, draft_tokens: int = 4,
    ):  # fmt: skip
        self.model, self.tokenizer = model, tokenizer
        self.draft, self.draft_tokens, self.tally = draft, draft_tokens, Tally()
        if draft:
            check_vocabulary(model, draft)
        self.choosing, self.steering, self.beams = choosing, steering, beams
        if steering.contains and beams.num_beams == 1:
            raise Error("--contains leads beams to a phrase: give --num-beams, more than the phrase has tokens")
        self.limits = {"max_new_tokens": steering.max_new_tokens, "eos": tokenizer.eot} | self._steering()
        names = ("top_k", "top_p", "min_p", "typical_p", "seed")
        self.sampling = {name: getattr(choosing, name) for name in names}
        self.sampling["temperature"] = 0 if choosing.greedy else choosing.temperature
        self.overflow = "slide" if steering.slide else "stop"

    def _steering(self) -> dict:
        names = ("min_new_tokens", "repetition_penalty", "frequency_penalty", "presence_penalty", "no_repeat_ngram")
        chosen = {name: getattr(self.steering, name) for name in names}
        extra = []
        if self.steering.one_of:
            extra.append(OneOf([self.tokenizer.encode(phrase) for phrase in self.steering.one_of], self.tokenizer.eot))
        if self.steering.starts_with:
            extra.append(StartsWith(self.tokenizer.encode(self.steering.starts_with)))
        return chosen | {"extra": tuple(extra)}

    def encode(self, prompt: str, where: str, eot: bool = True, before: Sequence[int] = ()) -> list[int]:
        """The ids the model reads, after those `before`; `Error` if there are none, or more than it can read."""
        ids = [self.tokenizer.eot] * eot + self.tokenizer.encode(prompt)
        if not ids:
            raise Error(f"{where} is empty: write something, or leave out --no-eot")
        if len(ids) > (context := context_of(self.model) - len(before)):
            raise Error(f"{where} has {len(ids)} tokens, the model's context holds {context}: shorten it")
        if self.draft and before:
            raise Error("a draft cannot read the virtual tokens of a prompt that was tuned: leave out --draft")
        if self.draft:
            checked_limit(self.model, self.draft, len(ids), self.steering.max_new_tokens)
        return [*before, *ids]

    def pieces(self, ids: list[int], row: int) -> Iterator[str]:
        """The continuation as it is made. `row` numbers the texts: each has its own randomness."""
        options = {"row": row} | self.limits | self.sampling  # checked before the first piece is asked for
        if self.draft:
            found = rounds(self.model, self.draft, ids, draft_tokens=self.draft_tokens, **options)
            tokens = (token for each in found for token in self.tally.count(each))
        else:
            tokens = stream(self.model, ids, overflow=self.overflow, **options)
        return self._pieces(tokens, TextStream(self.tokenizer, self.steering.stop))

    def _pieces(self, tokens: Iterator[int], text: TextStream) -> Iterator[str]:
        for token in tokens:
            if token != self.tokenizer.eot:
                yield text.push(token)
            if text.done:
                return
        yield text.flush()

    def batch(self, prompts: list[list[int]], row: int) -> list[Text]:
        """Continuations of all of them, written at once (with a draft one by one); the texts of `pieces`."""
        options = self.limits | self.sampling
        if self.draft:
            return [self._drafted(ids, row + i, options) for i, ids in enumerate(prompts)]
        return [
            self.cut(tokens) for tokens in generate(self.model, prompts, row=row, overflow=self.overflow, **options)
        ]

    def _drafted(self, ids: list[int], row: int, options: dict) -> Text:
        found = speculate(self.model, self.draft, ids, draft_tokens=self.draft_tokens, row=row, **options)
        return self.cut(found.tokens, accepted=found.accepted, readings=found.steps)

    def best(self, ids: list[int]) -> Text:
        """The likeliest of several samples."""
        tokens, found = best_of_n(self.model, ids, self.choosing.best_of, **self.limits, **self.sampling)[0]
        return self.cut(tokens, logprob=found.total, perplexity=found.perplexity)

    def search(self, ids: list[int]) -> tuple[list[Text], str, str]:
        """The best beams of a prompt, and the tree of the search as text and as a page."""
        it, traces = self.beams, []
        found = beam_search(self.model, [ids], traces=traces, **self.searching(), **self.limits)[0]
        texts = [self.cut(beam.tokens, score=beam.score, logprob=beam.total, logprobs=beam.logprobs) for beam in found]
        tree = as_text(traces[0], self.tokenizer.decode, most=it.num_beams) if it.show_beams else ""
        page = as_html(traces[0], self.tokenizer.decode, "Beam search", most=it.num_beams) if it.beams_html else ""
        return texts, tree, page

    def searching(self) -> dict:
        """The options of `beam_search` but those that `generate` has too."""
        it = self.beams
        return {
            "num_beams": it.num_beams,
            "num_return_sequences": it.num_return,
            "groups": it.groups,
            "diversity": it.diversity,
            "length_penalty": it.length_penalty,
            "early_stopping": {"true": True, "false": False}.get(it.early_stopping, it.early_stopping),
            "contains": [self.tokenizer.encode(phrase) for phrase in self.steering.contains],
        }

    def rate(self, ids: list[int]) -> dict:
        """How likely the model finds a text, after its first token."""
        if len(ids) < 2:
            raise Error("a text of one token has no probability here, as nothing stands before it: give a longer one")
        found = score(self.model, [ids])[0]
        return {
            "tokens": len(found.logprobs),
            "logprob": found.total,
            "perplexity": found.perplexity,
            "bits_per_byte": -found.total / math.log(2) / max(1, len(self.tokenizer.decode(ids[1:]).encode())),
        }

    def cut(self, tokens: list[int], **more) -> Text:
        """Tokens as text, up to the first stop string."""
        text, finish = TextStream(self.tokenizer, self.steering.stop), "length"
        shown = "".join(self._pieces(iter(tokens), text))
        if text.done:
            finish = "stop"
        elif tokens and tokens[-1] == self.tokenizer.eot:
            finish = "end"
        return Text(shown, tokens, finish, more)


def record(prompt: str, text: Text, adapter: str | None) -> str:
    """A line for scripts."""
    whole = {"prompt": prompt, "text": text.text, "finish": text.finish, "tokens": text.tokens} | text.more
    return json.dumps(whole | ({"adapter": adapter} if adapter else {}), ensure_ascii=False)
