"""The gateway as a child of the hub: its listening socket, and how it is kept alive."""

import errno
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from orchestrator.gateway.settings import VARIABLE, GatewaySettings
from orchestrator.hub.child_spec import ChildSpec, Intensity, Lifeline, Restart
from stages.core.config import Config
from stages.core.errors import ConfigError
from stages.core.model import EMBEDDED

USUAL_PORT = 7800
_BACKLOG = 512
_NICE = 5
"""It is kept off the stages' way: a forward that waits for a core waits for all of them."""


@contextmanager
def listening(config: Config) -> Iterator[socket.socket | None]:
    """The socket that the gateway is to listen at, while the block runs; None where the configuration wants none.

    Where no address is named, it is the usual one, or a free port if that is taken. Raises ConfigError where one is
    named and cannot be had.
    """
    named = config.listen.http
    if named == "":
        yield None
        return
    host, port = ("127.0.0.1", USUAL_PORT) if named is None else _split(named)
    try:
        bound = _bound(host, port)
    except OSError as error:
        if named is not None or error.errno != errno.EADDRINUSE:
            raise ConfigError(f"listen.http: cannot listen at {named}: {error.strerror}; name another port") from error
        bound = _bound(host, 0)
    with bound:
        yield bound


def url(bound: socket.socket) -> str:
    """The address that people open."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def gateway_child(config: Config, hub: str, bound: socket.socket) -> ChildSpec:
    """The child that serves HTTP at `bound`, a client of the hub at `hub`."""
    owner = secrets.token_hex(16)
    settings = GatewaySettings(
        hub=hub,
        owner=owner,
        socket_fd=bound.fileno(),
        lifeline_fd=-1,
        hosts=config.listen.hosts,
        origins=config.listen.origins,
        key=config.listen.key,
        grace_s=config.listen.grace_s,
        keep_s=config.pipeline.keep_s,
        keep_bytes=config.pipeline.keep_mb << 20,
        embedded=config.model.path in EMBEDDED,
        playground=config.listen.playground or config.model.path in EMBEDDED,
    )

    def argv(lifeline: Lifeline) -> Sequence[str]:
        return (sys.executable, "-m", "orchestrator.gateway", str(lifeline.fd))

    return ChildSpec(
        name="gateway",
        argv=argv,
        pass_fds=(bound.fileno(),),
        env={VARIABLE: msgspec.json.encode(settings).decode()},
        nice=_NICE,
        essential=False,
        restart=Restart(attempts=5, intensity=Intensity(deaths=20, window_s=600.0), backoff_s=0.25, backoff_cap_s=5.0),
        load_s=60.0,
        stop_s=5.0,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
