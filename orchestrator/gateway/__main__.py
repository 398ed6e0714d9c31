"""The gateway process: `python -m orchestrator.gateway`, with its settings in the environment. The hub starts it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys

import msgspec
import uvicorn

from orchestrator.gateway.app import application
from orchestrator.gateway.guard import SlowClient
from orchestrator.gateway.server import Gateway
from orchestrator.gateway.settings import VARIABLE, GatewaySettings

_BACKLOG = 512
_STOP_S = 3
"""Seconds that requests may take to end when the gateway is to leave."""


def _in_a_line(record: logging.LogRecord) -> bool:
    """Filter uvicorn's log: it has a traceback for whatever ends a request early, a slow client included."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, SlowClient):
        record.msg, record.args, record.exc_info = str(error), (), None
    return True


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: when to leave is told by the life-line."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own has no types
        yield


def main() -> int:
    """Serve until the life-line is readable."""
    settings = msgspec.structs.replace(
        msgspec.json.decode(os.environ.pop(VARIABLE), type=GatewaySettings), lifeline_fd=int(sys.argv[1])
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the hub's to handle
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("uvicorn.error").addFilter(_in_a_line)
    return asyncio.run(_serve(settings))


async def _serve(settings: GatewaySettings) -> int:
    """Serve; 1 where the hub was lost, so that another process is started."""
    gateway = Gateway(settings)
    config = uvicorn.Config(
        application(gateway),
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_S,
        backlog=_BACKLOG,
    )
    server = _Server(config)
    listening = socket.socket(fileno=settings.socket_fd)
    asyncio.get_running_loop().add_reader(settings.lifeline_fd, _leave, server, gateway, settings.lifeline_fd)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        os.write(settings.lifeline_fd, b"\n")  # loaded
        await asyncio.wait((serving, asyncio.create_task(gateway.lost.wait())), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
    await serving
    return 1 if gateway.lost.is_set() else 0


def _leave(server: uvicorn.Server, gateway: Gateway, lifeline: int) -> None:
    asyncio.get_running_loop().remove_reader(lifeline)
    gateway.feed.close()  # pages listen for as long as they are open, and would be waited for
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main())
