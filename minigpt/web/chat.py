"""POST /v1/chat/completions: messages in the layout that dialogues are trained in (corpus/talk.py), and the answer.

    [{"role": "system", ...}, {"role": "user", ...}, {"role": "assistant", ...}, {"role": "user", ...}]
    E system E user E assistant E user E   ->  answer E

Who speaks is not written, the sides alternate: two messages of one side in a row are one utterance of two lines. When
the context has no room for the answer, the oldest utterances go, whole, as in a conversation of sample.py --chat.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minigpt.chat import first_seen
from minigpt.corpus.talk import Layout
from minigpt.errors import Error
from minigpt.web.answering import respond
from minigpt.web.asking import MOST_TOP, WHOLE, Asking, read_all, read_asking
from minigpt.web.completions import encode, make_asks
from minigpt.web.fields import Anything, Flag, Number, kind_of, read_object
from minigpt.web.refusals import Refusal
from minigpt.web.shapes import Answer
from minigpt.web.studio import Studio

OWN = {
    "messages": Anything(),
    "logprobs": Flag(),
    "top_logprobs": Number(f"a whole number from 0 to {MOST_TOP}", 0, MOST_TOP, whole=True),
    "max_completion_tokens": Number("a whole number of at least 1", 1, WHOLE, whole=True),
    "max_tokens": Number("a whole number of at least 1", 1, WHOLE, whole=True),
}
PLAIN = "the model answers in plain text"
REFUSED = {
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call"), "the model calls no functions"),
    **dict.fromkeys(("response_format", "modalities", "audio", "verbosity"), PLAIN),
    **dict.fromkeys(("reasoning_effort", "prediction", "web_search_options"), "the model has nothing of that kind"),
}
SIDES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def routes(studio: Studio) -> list[Route]:
    async def create(request: Request) -> Response:
        values = read_all(await read_object(request, studio.limits), OWN, REFUSED)
        studio.attached(values.get("model", studio.name))
        if "max_completion_tokens" in values:
            values["max_tokens"] = values["max_completion_tokens"]
        asking = read_asking(values, studio, _top(values))
        system, said = read_messages(values.get("messages"))
        ids = await prompt_of(studio, asking, system, said)
        shape = Answer(asking, studio.tokenizer, asking.n)
        return await respond(request, studio, shape, make_asks(studio, asking, [ids] * asking.n), read=len(ids))

    return [Route("/v1/chat/completions", create, methods=["POST"])]


def _top(values: dict[str, Any]) -> int | None:
    """How many alternatives to tell; None for no log-probabilities."""
    if values.get("logprobs"):
        return values.get("top_logprobs", 0)
    if "top_logprobs" in values:
        raise Refusal(400, "top_logprobs are of logprobs: give logprobs as well", "top_logprobs")
    return 0 if values.get("details") else None


def read_messages(messages: Any) -> tuple[str, list[str]]:
    """What the system says, and what the two sides said in turn, the user last.

    >>> read_messages([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}])
    ('', ['a\\nb'])
    """
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else kind_of(messages)
        raise Refusal(400, f"messages is {found}: expected a list of messages, the user's last", "messages")
    read = [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]
    turns = [(side, "\n".join(text for _, text in each)) for side, each in groupby(read, key=lambda one: one[0])]
    system = turns.pop(0)[1] if turns[0][0] == "system" else ""
    if any(side == "system" for side, _ in turns):
        raise Refusal(
            400, "messages has a system message after others: the system speaks first, or not at all", "messages"
        )
    if not turns or turns[0][0] != "user" or turns[-1][0] != "user":
        raise Refusal(400, "messages begins or ends with the assistant: the user speaks first and last", "messages")
    return system, [text for _, text in turns]


def _message(message: Any, where: str) -> tuple[str, str]:
    """(side, text)"""
    if not isinstance(message, dict):
        raise Refusal(400, f"{where} is {kind_of(message)}: expected an object with role and content", "messages")
    role = message.get("role")
    if not isinstance(role, str) or role not in SIDES:
        raise Refusal(400, f"{where}.role is {kind_of(role)}: expected system, user or assistant", "messages")
    if any(message.get(name) for name in ("tool_calls", "function_call", "audio")):
        raise Refusal(400, f"{where} calls functions or holds sound, which the model does not know", "messages")
    text = _content(message.get("content"), f"{where}.content")
    if not text.strip():
        raise Refusal(400, f"{where}.content is empty: say something", "messages")
    return SIDES[role], text


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Refusal(400, f"{where} is {kind_of(content)}: expected a text", "messages")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refusal(400, f"{where} holds something else than text: the model reads only text", "messages")
    return "\n".join(part["text"] for part in content)


async def prompt_of(studio: Studio, asking: Asking, system: str, said: Sequence[str]) -> list[int]:
    """The ids of a conversation, as much of it as fits."""
    layout, room = Layout.of(studio.tokenizer), await studio.room(asking.model)
    told = [await encode(studio, system)] if system else []
    utterances = [await encode(studio, text) for text in said]
    head = len(layout.join(told))
    try:
        lengths, new = [len(each) + 1 for each in utterances], asking.sampler.max_new_tokens
        first = first_seen(lengths, head, room, new, whose="the system's" if system else "")
    except Error as problem:
        raise Refusal(400, f"messages: {problem}", "messages", "context_length_exceeded") from None
    return layout.join(told + utterances[first:])
