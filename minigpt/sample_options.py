"""The options of sample.py, one record a concern. Importing this does not wait for torch."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from minigpt.errors import Error


@dataclass(frozen=True)
class Input:
    """Model, adapters and prompts."""

    model: Path = field(metadata={"positional": True})  # a run or Hugging Face directory, or an adapter's
    prompt: tuple[str, ...] = ()  # the beginning of a document; repeat the option for several
    prompts: Path | None = None  # file of prompts: one a line, or .jsonl with the field "prompt" (tasks: see below)
    pair: tuple[str, ...] = ()  # MODEL has a head for two texts: the second, one for each prompt ("pair" in .jsonl)
    choice: tuple[str, ...] = ()  # MODEL has a head that chooses: a possible answer; repeat it ("choices" in .jsonl)
    interactive: bool = False  # read prompts from standard input, a line each
    eot: bool = True  # put the end-of-text token before each prompt, as in training
    adapter: tuple[str, ...] = ()  # of any kind, one for all prompts, or one for each; "base" for none
    base: Path | None = None  # the model an adapter belongs to, where it is not in the place that MODEL names
    merge: bool = False  # put the LoRA adapter into the weights first: the speed of the base
    endless: bool = False  # write past the context, seeing its first tokens and the latest (rotary positions only)

    def read(self) -> list[str]:
        """All prompts; none where they come from standard input, and the empty one where nothing is given."""
        prompts = list(self.prompt)
        if self.prompts:
            from minigpt.generation.prompts import read_prompts

            prompts += read_prompts(self.prompts)
        if self.interactive and prompts:
            raise Error("--interactive reads its prompts from standard input: leave out --prompt and --prompts")
        if len(self.adapter) > 1 and len(self.adapter) != max(1, len(prompts)):
            raise Error(f"{len(self.adapter)} adapters for {len(prompts)} prompts: give one for all, or one for each")
        if self.merge and (len(set(self.adapter)) > 1 or "base" in self.adapter):
            raise Error("--merge puts one adapter into the weights: give --adapter once")
        return prompts if prompts or self.interactive else [""]


@dataclass(frozen=True)
class Talking:
    """Conversation: each line is answered, and remembered (docs/chat.md)."""

    chat: bool = False  # talk on standard input; an empty line begins anew, Ctrl-D ends
    system: str = ""  # what the model is told before all else, and never forgets
    history: int | None = None  # utterances of both sides that it sees at most; else what the context has room for

    def __post_init__(self):
        at_least_1(self, "history")
        if not self.chat and (self.system or self.history):
            raise Error("--system and --history are of a conversation: give --chat")

    def check(self, source: Input, choosing, steering, beams, drafting, output):
        """`Error` for what a conversation cannot have, of all that can be chosen."""
        others = {"--prompt": bool(source.prompt), "--prompts": bool(source.prompts), "--no-eot": not source.eot}
        others |= {"--interactive": source.interactive, "--num-samples": choosing.num_samples > 1}
        others |= {
            "--best-of": choosing.best_of is not None,
            "--slide": steering.slide,
            "--draft": bool(drafting.draft),
        }
        others |= {"--num-return": beams.num_return > 1, "--show-beams": beams.show_beams}
        others |= {"--beams-html": bool(beams.beams_html), "--score": output.score}
        for name in (name for name, given in others.items() if given and self.chat):
            raise Error(f"--chat answers each line of standard input once: leave out --chat or {name}")


@dataclass(frozen=True)
class Choosing:
    """How the next token is chosen."""

    temperature: float = 0.8  # below 1 plainer, above 1 wilder, 0 greedy
    top_k: int | None = None  # draw from the k most likely tokens only
    top_p: float | None = None  # draw from the likeliest tokens that hold this much probability
    min_p: float | None = None  # draw from tokens at least this share as likely as the likeliest
    typical_p: float | None = None  # draw from the tokens that surprise as much as expected, holding this much
    greedy: bool = False  # always the most likely token, whatever the temperature
    num_samples: int = 1  # texts for each prompt
    best_of: int | None = None  # write so many, print the likeliest (mean log-probability of a token)
    seed: int = 0  # another seed, other texts

    def __post_init__(self):
        at_least_1(self, "num_samples", "best_of")
        if self.greedy and max(self.num_samples, self.best_of or 1) > 1:
            raise Error("--greedy writes the same text every time: leave out --num-samples and --best-of")
        if self.best_of is not None and self.num_samples > 1:
            raise Error("--best-of prints one text of many: leave out --num-samples")


@dataclass(frozen=True)
class Steering:
    """What the text may hold, and where it ends."""

    max_new_tokens: int = 256  # at most this many tokens a text
    min_new_tokens: int = 0  # no end before so many
    stop: tuple[str, ...] = ()  # end before this text, wherever tokens begin; repeat for several
    slide: bool = False  # go on past the context, forgetting the oldest half whenever it is full
    repetition_penalty: float | None = None  # above 1: what occurred, prompt included, becomes less likely
    frequency_penalty: float = 0.0  # subtracted from a token's logit for each time it was written
    presence_penalty: float = 0.0  # subtracted once if it was written at all
    no_repeat_ngram: int | None = None  # no n tokens in a row twice
    one_of: tuple[str, ...] = ()  # the text is one of these, whole; repeat for each
    starts_with: str | None = None  # the text begins so
    contains: tuple[str, ...] = ()  # the text holds this; repeat for several (with --num-beams)


@dataclass(frozen=True)
class Beams:
    """Beam search: the likeliest texts, no randomness."""

    num_beams: int = 1  # texts followed at once; 1 is no beam search
    num_return: int = 1  # how many of them to print, best first
    length_penalty: float = 1.0  # log-probability / length^this: 0 favours short texts, 1 the mean
    early_stopping: Literal["false", "true", "never"] = "false"  # true: as soon as all have ended
    groups: int = 1  # searches that keep apart from each other
    diversity: float = 0.0  # how much: cost of a token that an earlier group took
    show_beams: bool = False  # print the tree of the search
    beams_html: Path | None = None  # write the tree as a page

    def __post_init__(self):
        at_least_1(self, "num_beams", "num_return")
        if self.num_return > self.num_beams:
            raise Error(f"--num-return is {self.num_return}, of {self.num_beams} beams: give more --num-beams")
        if self.num_beams == 1 and (self.show_beams or self.beams_html):
            raise Error("--show-beams and --beams-html draw a beam search: give --num-beams, such as 4")


@dataclass(frozen=True)
class Drafting:
    """Speculative decoding: a small model proposes, MODEL disposes; the text is as MODEL's own."""

    draft: Path | None = None  # directory of the small model, with the tokenizer of MODEL
    draft_tokens: int = 4  # so many are proposed at a time

    def __post_init__(self):
        at_least_1(self, "draft_tokens")

    def check(self, choosing: Choosing, steering: Steering, beams: Beams, output: "Output"):
        """`Error` for what a draft cannot help with."""
        others = {"--num-beams": beams.num_beams > 1, "--best-of": choosing.best_of is not None}
        others |= {"--slide": steering.slide, "--score": output.score}
        for name in (name for name, given in others.items() if given and self.draft):
            raise Error(f"--draft helps to write one text that fits the context: leave out --draft or {name}")


@dataclass(frozen=True)
class Output:
    """Output and machine."""

    echo: bool = True  # print the prompt before its continuation (never with --interactive)
    json: bool = False  # a JSON object a line for scripts: prompt, text, tokens, how it ended, scores
    score: bool = False  # write nothing: how likely is each prompt? log-probability and perplexity
    batch_size: int = 8  # texts written at once where they need not appear as they are made (--json)
    weights: Literal["float32", "int8"] = "float32"  # int8: faster on a CPU, a little less exact
    threads: int | None = None  # CPU threads; all cores if not given

    def __post_init__(self):
        at_least_1(self, "threads", "batch_size")


@dataclass(frozen=True)
class Serving:
    """A server: OpenAI's API for programs, and a page to look at (docs/serving.md)."""

    serve: bool = False  # answer over HTTP until Ctrl-C; MODEL may be a directory of runs, to watch them
    host: str = "127.0.0.1"  # address to listen at; any but this machine's own lets others in
    port: int = 8000  # 0 takes one that is free
    token_file: Path | None = None  # clients must know what stands in this file (or in the variable MINIGPT_TOKEN)
    host_name: tuple[str, ...] = ()  # a name by which clients may ask for it; repeat for several
    max_rows: int = 16  # texts written at once
    queue: int = 64  # texts that may wait for that; who asks for more is told to come again
    quiet: bool = False  # do not print a line for each request

    def __post_init__(self):
        at_least_1(self, "max_rows")
        if not 0 <= self.port < 1 << 16 or self.queue < 0:
            raise Error(f"--port is {self.port}, --queue is {self.queue}: give a port below 65536, and at least 0")
        if not self.serve and (name := _changed(self)):
            raise Error(f"--{name} is of a server: give --serve")

    def check(self, source: Input, output: "Output", *others):
        """`Error` for what each request says for itself, or what a server does not do."""
        kept = {"model", "base", "adapter", "endless", "weights", "threads"}
        for record in (source, output, *others):
            if self.serve and (name := _changed(record, kept)):
                raise Error(f"--serve answers requests, which say all for themselves: leave out --{name}")


def _changed(record, kept=frozenset()) -> str | None:
    """The first option of a record that was given, and is not among the `kept`."""
    for each in fields(record):
        if each.name not in kept and getattr(record, each.name) != each.default:
            return each.name.replace("_", "-")
    return None


def at_least_1(record, *names: str):
    for name in names:
        if (value := getattr(record, name)) is not None and value < 1:
            raise Error(f"--{name.replace('_', '-')} is {value}: give a whole number of at least 1")
