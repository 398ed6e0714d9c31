"""What clients of AUTOMATIC1111's API have in work: which jobs those are, and how far they are as `progress` tells."""

import base64
import time
from typing import Any

from orchestrator.gateway.jobs import Job
from stages.core import wire

_FIRST = 0.01
"""Progress of a job that has not begun: zero would say that there is none."""


class Work:
    """The jobs of these routes that are in work, those first that came first."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self.interruptions = 0
        """How often all was interrupted: whoever submits meanwhile is told by it."""
        self._interrupted = False
        self._skipped = False

    def begin(self, job: Job) -> None:
        """Count a job to these routes."""
        self._jobs = [*self.in_work(), job]
        self._interrupted = self._skipped = False

    def in_work(self) -> list[Job]:
        """All that are not over."""
        return [job for job in self._jobs if not job.over]

    def interrupt(self) -> list[Job]:
        """The jobs that an interruption stops: all."""
        self.interruptions += 1
        self._interrupted = True
        return self.in_work()

    def skip(self) -> list[Job]:
        """The jobs that a skip stops: the one which `progress` tells of."""
        self._skipped = True
        return self.in_work()[:1]

    def progress(self, *, with_image: bool) -> dict[str, Any]:
        """How far the oldest job is; what waits behind it is told of in its turn."""
        job = next(iter(self.in_work()), None)
        flags = {"interrupted": self._interrupted, "skipped": self._skipped}
        return _IDLE | {"state": _IDLE["state"] | flags} if job is None else _progress(job, flags, with_image)


_IDLE: dict[str, Any] = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "state": {
        "skipped": False,
        "interrupted": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    },
    "current_image": None,
    "textinfo": None,
}


def _progress(job: Job, flags: dict[str, bool], with_image: bool) -> dict[str, Any]:
    count = job.submit.n if job.submit else 1
    making = [progress for index, progress in job.progress.items() if index not in job.images]
    furthest = max((each for each in making if each.stage == "unet"), key=lambda each: each.step, default=None)
    share = (len(job.images) + sum(map(_share, making))) / count
    etas = [each.eta_s for each in making if each.eta_s is not None]
    preview = max(job.previews.values(), key=lambda each: each[0].step, default=None) if with_image else None
    return {
        "progress": round(_FIRST + (1 - 2 * _FIRST) * min(share, 1), 4),
        "eta_relative": round(max(etas, default=job.eta_s or 0.0), 3),
        "state": flags
        | {
            "job": "txt2img",
            "job_count": count,
            "job_timestamp": timestamp(job),
            "job_no": len(job.images),
            "sampling_step": furthest.step if furthest else 0,
            "sampling_steps": furthest.steps if furthest else 0,
        },
        "current_image": base64.b64encode(preview[1]).decode() if preview else None,
        "textinfo": f"waiting; pictures that go before: {job.position}" if job.position else None,
    }


def timestamp(job: Job) -> str:
    """When a job was submitted, as the web UI writes it."""
    return time.strftime("%Y%m%d%H%M%S", time.localtime(job.created))


def _share(progress: wire.Progress) -> float:
    """How much of a picture is made, by the steps of its U-Net: those take nearly all of the time."""
    match progress.stage:
        case "text":
            return 0.0
        case "unet":
            return progress.step / max(1, progress.steps)
        case "vae":
            return 1.0
