"""Errors over HTTP: the status of each wire code, and the shape that the clients of a route expect."""

import math
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stages.core.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    DeadlineInfeasible,
    NoAnswer,
    NotFound,
    Overloaded,
    ShuttingDown,
    StageLost,
    TriptychError,
)

_STATUS: dict[str, int] = {
    BadRequest.code: 400,
    NotFound.code: 404,
    Conflict.code: 422,
    Cancelled.code: 409,
    Overloaded.code: 429,
    DeadlineInfeasible.code: 503,
    ShuttingDown.code: 503,
    NoAnswer.code: 503,
}
"""The HTTP status of a wire code; 500 for all others."""

_NO_RETRY = (StageLost.code, DeadlineInfeasible.code, Cancelled.code)
"""Codes at which trying again at once is no use, though the status alone would have a client do so."""


class HttpError(HTTPException):
    """An answer that is no picture: status, one sentence, and which field it is about.

    An HTTPException, so that FastAPI lets it pass where a body is being read.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, **headers: str
    ) -> None:
        super().__init__(status, message, {name.replace("_", "-"): value for name, value in headers.items()})
        self.status = status
        self.message = message
        self.code = code
        self.param = param


def of_triptych(error: TriptychError) -> HttpError:
    """The HTTP error of an error that the hub has told."""
    status = _STATUS.get(error.code, 500)
    message = error.message
    headers = {}
    if error.retry_after_s is not None and status in (429, 503):
        seconds = max(1, math.ceil(error.retry_after_s))
        headers["Retry_After"] = str(seconds)
        message += f" (in about {seconds} s; clients of the OpenAI SDK wait 120 s at most)"
    if error.code in _NO_RETRY:
        headers["x_should_retry"] = "false"
    return HttpError(status, message, error.code, _field(message) if status == 400 else None, **headers)


def response(path: str, error: HttpError) -> JSONResponse:
    """The answer, in the shape of the world that the route is of."""
    return JSONResponse(body(path, error), error.status, dict(error.headers or {}))


def body(path: str, error: HttpError) -> dict[str, Any]:
    """The JSON object of an error on a route."""
    if path.startswith(("/sdapi/", "/controlnet")):
        return {"error": HTTPStatus(error.status).phrase, "detail": error.message, "body": "", "errors": error.message}
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    kind = "rate_limit_error" if error.status == 429 else kind
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _field(message: str) -> str | None:
    """The field that a refusal begins with, as in "`steps` must be from 1 to 200"."""
    return message.split("`")[1] if message.startswith("`") and message.count("`") >= 2 else None
