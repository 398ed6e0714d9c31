"""OpenAI's image routes, and the same under `/v3` where clients of OpenVINO Model Server look for them."""

import base64
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.gateway import errors, sizes, sse
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.jobs import Job, new_id
from orchestrator.gateway.json_route import JsonRoute
from orchestrator.gateway.server import Gateway
from stages.core import wire
from stages.core.errors import TriptychError

_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""Pictures are not counted in tokens here; SDKs want the object."""

_NOT_YET = "this server takes no pictures in yet; only /v1/images/generations draws"

_MEANT = {"quality", "style", "background", "moderation", "output_compression", "user"}
"""Fields of OpenAI's that are taken and change nothing."""


class Generation(BaseModel):
    """The body of a generation: OpenAI's fields, and those of OpenVINO Model Server and of Triptych on top."""

    model_config = ConfigDict(extra="allow", strict=True)

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    response_format: str | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    rng_seed: int | None = None
    width: int | None = None
    height: int | None = None
    num_images_per_prompt: int | None = None
    schedule: str | None = None
    syntax: Literal["plain", "a1111"] | None = None
    clip_skip: int | None = None
    priority: int | None = None
    deadline_s: float | None = None


def routes(gateway: Gateway) -> APIRouter:
    """All routes of this world."""
    router = APIRouter(tags=["OpenAI"], route_class=JsonRoute)

    async def generate(
        body: Generation,
        request: Request,
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    ) -> Response:
        """Make pictures from a prompt; with `stream`, partial images as they come."""
        gateway.check_model(body.model)
        if body.response_format not in (None, "b64_json"):
            raise HttpError(
                400, "`response_format` must be b64_json: pictures are in the answer", "bad_request", "response_format"
            )
        submit, headers = _submit(gateway, body)
        if body.stream and submit.n > 1:
            raise HttpError(400, "`n` must be 1 with `stream`", "bad_request", "n")
        client = request.client.host if request.client else ""
        job = await gateway.submitted(client, idempotency_key, submit)
        lasting = idempotency_key is not None
        if body.stream:
            return sse.stream(_events(gateway, request, job, body.partial_images or 0, lasting), headers)
        await gateway.ended(request, job, lasting=lasting)
        if job.failed is not None:
            raise errors.of_triptych(job.failed.error())
        return JSONResponse(_answer(job), headers=headers)

    for prefix in ("/v1", "/v3"):
        router.add_api_route(f"{prefix}/images/generations", generate, methods=["POST"], response_model=None)
        for name in ("edits", "variations"):
            router.add_api_route(
                f"{prefix}/images/{name}",
                _not_yet,
                methods=["POST"],
                response_model=None,
                route_class_override=APIRoute,
            )
        router.add_api_route(f"{prefix}/models", lambda: _models(gateway), methods=["GET"], response_model=None)
        router.add_api_route(
            f"{prefix}/models/{{name:path}}", lambda name: _model(gateway, name), methods=["GET"], response_model=None
        )
    return router


async def _not_yet() -> Response:
    """Say that pictures are not taken in."""
    raise HttpError(501, _NOT_YET, "not_implemented")


def _models(gateway: Gateway) -> JSONResponse:
    return JSONResponse({"object": "list", "data": [_entry(gateway)]})


def _model(gateway: Gateway, name: str) -> JSONResponse:
    gateway.check_model(name)
    return JSONResponse(_entry(gateway))


def _entry(gateway: Gateway) -> dict[str, Any]:
    began = int(time.time() - gateway.known.uptime_s)
    return {"id": gateway.model, "object": "model", "created": began, "owned_by": "triptych"}


def _submit(gateway: Gateway, body: Generation) -> tuple[wire.Submit, dict[str, str]]:
    """The request for the hub, and headers that say what was made of it."""
    headers = {}
    if ignored := sorted((body.model_extra or {}).keys() - _MEANT):
        headers["X-Triptych-Ignored"] = ", ".join(
            name[:40].encode("ascii", "replace").decode() for name in ignored[:20]
        )
    asked = sizes.parse(body.size) if body.size else None
    if body.width is not None and body.height is not None:
        asked = sizes.check(body.width, body.height)
    width, height = gateway.size(asked)
    if asked and asked != (width, height):
        headers["X-Triptych-Size"] = f"{width}x{height}"
    n = body.n if body.n is not None else body.num_images_per_prompt
    partial = body.partial_images or 0
    steps = body.num_inference_steps if body.num_inference_steps is not None else body.steps
    submit = wire.Submit(
        id=new_id(),
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        steps=steps,
        guidance_scale=body.guidance_scale,
        seed=body.seed if body.seed is not None else body.rng_seed,
        width=width,
        height=height,
        schedule=body.schedule,
        syntax=body.syntax or "plain",
        clip_skip=body.clip_skip or 0,
        n=1 if n is None else n,
        priority=body.priority or 0,
        deadline_s=body.deadline_s,
        preview_every=max(1, (steps or gateway.known.default_steps) // (partial + 1)) if body.stream and partial else 0,
        output_format=body.output_format or "png",
    )
    return submit, headers


def _answer(job: Job) -> dict[str, Any]:
    images = [job.images[index] for index in sorted(job.images)]
    first, _ = images[0]
    return {
        "created": int(job.created),
        "data": [{"b64_json": base64.b64encode(payload).decode()} for _, payload in images],
        "output_format": first.format,
        "size": f"{first.width}x{first.height}",
        "usage": _NO_USAGE,
    }


async def _events(
    gateway: Gateway, request: Request, job: Job, partial_images: int, lasting: bool
) -> AsyncIterator[bytes]:
    """The events of a streamed generation."""
    sent = 0
    about: dict[str, Any] = {"created_at": int(job.created)}
    size = f"{job.submit.width}x{job.submit.height}" if job.submit else ""
    try:
        with gateway.waiting(job, lasting=lasting):
            async for message, payload in gateway.jobs.events(job):
                match message:
                    case wire.Preview() if sent < partial_images:
                        data = about | {"size": size, "output_format": "jpeg", "partial_image_index": sent}
                        yield _image_event("partial_image", payload, data)
                        sent += 1
                    case wire.Image(format=format, width=width, height=height):
                        data = about | {"size": f"{width}x{height}", "output_format": format, "usage": _NO_USAGE}
                        yield _image_event("completed", payload, data)
                    case wire.Failed():
                        raise message.error()
                    case _:
                        pass
    except TriptychError as error:
        yield sse.event("error", errors.body(request.url.path, errors.of_triptych(error)) | {"type": "error"})
    yield sse.event(None, "[DONE]")


def _image_event(kind: str, payload: bytes | None, data: dict[str, Any]) -> bytes:
    named = f"image_generation.{kind}"
    return sse.event(named, {"type": named, "b64_json": base64.b64encode(payload or b"").decode()} | data)
