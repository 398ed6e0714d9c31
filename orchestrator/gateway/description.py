"""A job in JSON, as the native routes and the page's feed tell of it. Pure."""

from typing import Any

import msgspec

from orchestrator.gateway.jobs import Job

_REQUEST = (
    *("prompt", "negative_prompt", "steps", "guidance_scale", "seed", "width", "height", "schedule"),
    *("guidance_rescale", "syntax", "clip_skip", "priority", "output_format"),
)
"""Fields of the request that make the same picture again."""


def describe(job: Job) -> dict[str, Any]:
    """How far a job is, and where its pictures are."""
    newest = max(
        job.progress.values(), key=lambda progress: (progress.index not in job.images, progress.step), default=None
    )
    images = [message for _, (message, _) in sorted(job.images.items())]
    return {
        "id": job.id,
        "state": job.state,
        "created": round(job.created, 3),
        "prompt": job.submit.prompt if job.submit else None,
        "n": job.submit.n if job.submit else None,
        "request": {name: getattr(job.submit, name) for name in _REQUEST} if job.submit else None,
        "position": job.position,
        "eta_s": job.eta_s,
        "stage": newest.stage if newest else None,
        "step": newest.step if newest else None,
        "steps": newest.steps if newest else None,
        "images": [
            {
                "index": image.index,
                "url": f"/v1/jobs/{job.id}/image?index={image.index}",
                "format": image.format,
                "width": image.width,
                "height": image.height,
                "seed": image.seed,
                "timings": msgspec.to_builtins(image.timings),
            }
            for image in images
        ],
        "error": msgspec.to_builtins(job.failed) if job.failed else None,
    }
