"""A live process of a child. Whether it loads or serves is its type: what is known only of one that serves is there."""

import msgspec

from orchestrator.hub.child import Child
from stages.core import pipes


class LoadingProcess(msgspec.Struct, frozen=True):
    """A process that was started and has not said that it has loaded."""

    child: Child


class ServingProcess(msgspec.Struct, frozen=True):
    """A process that has loaded."""

    child: Child
    since: float
    """When it said so, seconds of time.monotonic."""
    loaded: pipes.Loaded | None
    """Its words where it is a stage."""


Process = LoadingProcess | ServingProcess
