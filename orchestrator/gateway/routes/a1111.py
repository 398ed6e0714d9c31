"""The routes of AUTOMATIC1111's web UI under `/sdapi/v1`, as far as its clients use them, and lists of ControlNet's."""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from orchestrator.gateway import errors, png_text
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.json_route import JsonRoute
from orchestrator.gateway.routes import a1111_samplers
from orchestrator.gateway.routes.a1111_txt2img import TextToImage, answer, submission
from orchestrator.gateway.routes.a1111_work import Work
from orchestrator.gateway.server import Gateway

_NOT_YET = "this server takes no pictures in yet; only txt2img draws"

_NONE = {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}
"""The upscaler that is none: clients take the first of the list for it."""


def routes(gateway: Gateway) -> APIRouter:
    """All routes of this world."""
    router = APIRouter(tags=["AUTOMATIC1111"], route_class=JsonRoute)
    work = Work()
    _lists(router, gateway)

    @router.post("/sdapi/v1/txt2img")
    async def txt2img(body: TextToImage, request: Request) -> JSONResponse:
        """Make pictures from a prompt. Answered when all are made; `progress` tells how far they are."""
        submit, headers = submission(gateway, body)
        interruptions = work.interruptions
        job = await gateway.jobs.submit(submit)
        work.begin(job)
        if work.interruptions != interruptions:  # it was on its way to the hub, so that nobody could stop it
            await gateway.jobs.cancel(job)
        await gateway.ended(request, job, lasting=False)
        if job.failed is not None and not (job.state == "cancelled" and job.images):
            raise errors.of_triptych(job.failed.error())
        return JSONResponse(answer(body, job), headers=headers)

    @router.get("/sdapi/v1/progress")
    async def progress(skip_current_image: bool = False) -> JSONResponse:
        """How far the work of these routes is, with the newest preview."""
        return JSONResponse(work.progress(with_image=not skip_current_image))

    @router.post("/sdapi/v1/interrupt")
    async def interrupt() -> JSONResponse:
        """Stop all work of these routes; that of others goes on. Pictures that are done are answered."""
        for job in work.interrupt():
            await gateway.jobs.cancel(job)
        return JSONResponse({})

    @router.post("/sdapi/v1/skip")
    async def skip() -> JSONResponse:
        """Stop the work that `progress` tells of."""
        for job in work.skip():
            await gateway.jobs.cancel(job)
        return JSONResponse({})

    @router.get("/sdapi/v1/options")
    async def options() -> JSONResponse:
        """The options that clients read, the model's name above all."""
        return JSONResponse(
            {
                "sd_model_checkpoint": gateway.model,
                "sd_checkpoint_hash": "",
                "sd_vae": "Automatic",
                "CLIP_stop_at_last_layers": 1,
                "samples_format": "png",
            }
        )

    @router.post("/sdapi/v1/options")
    async def set_options(body: Annotated[dict[str, Any], Body()]) -> JSONResponse:
        """Take options as clients send them back; the model alone is looked at, and must be the one that is served."""
        name = body.get("sd_model_checkpoint")
        if name is not None and not isinstance(name, str):
            raise HttpError(400, "`sd_model_checkpoint` must be a string", "bad_request", "sd_model_checkpoint")
        gateway.check_model(name)
        return JSONResponse(None)

    @router.post("/sdapi/v1/png-info")
    async def png_info(image: Annotated[str, Body(embed=True)]) -> JSONResponse:
        """Read what made a picture out of its file."""
        try:
            file = base64.b64decode(image.partition(",")[2] if image.startswith("data:") else image, validate=True)
        except (binascii.Error, ValueError):
            raise HttpError(400, "`image` is no base64", "bad_request", "image") from None
        if not file.startswith(png_text.SIGNATURE):
            raise HttpError(400, "`image` is no PNG; no other files are read", "bad_request", "image")
        items = png_text.read(file)
        info = items.get("parameters", "")
        return JSONResponse(
            {"info": info, "items": items, "parameters": png_text.parameters(info) if info.strip() else {}}
        )

    for name in ("img2img", "extra-single-image"):
        router.add_api_route(f"/sdapi/v1/{name}", _not_yet, methods=["POST"], response_model=None)
    return router


def _lists(router: APIRouter, gateway: Gateway) -> None:
    """Routes that answer with what there is, or with nothing where there is none."""

    @router.get("/sdapi/v1/sd-models")
    async def models() -> JSONResponse:
        """The model that is served."""
        name = gateway.model
        return JSONResponse(
            [{"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}]
        )

    fixed: dict[str, Any] = {
        "/sdapi/v1/samplers": a1111_samplers.samplers(),
        "/sdapi/v1/schedulers": a1111_samplers.schedulers(),
        "/sdapi/v1/upscalers": [_NONE],
        "/sdapi/v1/latent-upscale-modes": [],
        "/sdapi/v1/sd-vae": [],
        "/sdapi/v1/loras": [],
        "/sdapi/v1/scripts": {"txt2img": [], "img2img": []},
        "/controlnet/version": {"version": 0},
        "/controlnet/model_list": {"model_list": []},
        "/controlnet/module_list": {"module_list": [], "module_detail": {}},
        "/controlnet/control_types": {"control_types": {}},
        "/controlnet/settings": {"control_net_unit_count": 0},
    }
    for path, data in fixed.items():
        router.add_api_route(path, _fixed(data), methods=["GET"], response_model=None, summary=path.rpartition("/")[2])


def _fixed(data: Any) -> Any:
    async def listed() -> JSONResponse:
        """What there is of this kind."""
        return JSONResponse(data)

    return listed


async def _not_yet() -> JSONResponse:
    """Say that pictures are not taken in."""
    raise HttpError(501, _NOT_YET, "not_implemented")
