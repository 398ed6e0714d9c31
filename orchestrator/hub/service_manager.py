"""What the hub tells systemd, where that has started it: that it serves, what it does, and that its loop turns.

The protocol is sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names. Without it, nothing is told.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MICROSECONDS = 1_000_000


class ServiceManager:
    """The end of systemd's notification socket; inert where there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._beat_s = _watchdog_s(environ) / 2 if self._socket is not None else 0.0
        self._beat_at = 0.0

    @property
    def next_beat(self) -> float | None:
        """When the watchdog is to be fed, seconds of the caller's clock; None where none waits for it."""
        return self._beat_at if self._beat_s else None

    def ready(self, status: str) -> None:
        """Tell that the service has started."""
        self._tell(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._tell("STOPPING=1\nSTATUS=finishing what is in work")

    def beat(self, now: float) -> None:
        """Feed the watchdog, if it is time: the loop turns, whatever the stages do."""
        if self._beat_s and now >= self._beat_at:
            self._beat_at = now + self._beat_s
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()

    def _tell(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # a manager that does not read is no reason not to serve
                self._socket.sendto(text.encode(), self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Seconds within which the watchdog is to be fed; 0 where there is none, or it is meant for another process."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(usec) / _MICROSECONDS
