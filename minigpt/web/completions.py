"""POST /v1/completions: a prompt is the beginning of a document, and the model goes on with it.

A prompt is a text, a list of texts, a list of token ids, or a list of such lists. Before a text stands the end-of-text
token, as in training, unless "add_eot" is false; ids are read as they are. Text i of prompt p is drawn from
(seed, p n + i): for n = 1 these are the texts of `generate(model, prompts, seed=seed)`.
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minigpt.generation.engine import Ask
from minigpt.web.answering import respond
from minigpt.web.asking import MOST_TOP, Asking, read_all, read_asking
from minigpt.web.echo import echo_of
from minigpt.web.fields import Anything, Flag, Number, kind_of, read_object
from minigpt.web.refusals import Refusal
from minigpt.web.shapes import Completion
from minigpt.web.studio import Studio
from minigpt.web.telling import texts_of

OWN = {
    "prompt": Anything(),
    "echo": Flag(),
    "logprobs": Number(f"a whole number from 0 to {MOST_TOP}", 0, MOST_TOP, whole=True),
    "add_eot": Flag(),
}
REFUSED = {
    "suffix": "the model writes on from a prompt, and does not fill a gap",
    "best_of": "ask for n texts with logprobs, and choose the best",
}
PROMPT = "expected a text, a list of texts, a list of token ids, or a list of such lists"


def routes(studio: Studio) -> list[Route]:
    async def create(request: Request) -> Response:
        values = read_all(await read_object(request, studio.limits), OWN, REFUSED)
        studio.attached(values.get("model", studio.name))
        top = values.get("logprobs", 0 if values.get("details") else None)
        asking = read_asking(values, studio, top)
        prompts = await read_prompts(values, studio, asking)
        each = [ids for ids in prompts for _ in range(asking.n)]
        echoes, writes = (), values.get("max_tokens") != 0
        if values.get("echo"):
            found = [await echo_of(studio, asking, ids, writes) for ids in prompts]
            echoes = tuple(echo for echo in found for _ in range(asking.n))
        elif not writes:
            raise Refusal(400, "max_tokens is 0: give at least 1, or echo for the prompt alone", "max_tokens")
        told = tuple(texts_of(studio.tokenizer, ids, studio.tokenizer.eot) for ids in each) if asking.details else ()
        shape = Completion(asking, studio.tokenizer, len(each), echoes=echoes, prompts=told)
        asks = make_asks(studio, asking, each) if writes else []
        return await respond(request, studio, shape, asks, read=sum(map(len, prompts)))

    return [Route("/v1/completions", create, methods=["POST"])]


def make_asks(studio: Studio, asking: Asking, each: list[list[int]]) -> list[Ask]:
    adapter = asking.model if asking.model in studio.adapters else None
    return [Ask(ids, asking.sampler, asking.seed, row, adapter, asking.top) for row, ids in enumerate(each)]


async def read_prompts(values: dict[str, Any], studio: Studio, asking: Asking) -> list[list[int]]:
    """The ids of all prompts; `Refusal` for what is none, has too many tokens or texts."""
    prompts = _several(values.get("prompt", ""))
    texts, most = len(prompts) * asking.n, min(studio.limits.choices, studio.worker.room)
    if texts > most:
        raise Refusal(
            400, f"{len(prompts)} prompts with n = {asking.n} are {texts} texts: ask for {most} at most", "prompt"
        )
    eot = [studio.tokenizer.eot] if values.get("add_eot", True) else []
    room = await studio.room(asking.model)
    return [await _ids(prompt, studio, eot, room) for prompt in prompts]


async def read_ids(prompt: Any, studio: Studio, model: str, name: str = "prompt") -> list[int]:
    """The ids of one prompt, a text or a list of ids, which `model` is to read; `name` is that of its field."""
    if not (isinstance(prompt, str) or (isinstance(prompt, list) and all(_is_id(each) for each in prompt))):
        raise Refusal(400, f"{name} is {kind_of(prompt)}: expected a text, or a list of token ids", name)
    return await _ids(prompt, studio, [studio.tokenizer.eot], await studio.room(model), name)


def _several(prompt: Any) -> list:
    """A list of prompts, each a text or a list of ids."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list):
        raise Refusal(400, f"prompt is {kind_of(prompt)}: {PROMPT}", "prompt")
    if not prompt:
        raise Refusal(400, f"prompt is an empty list: {PROMPT}", "prompt")
    if all(_is_id(each) for each in prompt):
        return [prompt]
    for each in prompt:
        if not (isinstance(each, str) or (isinstance(each, list) and each and all(_is_id(one) for one in each))):
            raise Refusal(400, f"prompt holds {kind_of(each)} in a list of several: {PROMPT}", "prompt")
    return prompt


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


async def _ids(prompt: str | list[int], studio: Studio, eot: list[int], room: int, name: str = "prompt") -> list[int]:
    vocabulary = studio.tokenizer.vocab_size
    ids = [*eot, *await encode(studio, prompt)] if isinstance(prompt, str) else prompt
    for token in () if isinstance(prompt, str) else ids:
        if not 0 <= token < vocabulary:
            raise Refusal(
                400, f"{name} holds the token {str(token):.40}: expected ids from 0 to {vocabulary - 1}", name
            )
    if not ids:
        raise Refusal(400, f"{name} is empty: give a text, or leave add_eot true to begin a document", name)
    if len(ids) > room:
        message = f"{name} has {len(ids):,} tokens, the model reads {room:,} at most: shorten it"
        raise Refusal(400, message, name, "context_length_exceeded")
    return ids


async def encode(studio: Studio, text: str) -> list[int]:
    """The ids of a text; a long one does not keep the other clients waiting."""
    if len(text) < 2000:
        return studio.tokenizer.encode(text)
    return await asyncio.to_thread(studio.tokenizer.encode, text)
