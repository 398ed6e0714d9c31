"""The application: all routes behind the guard, and one shape of error a world."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from orchestrator.gateway import errors
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.guard import Guard
from orchestrator.gateway.routes import a1111, native, openai, page, watch
from orchestrator.gateway.server import Gateway
from stages.core.errors import TriptychError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from starlette.applications import Starlette

_DESCRIPTION = (
    "Stable Diffusion from CPUs: OpenAI's image API, AUTOMATIC1111's, jobs of Triptych's own, health and metrics."
)


def application(gateway: Gateway) -> ASGIApp:
    """The ASGI application of a gateway."""
    tools = _tools(gateway)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with gateway.running(), AsyncExitStack() as stack:
            if tools is not None:
                await stack.enter_async_context(tools[0].session_manager.run())
            yield

    app = FastAPI(title="Triptych", description=_DESCRIPTION, version="1", lifespan=lifespan)
    app.add_exception_handler(HttpError, _http_error)
    app.add_exception_handler(TriptychError, _triptych_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _starlette_error)
    app.add_exception_handler(Exception, _unforeseen)
    for world in (openai, a1111, native, page, watch):
        app.include_router(world.routes(gateway))
    if tools is not None:
        app.router.routes.extend(tools[1].routes)
    settings = gateway.settings
    return Guard(app, settings.hosts, settings.origins, settings.key)


def _tools(gateway: Gateway) -> "tuple[MCPServer, Starlette] | None":
    """The MCP server and its application; None where its extra is not installed."""
    if find_spec("mcp") is None:
        return None
    from orchestrator.gateway.mcp_server import mcp_application

    return mcp_application(gateway)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    return errors.response(request.url.path, error)


def _triptych_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TriptychError)
    return errors.response(request.url.path, errors.of_triptych(error))


def _invalid(request: Request, error: Exception) -> Response:
    """What FastAPI would answer with 422 and a list is 400 and a sentence here."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    why = "this is no JSON" if first["type"] == "json_invalid" else str(first["msg"])
    return errors.response(request.url.path, HttpError(400, f"`{where[:80]}`: {why[:200]}", "bad_request", where[:80]))


def _starlette_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = {404: "there is no such route", 405: "this route does not take that method"}.get(error.status_code)
    message = sentence or (str(error.detail) if error.detail else "this could not be done")
    made = HttpError(error.status_code, message)
    made.headers = error.headers
    return errors.response(request.url.path, made)


def _unforeseen(request: Request, error: Exception) -> Response:
    return errors.response(request.url.path, errors.of_triptych(TriptychError.unforeseen(error)))
