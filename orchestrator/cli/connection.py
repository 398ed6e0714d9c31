"""The way from a command to a pipeline, its own or another's."""

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.cli.options import Private, Remote
from orchestrator.client import Client, own_pipeline
from orchestrator.models.locate import locate
from stages.core.config import load


@contextmanager
def connect(target: Remote | Private, debug: bool = False) -> Iterator[Client]:
    """A client of a running pipeline, or of one that is started now and stopped at the end.

    Raises ConfigError for a configuration that cannot be; the other errors come from the client.
    """
    if isinstance(target, Remote):
        with Client(target.address) as client:
            yield client
    else:
        locate(load(target.config, target.overrides))  # mistakes are told, and downloads made, before the start
        with own_pipeline(target.config, target.overrides, debug) as client:
            yield client
