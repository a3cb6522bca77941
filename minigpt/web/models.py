"""The models a client may ask for: the base, and each adapter as a model of its own."""

import time

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from minigpt.web.studio import Studio


def routes(studio: Studio) -> list[Route]:
    began = int(time.time())

    def describe(model: str) -> dict:
        studio.attached(model)
        more = {"parent": studio.name} if model in studio.adapters else {}
        return {"id": model, "object": "model", "created": began, "owned_by": "minigpt"} | more

    async def listed(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [describe(model) for model in studio.models]})

    async def one(request: Request) -> JSONResponse:
        return JSONResponse(describe(request.path_params["model"]))

    return [Route("/v1/models", listed), Route("/v1/models/{model:path}", one)]
