"""The routes, each list from the file that answers them, behind one guard.

GET   /                     the page            GET   /healthz, /metrics         for whoever watches
GET   /v1/models            models.py           POST  /v1/completions            completions.py
POST  /v1/chat/completions  chat.py             /api/...                         looking.py
/runs, /api/runs            runs.py
"""

from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from minigpt.errors import Error
from minigpt.web.guard import Guard
from minigpt.web.refusals import Refusal, mistake
from minigpt.web.studio import Studio

PAGE = Path(__file__).with_name("page")
ANSWERING = ("models", "completions", "chat", "looking", "runs")  # files with a function routes(studio)


def make_app(studio: Studio, token: str | None = None, names: tuple[str, ...] = (), quiet: bool = True) -> Guard:
    """The ASGI application of a studio; it starts and stops the worker."""
    routes = _own_routes(studio)
    if studio.worker.engine is not None:
        studio.meters.watch(studio.worker.engine)
    for name in ANSWERING:
        if find_spec(f"minigpt.web.{name}"):
            routes += import_module(f"minigpt.web.{name}").routes(studio)

    @asynccontextmanager
    async def lifespan(_):
        studio.worker.start()
        yield
        await studio.worker.stop()

    errors = *((studio.lora.Error,) if studio.lora else ()), Error
    handlers = dict.fromkeys(errors, _bad_request) | {Refusal: _refused, HTTPException: _no_route, Exception: _mistake}
    return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), studio, token, names, quiet)


def _own_routes(studio: Studio) -> list:
    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "closing" if studio.closing else "ok"}, 503 if studio.closing else 200)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(studio.meters.registry), media_type=CONTENT_TYPE_LATEST)

    async def page(request: Request) -> Response:
        if studio.model is None:
            return RedirectResponse("/runs")
        if not (PAGE / "index.html").is_file():
            raise Refusal(404, "there is no page here: this server answers programs, at /v1")
        return FileResponse(PAGE / "index.html")

    routes = [Route("/healthz", healthz), Route("/metrics", metrics), Route("/", page)]
    return [*routes, Mount("/static", StaticFiles(directory=PAGE), name="static")] if PAGE.is_dir() else routes


async def _refused(request: Request, refusal: Refusal) -> Response:
    return refusal.response()


async def _bad_request(request: Request, problem: Exception) -> Response:
    return Refusal(400, str(problem)).response()


async def _no_route(request: Request, problem: HTTPException) -> Response:
    where = f"{request.method} {request.url.path[:120]}"
    sentences = {404: f"there is nothing at {where}", 405: f"{where} is not possible: use another method"}
    message = sentences.get(problem.status_code, problem.detail)
    return Refusal(problem.status_code, message, headers=problem.headers).response()


async def _mistake(request: Request, problem: Exception) -> Response:
    return mistake(problem).response()
