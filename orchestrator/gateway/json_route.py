"""Routes that take JSON: its type is looked at, and it is read as strictly as the prompt socket reads it."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from orchestrator.gateway.errors import HttpError
from stages.core.wire import UNREADABLE, why_unreadable


class JsonRequest(Request):
    """A request whose body is JSON: no NaN, no lone surrogates, no nesting without end."""

    async def json(self) -> Any:
        """The body. Raises HttpError."""
        body = await self.body()
        try:
            return msgspec.json.decode(body)
        except UNREADABLE as error:
            raise HttpError(400, f"the body is no JSON: {why_unreadable(body, error)}", "bad_request") from None


class JsonRoute(APIRoute):
    """A route whose requests are JsonRequests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that FastAPI would use, behind the look at the type."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and kind and kind != "application/json" and not kind.endswith("+json"):
                raise HttpError(415, f"send JSON, as Content-Type: application/json, not {kind[:80]}", "bad_request")
            return await handler(JsonRequest(request.scope, request.receive))

        return handle
