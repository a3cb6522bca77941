"""/api: what the page shows of the inside of the model. The mathematics is in minigpt/insight.

GET  /api/about                        what is served
POST /api/tokens      text          -> how it is cut into tokens
POST /api/next        prompt, top   -> the likeliest next tokens
POST /api/beams       prompt, ...   -> a beam search, step by step, with what was pruned
POST /api/attention   text, layer   -> where each token looks, by every head of a layer
POST /api/dial        prompt, ...   -> the next token at several strengths of a LoRA adapter
GET  /api/spectrum    ?adapter=     -> what a LoRA adapter has learned, layer by layer
"""

from dataclasses import asdict
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from minigpt.generation import beam_search
from minigpt.insight.attention import attention_weights
from minigpt.insight.chances import next_tokens
from minigpt.insight.dial import dial
from minigpt.insight.growth import growth, spot_of
from minigpt.tuning import mixed
from minigpt.web import describing
from minigpt.web.completions import read_ids
from minigpt.web.fields import Anything, Number, Text, kind_of, read_fields, read_object
from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio
from minigpt.web.telling import likely, texts_of

LONGEST = 128  # tokens whose attention is shown: a matrix a head
SCALES = tuple(round(0.1 * step, 1) for step in range(21))
MODEL = {"model": Text(), "prompt": Anything()}
TOP = Number("a whole number from 1 to 50", 1, 50, whole=True)


def routes(studio: Studio) -> list[Route]:
    if studio.model is None:
        return [Route("/api/about", _about(studio))]
    posts = {"tokens": _tokens, "next": _next, "beams": _beams, "attention": _attention, "dial": _dial}
    made = [Route(f"/api/{name}", make(studio), methods=["POST"]) for name, make in posts.items()]
    return [Route("/api/about", _about(studio)), Route("/api/spectrum", _spectrum(studio)), *made]


def _about(studio: Studio):
    async def about(request: Request) -> JSONResponse:
        return JSONResponse(describing.about(studio))

    return about


def _tokens(studio: Studio):
    async def tokens(request: Request) -> JSONResponse:
        values = read_fields(await read_object(request, studio.limits), {"text": Text(), "model": Text()})
        ids = await read_ids(values.get("text", ""), studio, values.get("model", studio.name), add_eot=False)
        return JSONResponse({"tokens": _told(studio, ids)})

    return tokens


def _next(studio: Studio):
    async def next_token(request: Request) -> JSONResponse:
        values = read_fields(await read_object(request, studio.limits), MODEL | {"top": TOP})
        model, ids = await _asked(values, studio)
        found = await studio.worker.run(_beside, studio, model, ids, next_tokens, values.get("top", 20))
        return JSONResponse({"tokens": _alternatives(studio, ids, found)})

    return next_token


def _beams(studio: Studio):
    own = {
        "num_beams": Number("a whole number from 1 to 12", 1, 12, whole=True),
        "max_tokens": Number("a whole number from 1 to 64", 1, 64, whole=True),
        "length_penalty": Number("a number from -5 to 5", -5, 5),
    }

    async def beams(request: Request) -> JSONResponse:
        values = read_fields(await read_object(request, studio.limits), MODEL | own)
        model, ids = await _asked(values, studio)
        options = {"num_beams": values.get("num_beams", 4), "max_new_tokens": values.get("max_tokens", 24)}
        options |= {"length_penalty": float(values.get("length_penalty", 1.0)), "eos": studio.tokenizer.eot}
        found, trace = await studio.worker.run(_beside, studio, model, ids, _search, options)
        end, decode = studio.tokenizer.eot, studio.tokenizer.decode
        steps = growth(trace, lambda tokens: decode([token for token in tokens if token != end]))
        best = [
            {"text": decode([t for t in beam.tokens if t != end]), "score": beam.score, "spot": spot_of(trace, beam)}
            for beam in found
        ]
        nodes = [[_rounded(asdict(each)) for each in step] for step in steps]
        return JSONResponse({"prompt": _told(studio, ids), "steps": nodes, "best": [_rounded(each) for each in best]})

    return beams


def _search(model, ids: list[int], options: dict):
    traces = []
    return beam_search(model, [ids], traces=traces, **options)[0], traces[0]


def _attention(studio: Studio):
    layers = 0 if studio.model is None else studio.model.config.n_layers
    own = {"layer": Number(f"a layer, from 0 to {layers - 1}", 0, layers - 1, whole=True), "text": Anything()}

    async def attention(request: Request) -> JSONResponse:
        values = read_fields(await read_object(request, studio.limits), {"model": Text()} | own)
        values["prompt"] = values.pop("text", "")
        model, ids = await _asked(values, studio)
        if len(ids) > LONGEST:
            raise Refusal(400, f"text has {len(ids):,} tokens: at most {LONGEST} are shown: shorten it", "text")
        layer = values.get("layer", 0)
        weights = await studio.worker.run(_beside, studio, model, ids, _weights, layer)
        front = weights.shape[-1] - len(ids)
        rows = [[[round(w, 3) for w in row] for row in head] for head in weights[:, -len(ids) :].tolist()]
        return JSONResponse({"tokens": _told(studio, ids), "layer": layer, "front": front, "weights": rows})

    return attention


def _weights(model, ids: list[int], layer: int) -> torch.Tensor:
    return attention_weights(model, torch.tensor([ids]))[layer, 0]


def _dial(studio: Studio):
    own = {"adapter": Text(), "prompt": Anything(), "scales": Anything(), "top": TOP}

    async def turn(request: Request) -> JSONResponse:
        values = read_fields(await read_object(request, studio.limits), own)
        adapter = _lora_adapter(studio, values.get("adapter", ""))
        values["model"], scales = adapter, _scales(values.get("scales", list(SCALES)))
        _, ids = await _asked(values, studio)
        more = studio.lora, studio.attached(adapter), scales, values.get("top", 12)
        found = await studio.worker.run(_beside, studio, adapter, ids, _turn, *more)
        shown = [(token, 0.0) for token in found.tokens]
        columns = [[round(p, 5) for p in column] for column in found.probabilities.T.tolist()]
        named = _alternatives(studio, ids, shown)
        tokens = [
            {"id": each["id"], "text": each["text"], "probabilities": p} for each, p in zip(named, columns, strict=True)
        ]
        told = {"scales": found.scales, "tokens": tokens}
        told |= {name: [round(x, 5) for x in getattr(found, name).tolist()] for name in ("rest", "kl")}
        return JSONResponse({name: describing.of_adapter(studio, adapter)[name] for name in ("alpha", "rank")} | told)

    return turn


def _turn(model, ids: list[int], lora, attached: str, scales: tuple[float, ...], top: int):
    return dial(model, lora, attached, ids, scales, top)


def _spectrum(studio: Studio):
    async def spectrum(request: Request) -> JSONResponse:
        adapter = _lora_adapter(studio, request.query_params.get("adapter", ""))
        return JSONResponse({"layers": await studio.worker.run(describing.spectra, studio, adapter)})

    return spectrum


def _beside(studio: Studio, model: str, ids: list[int], function, *args) -> Any:
    """function(model, ids, ...) while the model has the adapter of that name, whose virtual tokens stand in front."""
    attached = studio.attached(model)
    (whole,) = mixed.begin(studio.model, [attached], [ids])
    with studio.beside(attached):
        return function(studio.model, whole, *args)


async def _asked(values: dict[str, Any], studio: Studio) -> tuple[str, list[int]]:
    """The model that is asked, and the ids that it reads."""
    model = values.get("model", studio.name)
    studio.attached(model)
    return model, await read_ids(values.get("prompt", ""), studio, model)


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
    """The tokens of a text, each with what became certain with it; the end of text is named."""
    told = texts_of(studio.tokenizer, ids, studio.tokenizer.eot)
    return [{"id": each.token, "text": each.text} for each in told]


def _alternatives(studio: Studio, ids: list[int], found: list[tuple[int, float]]) -> list[dict]:
    """Tokens that may come after a text, as they would be read there."""
    characters = studio.tokenizer.stream()
    for token in ids:
        if token != studio.tokenizer.eot:
            characters.push(token)
    named = likely(studio.tokenizer, characters, found)
    return [{"id": each.token, "text": each.text, "probability": round(each.logprob, 6)} for each in named]


def _rounded(values: dict) -> dict:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
