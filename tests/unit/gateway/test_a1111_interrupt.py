"""An interruption that comes while a job is on its way to the hub."""

import asyncio
from typing import cast

import httpx
from fastapi import FastAPI, Request

from orchestrator.gateway.jobs import Job
from orchestrator.gateway.routes import a1111
from orchestrator.gateway.server import Gateway
from stages.core import wire
from tests.unit import statuses


class _Jobs:
    """A hub that takes a job in when it is told to, and ends it when it is cancelled."""

    def __init__(self) -> None:
        self.asked, self.take_in, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def submit(self, submit: wire.Submit) -> Job:
        self.asked.set()
        await self.take_in.wait()
        return Job(submit.id, submit, 0.0)

    async def cancel(self, job: Job) -> None:
        job.take_in(wire.Failed(id=job.id, code="cancelled", message="cancelled", retryable=False), None)
        self.cancelled.set()


class _Gateway:
    """What the routes see of a gateway."""

    known = statuses.status(sizes=((128, 128),), default_steps=4)

    def __init__(self) -> None:
        self.jobs = _Jobs()

    def size(self, asked: tuple[int, int] | None) -> tuple[int, int]:
        return self.known.sizes[0]

    def check_model(self, name: str | None) -> None:
        pass

    async def ended(self, request: Request, job: Job, *, lasting: bool) -> Job:
        await asyncio.wait_for(self.jobs.cancelled.wait(), 10)
        return job


def test_the_lists_are_named_in_the_description() -> None:
    app = FastAPI()
    app.include_router(a1111.routes(cast("Gateway", _Gateway())))
    assert app.openapi()["paths"]["/sdapi/v1/upscalers"]["get"]["summary"] == "upscalers"


def test_it_stops_that_job_too() -> None:
    async def run() -> None:
        gateway, app = _Gateway(), FastAPI()
        app.include_router(a1111.routes(cast("Gateway", gateway)))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test/sdapi/v1") as web:
            asking = asyncio.create_task(web.post("/txt2img", json={"prompt": "a fox"}))
            await asyncio.wait_for(gateway.jobs.asked.wait(), 10)
            assert (await web.post("/interrupt")).json() == {}
            assert not gateway.jobs.cancelled.is_set()
            gateway.jobs.take_in.set()
            await asyncio.wait_for(asking, 20)
            assert gateway.jobs.cancelled.is_set()
            progress = (await web.get("/progress")).json()
            assert progress["state"]["job_count"] == 0

    asyncio.run(run())
