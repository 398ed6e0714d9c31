"""The page: its files, its feed, and the switch that shows what a death of a stage changes."""

import hashlib
import os
import signal
from importlib import resources
from typing import NamedTuple
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.gateway import sse
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.server import Gateway

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

FILES = (
    *("index.html", "style.css", "pipeline.css", "gallery.css", "icon.svg"),
    *("main.js", "api.js", "feed.js", "store.js", "form.js", "chips.js", "gallery.js", "card.js", "viewer.js"),
    *("lanes.js", "lane_card.js", "png.js", "text.js"),
)
"""All files that are served; no other name is ever looked for."""

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; object-src 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every file: the page may do what it needs to, and no script or style from elsewhere runs."""

_KILLABLE = ("idle", "busy")


class _File(NamedTuple):
    content: bytes
    media_type: str
    tag: str


def routes(gateway: Gateway) -> APIRouter:
    """All routes of the page."""
    router = APIRouter(tags=["Page"])
    files = {name: _read(name) for name in FILES}

    def serve(name: str, request: Request) -> Response:
        file = files.get(name)
        if file is None:
            raise HttpError(404, "the page has no such file", "not_found")
        headers = HEADERS | {"ETag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @router.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """The page itself."""
        return serve("index.html", request)

    @router.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        """A file that the page is made of."""
        return serve(name, request)

    @router.get("/v1/feed", response_class=Response)
    async def feed(owner: str | None = Query(None, min_length=1, max_length=128)) -> Response:
        """What the page shows, as server-sent events: the pipeline, and the jobs of `owner` in full."""
        return sse.stream(gateway.feed.events(owner), {})

    @router.post("/v1/playground/kill/{stage}", status_code=202)
    async def kill(stage: str, request: Request) -> JSONResponse:
        """Kill a stage's process, as a fault would; its work goes on in the next one."""
        if not gateway.settings.playground:
            raise HttpError(403, "stages may be killed only with listen.playground = true", "forbidden")
        if not _same_origin(request):
            raise HttpError(403, "only the server's own page may kill a stage", "forbidden")
        status = await gateway.client.status()  # not the one of a second ago: its process ids may be others' by now
        found = next((each for each in status.stages if each.name == stage), None)
        if found is None:
            raise HttpError(404, f"there is no stage {stage[:40]!r}", "not_found")
        if found.pid is None or found.state not in _KILLABLE:
            raise HttpError(409, f"{found.name} is {found.state}", "conflict")
        try:
            os.kill(found.pid, signal.SIGKILL)
        except ProcessLookupError:
            raise HttpError(409, f"{found.name} has gone by itself", "conflict") from None
        gateway.feed.watch_closely()
        return JSONResponse({"stage": found.name, "pid": found.pid}, 202)

    return router


def _read(name: str) -> _File:
    content = (resources.files("orchestrator.gateway") / "page" / name).read_bytes()
    return _File(content, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _same_origin(request: Request) -> bool:
    """Whether a browser says that a page of this very server asks; origins that may use the API are not enough."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "same-origin"
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
