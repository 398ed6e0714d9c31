"""Triptych's own routes: jobs that outlive their requests, and their events as the prompt socket tells them."""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from orchestrator.gateway import sse
from orchestrator.gateway.description import describe
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.jobs import Job, group_of, new_id
from orchestrator.gateway.json_route import JsonRoute
from orchestrator.gateway.server import Gateway
from stages.core import wire
from stages.core.errors import BadRequest

_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": msgspec.json.schema(wire.Submit)["$defs"]["Submit"]}},
    }
}

_OWNER_CHARS = 128


def routes(gateway: Gateway) -> APIRouter:
    """All routes of this world."""
    router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], route_class=JsonRoute)

    def found(id: str) -> Job:
        job = gateway.jobs.find(id)
        if job is None:
            raise HttpError(404, f"there is no job {id[:40]!r}, or it is kept no longer", "not_found")
        return job

    @router.post("", status_code=202, openapi_extra=_SCHEMA)
    async def create(request: Request) -> JSONResponse:
        """Submit a prompt, with any field of the prompt socket's `submit`; answered before it is made."""
        job = await gateway.jobs.submit(_read(await request.body()))
        return JSONResponse(describe(job), 202, {"Location": f"/v1/jobs/{job.id}"})

    @router.get("")
    async def listing(owner: str | None = None) -> JSONResponse:
        """The jobs in work or kept that were submitted with this `owner`; none for who names none."""
        group = None if owner is None else group_of(owner)
        return JSONResponse({"jobs": [describe(job) for job in gateway.jobs if group and job.group == group]})

    @router.get("/{id}")
    async def state(id: str) -> JSONResponse:
        """How far a job is."""
        return JSONResponse(describe(found(id)))

    @router.get("/{id}/image", response_class=Response)
    async def image(id: str, request: Request, index: int = 0) -> Response:
        """A picture of a job, as a file."""
        job = found(id)
        if index not in job.images:
            why = "is not done yet" if not job.over else "was never made"
            raise HttpError(409 if not job.over else 404, f"image {index} of this job {why}", "not_found", "index")
        message, payload = job.images[index]
        tag = f'"{hashlib.sha256(payload).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=600"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(payload, media_type=f"image/{message.format}", headers=headers)

    @router.get("/{id}/events", response_class=Response)
    async def events(id: str) -> Response:
        """All that is told of a job, as server-sent events: the messages of the prompt socket, pictures as base64."""
        return sse.stream(_events(gateway, found(id)), {})

    @router.delete("/{id}")
    async def cancel(id: str) -> JSONResponse:
        """Give a job up."""
        job = found(id)
        if job.over:
            raise HttpError(409, "this job has ended", "conflict")
        await gateway.jobs.cancel(job)
        await gateway.jobs.end(job)
        return JSONResponse(describe(job))

    return router


def _read(body: bytes) -> wire.Submit:
    """The request of a body. Raises BadRequest."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        submit = msgspec.convert({"id": ""} | fields | {"type": "submit"}, wire.Submit)
    except wire.UNREADABLE as error:
        raise BadRequest(f"not a job: {str(error)[:300]}") from error
    owner = submit.owner
    if owner is not None and not (0 < len(owner) <= _OWNER_CHARS and owner.isprintable()):
        raise BadRequest(f"`owner` must be 1 to {_OWNER_CHARS} printable characters")
    return submit if "id" in fields else msgspec.structs.replace(submit, id=new_id(owner))


async def _events(gateway: Gateway, job: Job) -> AsyncIterator[bytes]:
    async for message, payload in gateway.jobs.events(job):
        data = msgspec.to_builtins(message)
        if payload is not None:
            data["b64"] = base64.b64encode(payload).decode()
        yield sse.event(str(data["type"]), data)
