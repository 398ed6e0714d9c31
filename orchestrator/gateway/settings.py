"""Settings of the gateway process, as its parent hands them over."""

import msgspec

VARIABLE = "TRIPTYCH_GATEWAY"
"""The environment variable that carries them, as JSON: unlike a command line, no other user can read it."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gateway process is told."""

    hub: str
    """Address of the prompt socket."""
    owner: str
    """The name under which the gateway submits; the same for all processes of one server, so that the next one finds
    what the one before had in work."""
    socket_fd: int
    """The listening socket, which the parent has bound: it outlives the gateway, so nobody is refused meanwhile."""
    lifeline_fd: int
    hosts: tuple[str, ...]
    """Names, beside loopback ones, that a request may have as its Host."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may read answers."""
    key: str = ""
    """What clients have to present; empty for nothing."""
    grace_s: float = 5.0
    """Seconds for which a job goes on whose client has gone."""
    keep_s: float = 600.0
    keep_bytes: int = 256 << 20
    embedded: bool = False
    """Whether the model is an embedded one, so that the page can say what it draws."""
    playground: bool = False
    """Whether the page may kill stages, to show that their work goes on."""
