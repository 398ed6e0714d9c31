"""A real server with its gateway for a test, reached over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.server import DEADLINE_S, STUBS, Server, eventually, serving

SIZES = ('model.sizes=["128x128", "192x128", "128x192"]',)


@contextmanager
def serving_http(*overrides: str) -> Iterator[tuple[Server, str]]:
    """A server of stub stages until the end of the block, and the URL at which its gateway answers."""
    with serving(*STUBS, *overrides, http=None) as server:
        eventually(lambda: ready(server.http), f"the gateway answers at {server.http}")
        yield server, server.http


def ready(url: str) -> bool:
    """Whether the gateway is there, and the hub behind it takes prompts."""
    try:
        return httpx.get(f"{url}/ready", timeout=DEADLINE_S).status_code == 200
    except httpx.TransportError:
        return False


def gateway_of(server: Server) -> int:
    """The gateway's process."""
    [found] = [pid for pid in server.children() if b"orchestrator.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found
