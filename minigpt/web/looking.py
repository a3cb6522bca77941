"""/api: what the page shows of the inside of the model. The mathematics is in minigpt/insight.

GET  /api/about                        what is served
POST /api/tokens      text          -> how it is cut into tokens
POST /api/next        prompt, top   -> the likeliest next tokens
POST /api/beams       prompt, ...   -> a beam search, step by step, with what was pruned
POST /api/attention   text, layer   -> where each token looks, by every head of a layer
POST /api/dial        prompt, ...   -> the next token at several strengths of a LoRA adapter
GET  /api/spectrum    ?adapter=     -> what a LoRA adapter has learned, layer by layer
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation import beam_search
from minigpt.generation.search import Beam
from minigpt.generation.tree import Trace
from minigpt.insight.attention import attention_weights
from minigpt.insight.chances import log_chances, next_tokens
from minigpt.insight.dial import chances_at, compare
from minigpt.insight.growth import growth, spot_of
from minigpt.model import GPT
from minigpt.web import describing
from minigpt.web.completions import encode, read_ids
from minigpt.web.fields import Anything, Field, Number, Text, kind_of, read_fields, read_object
from minigpt.web.glances import Glances
from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio
from minigpt.web.telling import likely, texts_after, texts_of

SHOWN = 128  # tokens whose attention is shown: a matrix a head
LONGEST = 4096  # tokens that are looked at: where no context ends a text, this does
SCALES = tuple(round(0.1 * step, 1) for step in range(21))
MODEL = {"model": Text(), "prompt": Anything()}
TOP = {"top": Number("a whole number from 1 to 50", 1, 50, whole=True)}
SEARCH = {
    "num_beams": Number("a whole number from 1 to 12", 1, 12, whole=True),
    "max_tokens": Number("a whole number from 1 to 64", 1, 64, whole=True),
    "length_penalty": Number("a number from -5 to 5", -5, 5),
}


def routes(studio: Studio) -> list[Route]:
    async def about(request: Request) -> Response:
        return JSONResponse(describing.about(studio))

    if studio.model is None:
        return [Route("/api/about", about)]
    glances, last = Glances(studio), studio.model.config.n_layers - 1
    layer = {"layer": Number(f"a layer, from 0 to {last}", 0, last, whole=True)}

    async def spectrum(request: Request) -> Response:
        return await glances.answer(request, _spectrum(glances, request.query_params.get("adapter", "")))

    posts = {
        "tokens": _post(glances, {"text": Text(), "model": Text()}, _tokens),
        "next": _post(glances, MODEL | TOP, _next),
        "beams": _post(glances, MODEL | SEARCH, _beams),
        "attention": _post(glances, {"model": Text(), "text": Anything()} | layer, _attention),
        "dial": _post(glances, {"adapter": Text(), "prompt": Anything(), "scales": Anything()} | TOP, _dial),
    }
    made = [Route(f"/api/{name}", endpoint, methods=["POST"]) for name, endpoint in posts.items()]
    return [Route("/api/about", about), Route("/api/spectrum", spectrum), *made]


def _post(glances: Glances, fields: dict[str, Field], answer: Callable):
    async def endpoint(request: Request) -> Response:
        values = read_fields(await read_object(request, glances.studio.limits), fields)
        return await glances.answer(request, answer(glances, values))

    return endpoint


async def _tokens(glances: Glances, values: dict) -> dict:
    studio = glances.studio
    studio.attached(values.get("model", studio.name))
    ids = await encode(studio, values.get("text", ""))
    if len(ids) > LONGEST:
        raise Refusal(400, f"text has {len(ids):,} tokens: {LONGEST:,} are shown at most: shorten it", "text")
    return {"tokens": _told(studio, ids)}


async def _next(glances: Glances, values: dict) -> dict:
    model, ids = await _asked(glances.studio, values)
    found = await glances.read(model, ids, next_tokens, values.get("top", 20))
    names = _named(glances.studio, ids, [token for token, _ in found])
    return {"tokens": [each | {"probability": round(p, 6)} for each, (_, p) in zip(names, found, strict=True)]}


async def _beams(glances: Glances, values: dict) -> dict:
    studio = glances.studio
    model, ids = await _asked(studio, values)
    options = {"num_beams": values.get("num_beams", 4), "max_new_tokens": values.get("max_tokens", 24)}
    options |= {"length_penalty": float(values.get("length_penalty", 1.0)), "eos": studio.tokenizer.eot}
    found, trace = await glances.read(model, ids, _search, options)
    return {"prompt": _told(studio, ids)} | await asyncio.to_thread(_grown, studio, ids, found, trace)


def _search(model: GPT, ids: list[int], options: dict) -> tuple[list[Beam], Trace]:
    traces = []
    return beam_search(model, [ids], traces=traces, **options)[0], traces[0]


def _grown(studio: Studio, ids: list[int], found: list[Beam], trace: Trace) -> dict:
    def texts(run: list[int]) -> list[str]:
        return texts_after(studio.tokenizer, ids, run, studio.tokenizer.eot)

    best = [{"text": "".join(texts(beam.tokens)), "score": beam.score, "spot": spot_of(trace, beam)} for beam in found]
    steps = [[_rounded(asdict(candidate)) for candidate in step] for step in growth(trace, texts)]
    for candidate in (each for step in steps for each in step):
        candidate["id"] = candidate.pop("token")
    return {"steps": steps, "best": [_rounded(each) for each in best]}


async def _attention(glances: Glances, values: dict) -> dict:
    model, ids = await _asked(glances.studio, values, "text")
    if len(ids) > SHOWN:
        raise Refusal(400, f"text has {len(ids):,} tokens: at most {SHOWN} are shown: shorten it", "text")
    layer = values.get("layer", 0)
    weights = await glances.read(model, ids, _weights, layer)
    told = {"tokens": _told(glances.studio, ids), "layer": layer, "front": weights.shape[-1] - len(ids)}
    return told | {"weights": await asyncio.to_thread(_thousandths, weights[:, -len(ids) :])}


def _weights(model: GPT, ids: list[int], layer: int) -> Tensor:
    weights = attention_weights(model, torch.tensor([ids], device=next(model.parameters()).device))[layer, 0]
    if not weights.isfinite().all():
        raise Error(f"layer {layer} computes NaN: its weights are damaged, or its training diverged")
    return weights


def _thousandths(weights: Tensor) -> list:
    return [[[round(weight, 3) for weight in row] for row in head] for head in weights.tolist()]


async def _dial(glances: Glances, values: dict) -> dict:
    studio = glances.studio
    adapter, scales = _lora_adapter(studio, values.get("adapter", "")), _scales(values.get("scales", list(SCALES)))
    _, ids = await _asked(studio, values | {"model": adapter})
    base = await glances.read(studio.name, ids, log_chances)
    rows = [await glances.read(adapter, ids, _at, studio, adapter, scale) for scale in scales]
    found = compare(base, scales, rows, values.get("top", 12))
    columns = [[round(p, 5) for p in column] for column in found.probabilities.T.tolist()]
    names = _named(studio, ids, found.tokens)
    told = {name: describing.of_adapter(studio, adapter)[name] for name in ("alpha", "rank")} | {"scales": scales}
    told |= {name: [round(x, 5) for x in getattr(found, name).tolist()] for name in ("rest", "kl")}
    return told | {"tokens": [each | {"probabilities": p} for each, p in zip(names, columns, strict=True)]}


def _at(model: GPT, ids: list[int], studio: Studio, adapter: str, scale: float) -> Tensor:
    return chances_at(model, studio.lora, studio.attached(adapter), ids, scale)


async def _spectrum(glances: Glances, adapter: str) -> dict:
    adapter = _lora_adapter(glances.studio, adapter)
    return {"layers": await glances.run(describing.spectra, glances.studio, adapter)}


async def _asked(studio: Studio, values: dict[str, Any], name: str = "prompt") -> tuple[str, list[int]]:
    """The model that is asked, and the ids that it reads."""
    model = values.get("model", studio.name)
    studio.attached(model)
    ids = await read_ids(values.get(name, ""), studio, model, name)
    if len(ids) > LONGEST:
        raise Refusal(400, f"{name} has {len(ids):,} tokens: {LONGEST:,} are looked at at most: shorten it", name)
    return model, ids


def _lora_adapter(studio: Studio, adapter: str) -> str:
    if not adapter:
        raise Refusal(400, "adapter is missing: give the name of a LoRA adapter", "adapter")
    attached = studio.attached(adapter)
    if studio.lora is None or attached not in studio.lora.names(studio.model):
        raise Refusal(400, f"{adapter!r} is no LoRA adapter: its strength cannot be turned", "adapter")
    return adapter


def _scales(value: Any) -> tuple[float, ...]:
    fits = isinstance(value, list) and 1 <= len(value) <= 41
    if not fits or not all(type(x) in (int, float) and 0 <= x <= 4 for x in value):
        message = f"scales is {kind_of(value)}: expected a list of up to 41 numbers from 0 to 4"
        raise Refusal(400, message, "scales")
    return tuple(map(float, value))


def _told(studio: Studio, ids: list[int]) -> list[dict]:
    """The tokens of a text, each with what became certain with it; the end of text has none."""
    told = texts_of(studio.tokenizer, ids, studio.tokenizer.eot)
    return [{"id": each.token, "text": each.text} for each in told]


def _named(studio: Studio, ids: list[int], tokens: Sequence[int]) -> list[dict]:
    """Tokens that may come after a text, as they would be read there."""
    characters = studio.tokenizer.stream()
    for token in ids:
        if token != studio.tokenizer.eot:
            characters.push(token)
    named = likely(studio.tokenizer, characters, [(token, 0.0) for token in tokens])
    return [{"id": each.token, "text": each.text} for each in named]


def _rounded(values: dict) -> dict:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
