"""Connections to a listening ZeroMQ socket: counted, and ended where they are too many or from a stranger.

libzmq accepts whoever comes until the process has no descriptor left, and then tries again without a pause; whoever
opens enough connections thus keeps the process from opening anything, and one core busy. libzmq tells of every
connection that it has accepted, by descriptor, and works on when such a descriptor is shut down: it reads the end of
the stream, and closes it as if the other end had.
"""

import socket as system
import struct
from collections.abc import Callable
from contextlib import suppress

import zmq
from zmq.utils.monitor import parse_monitor_message

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Connections:
    """The connections that a bound socket has accepted; those beyond `limit` or refused by `accepts` are ended."""

    def __init__(
        self, socket: zmq.Socket[bytes], limit: int, accepts: Callable[[system.socket], bool] = lambda peer: True
    ) -> None:
        """`accepts` decides on each connection as it comes. To be made after the socket is bound."""
        self.limit = limit
        self._listener = socket
        self._address = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._accepts = accepts
        self._open: set[int] = set()
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        """Socket that is readable when there is something for `attend`."""

    def attend(self) -> int:
        """Take in what libzmq has told since the last call; returns how many connections that has ended."""
        ended = 0
        while True:
            try:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return ended
            descriptor = int(event["value"])
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self._open.discard(descriptor)
            else:
                self._open.add(descriptor)
                ended += self._unwanted(descriptor)

    def close(self) -> None:
        """Stop listening to what libzmq tells; before the socket itself is closed."""
        if not self._listener.closed:
            self._listener.disable_monitor()
            self.monitor.close(0)

    def _unwanted(self, descriptor: int) -> bool:
        """End the connection if it is not wanted. The descriptor may have been closed meanwhile, and be another's."""
        try:
            peer = system.socket(fileno=descriptor)
        except OSError:
            return False
        try:
            if (
                _address_of(peer) != self._address
            ):  # whatever else has a socket in this process, it is not at this address
                return False
            if len(self._open) <= self.limit and self._accepts(peer):
                return False
            with suppress(OSError):
                peer.shutdown(system.SHUT_RDWR)
            return True
        finally:
            peer.detach()


def peer_pid(peer: system.socket) -> int:
    """The process at the other end of a unix socket, as the kernel knows it."""
    pid, _uid, _gid = _CREDENTIALS.unpack(peer.getsockopt(system.SOL_SOCKET, system.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)


def _address_of(peer: system.socket) -> str:
    """The address of our end, as ZeroMQ writes it."""
    try:
        name = peer.getsockname()
    except OSError:
        return ""
    if peer.family == system.AF_UNIX:
        path = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        return f"ipc://{'@' + path[1:] if path.startswith(chr(0)) else path}"
    host, port = name[:2]
    return f"tcp://[{host}]:{port}" if peer.family == system.AF_INET6 else f"tcp://{host}:{port}"
