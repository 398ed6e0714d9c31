"""Requests that are sent again, as SDKs do: the same one shares the job that the first one has started."""

import asyncio
import hashlib
from typing import NamedTuple

from orchestrator.gateway.errors import HttpError
from orchestrator.gateway.jobs import Job, Jobs
from stages.core import wire


class _Known(NamedTuple):
    """A request, and what it was made into."""

    body: bytes
    id: str
    """Id of the job."""
    submitting: "asyncio.Future[Job]"
    """The job, or what it was refused with, once the hub has answered."""


class Repeats:
    """The jobs that keys, and bodies, stand for."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def find(self, jobs: Jobs, client: str, key: str | None, submit: wire.Submit) -> "Job | asyncio.Future[Job] | None":
        """The job that this request was made into before, or is being made into; None for a new one.

        Without a key that is one which still runs, of the same client, with a seed: two who ask for any picture want
        two. Raises HttpError where the key stands for another request.
        """
        known = self._known.get(_name(client, key, submit))
        if known is None:
            return None
        if known.body != _digest(submit):
            raise HttpError(422, "this Idempotency-Key was used for another request", "conflict")
        if not known.submitting.done():
            return known.submitting
        job = jobs.find(known.id)
        if job is None or job.failed is not None or (key is None and job.over):
            return None
        return job

    def remember(self, client: str, key: str | None, submit: wire.Submit, submitting: "asyncio.Future[Job]") -> None:
        """Note what a request is being made into."""
        if key is not None or submit.seed is not None:
            self._known[_name(client, key, submit)] = _Known(_digest(submit), submit.id, submitting)

    def expire(self, jobs: Jobs) -> None:
        """Forget requests whose jobs are forgotten, or were refused."""
        self._known = {
            name: known
            for name, known in self._known.items()
            if not known.submitting.done() or jobs.find(known.id) is not None
        }


def _name(client: str, key: str | None, submit: wire.Submit) -> str:
    return f"key {client} {key}" if key is not None else f"body {client} {_digest(submit).hex()}"


def _digest(submit: wire.Submit) -> bytes:
    """The request but for its id."""
    fields = {name: getattr(submit, name) for name in submit.__struct_fields__ if name not in ("id", "owner")}
    return hashlib.sha256(repr(fields).encode()).digest()
