"""Routes for those who watch: probes, and metrics for Prometheus."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from orchestrator.gateway.metrics import Collector
from orchestrator.gateway.server import Gateway

_DOWN = ("loading", "backoff", "stopping", "gone", "starting")


def routes(gateway: Gateway) -> APIRouter:
    """All routes of this world."""
    router = APIRouter(tags=["Watching"])
    registry = CollectorRegistry()
    registry.register(Collector(gateway))

    @router.get("/livez")
    async def livez() -> JSONResponse:
        """Whether the hub's loop turns; a stage that is started again is no reason to end the server."""
        alive = await gateway.fresh() is not None
        return JSONResponse({"alive": alive}, 200 if alive else 503)

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """Whether prompts are accepted."""
        status = await gateway.fresh()
        state = status.state if status else "unreachable"
        return JSONResponse({"state": state}, 200 if state == "serving" else 503)

    @router.get("/health")
    async def health() -> JSONResponse:
        """Whether every stage serves; if not, which does not, and why."""
        status = await gateway.fresh()
        if status is None:
            return JSONResponse({"healthy": False, "why": "the pipeline does not answer"}, 503)
        down = {stage.name: stage.state for stage in status.stages if stage.state in _DOWN or stage.pid is None}
        if status.state != "serving" or down:
            return JSONResponse({"healthy": False, "why": status.state, "stages": down}, 503)
        return JSONResponse({"healthy": True})

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Everything that can be counted, as Prometheus reads it."""
        await gateway.fresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
