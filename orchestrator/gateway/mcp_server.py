"""Tools for MCP hosts at `/mcp` (streamable HTTP), by the official SDK. Needs the extra `mcp`.

Some hosts give a call a minute, and not all of them go on when they are told of progress; so a call that will take
longer returns the job's id, and says when to ask for the picture.
"""

import asyncio
from typing import Annotated, Any

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import Field
from starlette.applications import Starlette

from orchestrator.gateway import sizes
from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.jobs import Job, new_id
from orchestrator.gateway.server import Gateway
from stages.core import wire
from stages.core.errors import TriptychError

PATIENCE_S = 50.0
"""Seconds that a call may take before it returns the job's id instead of the picture."""

_PROGRESS_S = 5.0

_INSTRUCTIONS = (
    "Draws pictures with Stable Diffusion on this machine. generate_image returns the picture, or a job id and when to "
    "ask get_image for it where that takes long."
)


def mcp_application(gateway: Gateway) -> tuple[MCPServer, Starlette]:
    """The MCP server, whose sessions run while `server.session_manager.run()` does, and its application at `/mcp`."""
    server = MCPServer("triptych", instructions=_INSTRUCTIONS)

    @server.tool(structured_output=False)
    async def generate_image(
        context: Context[Any, Any],
        prompt: Annotated[str, Field(description="what to draw")],
        negative_prompt: Annotated[str, Field(description="what should not be in it")] = "",
        steps: Annotated[int | None, Field(description="denoising steps; default: the model's")] = None,
        guidance_scale: Annotated[float | None, Field(description="how closely to follow the prompt")] = None,
        seed: Annotated[int | None, Field(description="the same seed and prompt give the same picture")] = None,
        size: Annotated[str, Field(description="WxH in pixels, fitted to what is served; or auto")] = "auto",
    ) -> list[Any]:
        """Draw a picture from a description."""
        try:
            width, height = gateway.size(sizes.parse(size))
            submit = wire.Submit(
                id=new_id(),
                prompt=prompt,
                negative_prompt=negative_prompt,
                steps=steps,
                guidance_scale=guidance_scale,
                seed=seed,
                width=width,
                height=height,
            )
            job = await gateway.jobs.submit(submit)
        except (TriptychError, HttpError) as error:
            raise ToolError(error.message) from error
        if job.eta_s is not None and job.eta_s > PATIENCE_S:
            return [_later(job)]
        with gateway.waiting(job, lasting=True):
            return await _picture(gateway, job, context)

    @server.tool(structured_output=False)
    async def get_image(
        context: Context[Any, Any], job_id: Annotated[str, Field(description="as generate_image returned it")]
    ) -> list[Any]:
        """Get a picture that was not done when generate_image returned; waits for it if it is nearly done."""
        job = gateway.jobs.find(job_id)
        if job is None:
            raise ToolError("there is no such job, or its picture is kept no longer; draw it again")
        if not job.over and job.eta_s is not None and job.eta_s > PATIENCE_S:
            return [_later(job)]
        return await _picture(gateway, job, context)

    @server.tool(structured_output=False)
    async def server_status() -> str:
        """Tell what the server is doing: its model, its queue, and its stages."""
        status = await gateway.fresh()
        if status is None:
            return "the pipeline does not answer now"
        stages = ", ".join(f"{stage.name} {stage.state}" for stage in status.stages)
        served = ", ".join(f"{width}x{height}" for width, height in status.sizes)
        return f"{status.state}; model {status.model}; sizes {served}; {status.queue.waiting} images wait; {stages}"

    guarded = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # orchestrator.gateway.guard has looked
    return server, server.streamable_http_app(transport_security=guarded)


async def _picture(gateway: Gateway, job: Job, context: Context[Any, Any]) -> list[Any]:
    """The picture and its parameters, or the job's id where it takes too long; progress is told meanwhile."""
    end = asyncio.ensure_future(gateway.jobs.end(job))
    try:
        for told in range(int(PATIENCE_S / _PROGRESS_S)):
            await asyncio.wait((end,), timeout=_PROGRESS_S if told else 0.5)
            if job.over:
                break
            done, total = _steps(job)
            eta = f", done in about {job.eta_s:.0f} s" if job.eta_s is not None else ""
            await context.report_progress(done, total, f"{job.state}{eta}")
    finally:
        end.cancel()
    if job.failed is not None:
        raise ToolError(job.failed.message)
    if not job.over:
        return [_later(job)]
    found: list[Any] = []
    for _, (image, payload) in sorted(job.images.items()):
        found += [
            Image(data=payload, format=image.format),
            f"seed {image.seed}, {image.width}x{image.height}, job {job.id}",
        ]
    return found


def _steps(job: Job) -> tuple[float, float | None]:
    """Steps done and in all, of the first image."""
    progress = next(iter(job.progress.values()), None)
    if progress is None:
        return 0.0, None
    return (float(progress.step), float(progress.steps)) if progress.stage == "unet" else (0.0, None)


def _later(job: Job) -> str:
    seconds = f"in about {job.eta_s:.0f} s" if job.eta_s is not None else "in a minute"
    return f"The picture is being drawn. Call get_image with job_id {job.id} {seconds}."
