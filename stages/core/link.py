"""The only ZeroMQ sockets. Each class is one end of one of the two kinds of pipe; all have deadlines and bounds.

Hub and stages: a ROUTER at an abstract ipc address, one DEALER a stage. An abstract address has no file, so nothing is
left behind however the processes die; anybody on the machine could connect to it, so the hub asks the kernel which
process is behind a connection (SO_PEERCRED, handed over by libzmq as `Peer-Address`) and listens only to those it has
been told to expect.

Clients and hub: a ROUTER at the configured address, one DEALER a client.
"""

import errno
import math
import os
import secrets
import select
import socket as unix
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Condition, Thread
from typing import NamedTuple

import zmq

from stages.core import pipes, wire
from stages.core.connections import Connections, peer_pid
from stages.core.errors import NoAnswer, StartFailed
from stages.core.outbox import Outbox
from stages.core.probe import why_no_answer

_STAGE_BYTES = 1 << 20
_MESSAGE_BYTES = _STAGE_BYTES // 2
"""Bytes of one message of a stage, at most, so that it has room beside the news that wait."""
_ANSWER_BYTES = 1 << 28
_REQUESTS_AT_ONCE = 64
_CLIENT_BACKLOG = 4096
"""Messages that may wait for one client before it counts as gone."""
_HANDSHAKE_MS = 2_000
"""Milliseconds that a new connection may take to speak ZeroMQ; libzmq would wait half a minute."""
_STRANGERS = 8
"""Connections to the address of the stages, beyond the stages' own, that may wait to be looked at."""
_PATH_BYTES = 107
"""Bytes of the path of a socket file, at most: sockaddr_un has 108, the last of which is a zero."""


FRAME_BYTES = 2 * wire.MAX_REQUEST_BYTES
"""Bytes of a client's frame from which on its connection is ended: what is only somewhat too large is answered."""

CONNECTIONS = 4096
"""Connections of clients, at most; fewer where the process may not open so many descriptors."""


class Peer(NamedTuple):
    """One connection of a client, and who is at the other end as far as the kernel knows (None over tcp)."""

    routing_id: bytes
    uid: int | None


def private_address() -> str:
    """An ipc address without a file, that no other pipeline uses."""
    return f"ipc://@triptych-{os.getpid()}-{secrets.token_hex(8)}"


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, max_bytes: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.linger = 0
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    return socket


def _bind(socket: zmq.Socket[bytes], address: str) -> str:
    """Bind and return the address as bound (a port of `*` resolved). Raises StartFailed, the socket closed."""
    try:
        if (path := _file_of(address)) is not None:
            _check_free(path)
        mask = os.umask(0o177)
        try:
            socket.bind(address)
        finally:
            os.umask(mask)
    except (zmq.ZMQError, OSError) as error:
        socket.close()
        raise StartFailed(f"cannot listen at {address}: {error.strerror}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _file_of(address: str) -> str | None:
    """The path of an ipc address; None for tcp, an abstract name, and `*`, which libzmq chooses and cleans up."""
    scheme, _, path = address.partition("://")
    return path if scheme == "ipc" and path != "*" and not path.startswith("@") else None


def _check_free(path: str) -> None:
    """Refuse a path where anything is but the socket of a dead server; libzmq would remove whatever it is."""
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, f"the path is too long; that of a socket has at most {_PATH_BYTES} bytes")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is something else at this path; name another, or remove it")
    with unix.socket(unix.AF_UNIX) as probe:
        probe.setblocking(False)  # a server that is stopped, or busy, lets connections wait
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _credentials(frame: zmq.Frame) -> tuple[int | None, int | None]:
    """(uid, pid) of the process that sent `frame` over ipc; (None, None) over tcp."""
    try:
        name, uid, _gid, pid = str(frame.get("Peer-Address")).rsplit(":", 3)
        return (int(uid), int(pid)) if name == "localhost" else (None, None)
    except (zmq.ZMQError, ValueError):
        return None, None


class StageHub:
    """The hub's end of the pipes to all stages."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], stages: int) -> None:
        """`stages` is how many processes there are to be."""
        self.socket = _socket(context, zmq.ROUTER, _STAGE_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.address = _bind(self.socket, private_address())
        self._routing_ids: dict[int, bytes | None] = {}
        """Routing ids of the processes that are listened to, by pid; None until the first message of one."""
        self.connections = Connections(
            self.socket, stages + _STRANGERS, lambda peer: peer_pid(peer) in self._routing_ids
        )

    def expect(self, pid: int) -> None:
        """Listen to the process `pid`, which has been started."""
        self._routing_ids[pid] = None

    def receive(self) -> Iterator[tuple[int, pipes.FromStage]]:
        """All messages of expected processes that have arrived, each with the pid the kernel names as its sender.

        What comes from anybody else, and what is no message, is dropped.
        """
        while True:
            try:
                routing_id, frame = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            except ValueError:  # not two frames: no stage of ours
                continue
            _uid, pid = _credentials(frame)
            if pid is None or pid not in self._routing_ids:
                continue
            try:
                messages = pipes.unpack_from_stage(frame.bytes)
            except wire.UNREADABLE:
                continue
            self._routing_ids[pid] = bytes(routing_id.buffer)
            for message in messages:
                yield pid, message

    def send(self, pid: int, message: pipes.ToStage) -> None:
        """Send to the stage process `pid`; to one that is gone, nothing: its death is told by other means."""
        routing_id = self._routing_ids.get(pid)
        if routing_id is None:
            return
        try:
            self.socket.send_multipart((routing_id, pipes.pack_to_stage(message)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def forget(self, pid: int) -> None:
        """No longer listen to a process, which has ended."""
        self._routing_ids.pop(pid, None)

    def close(self) -> None:
        """Close the socket."""
        self.connections.close()
        self.socket.close()


class StageLink:
    """A stage's end of its pipe to the hub.

    The loop of the stage is its only user. Beside it, once there are news of steps, a thread sends what has come due
    (stages.core.outbox) while the loop is in the middle of a long unit of work.
    """

    def __init__(self, address: str, lifeline: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = _socket(self._context, zmq.DEALER, _STAGE_BYTES)
        self._socket.connect(address)
        self._life = select.poll()  # select itself knows no descriptors beyond 1,023
        self._life.register(lifeline, select.POLLIN)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(lifeline, zmq.POLLIN)
        self._outbox = Outbox()
        self._news = Condition()
        """Guards socket and outbox: sockets of ZeroMQ are for one thread at a time."""
        self._courier: Thread | None = None
        self._wakes_s = math.inf
        """Time at which the courier wakes by itself, seconds of time.monotonic."""
        self._closed = False

    def orphaned(self) -> bool:
        """Whether the orchestrator has died: nothing is ever written on the life-line, so readable means closed."""
        return bool(self._life.poll(0))

    def receive(self, wait: bool) -> Iterator[pipes.ToStage]:
        """All messages that have arrived; with `wait`, at least one, or none if orphaned meanwhile."""
        if wait:
            self.flush()
            self._poller.poll()  # unguarded: nothing is left to be sent, so nobody else uses the socket
        while True:
            try:
                with self._news:
                    frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield pipes.unpack_to_stage(frame)

    def send(self, message: pipes.FromStage) -> None:
        """Send to the hub, in the order of the calls; news of a step wait for `end_unit`, or NEWS_S at most.

        Raises ValueError or TypeError for what the hub could not read, or would cut us off for: a stage of anybody's
        own may have made it, and what goes in the same frame is other jobs'.
        """
        frame = pipes.pack_from_stage([message])
        pipes.unpack_from_stage(frame)
        if len(frame) > _MESSAGE_BYTES:
            raise ValueError(f"a message of {len(frame):,} bytes; {_MESSAGE_BYTES:,} may be sent to the hub")
        with self._news:
            self._outbox.add(message, time.monotonic())
            self._send_due()

    def end_unit(self) -> None:
        """Note that a unit of work is done, and that this was all of its news."""
        with self._news:
            self._outbox.end_unit(time.monotonic())
            self._send_due()

    def flush(self) -> None:
        """Let what waits go now."""
        with self._news:
            if messages := self._outbox.take(time.monotonic()):
                self._socket.send(pipes.pack_from_stage(messages))

    def close(self, linger_ms: int = 1000) -> None:
        """Close, after what was sent has left or `linger_ms` have passed."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._courier is not None:
            self._courier.join()
        self.flush()
        self._socket.close(linger_ms)
        self._context.term()

    def _send_due(self) -> None:
        """Send what is due; what is not, the courier sends if nobody else does."""
        if self._outbox.due_s <= time.monotonic():
            self.flush()
        elif not math.isinf(self._outbox.due_s):
            if self._courier is None:
                self._courier = Thread(target=self._deliver, name="courier", daemon=True)
                self._courier.start()
            if self._outbox.due_s < self._wakes_s:
                self._news.notify()

    def _deliver(self) -> None:
        with self._news:
            while not self._closed:
                self._wakes_s = self._outbox.due_s
                left_s = self._wakes_s - time.monotonic()
                if left_s <= 0:
                    self.flush()
                else:
                    self._news.wait(None if math.isinf(left_s) else left_s)


class ClientHub:
    """The hub's end of the prompt socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, connections: int = CONNECTIONS) -> None:
        """`connections` is how many are served; those beyond are ended as they come."""
        self.socket = _socket(context, zmq.ROUTER, FRAME_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.sndhwm = _CLIENT_BACKLOG
        if address.startswith("tcp://"):
            self.socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
            self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
            self.socket.setsockopt(zmq.IPV6, int("[" in address))
        self.address = _bind(self.socket, address)
        self._file = _file_of(address)
        self.connections = Connections(self.socket, connections)

    def receive(self) -> Iterator[tuple[Peer, bytes | None]]:
        """All requests that have arrived, undecoded, each with its sender; None for what is not one frame."""
        for _ in range(_REQUESTS_AT_ONCE):  # no client, however busy, keeps the hub from its stages
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            uid, _pid = _credentials(frames[-1])
            yield Peer(bytes(frames[0].buffer), uid), frames[1].bytes if len(frames) == 2 else None

    def send(self, routing_id: bytes, message: wire.HubMessage, payload: bytes | None = None) -> bool:
        """Send, never waiting. False if the client is gone, or reads so slowly that it might as well be."""
        frames = [routing_id, wire.encode(message)]
        if payload is not None:
            frames.append(payload)
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def close(self, linger_ms: int) -> None:
        """Close, after what was sent has left or `linger_ms` have passed, and remove the file of an ipc address."""
        if self._file is not None:
            with suppress(OSError):  # while we listen it is ours; afterwards it might be that of the next server
                os.unlink(self._file)
        self.connections.close()
        self.socket.close(linger_ms)


class ClientLink:
    """A client's end of the prompt socket. Raises NoAnswer for what is no address.

    Nothing is sent without a connection, or it would wait for a server that may come and was not meant. That is seen
    to here and not by ZMQ_IMMEDIATE, which throws away what has come and was not read yet when a connection ends: the
    last pictures of a server that stops.
    """

    def __init__(self, address: str, connect_s: float) -> None:
        self.address = address
        self._connect_s = connect_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = _socket(self._context, zmq.DEALER, _ANSWER_BYTES)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._connected = self._dropped = False
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise NoAnswer(f"{address!r} is no address: {error.strerror}; write tcp://HOST:PORT") from error

    def filenos(self) -> tuple[int, int]:
        """Descriptors for a loop of the caller's: readable when something has changed, as ZeroMQ's are (ZMQ_FD)."""
        return self._socket.FD, self._monitor.FD

    def send(self, message: wire.ClientMessage) -> None:
        """Send, waiting for a connection at most as long as the constructor was told. Raises NoAnswer."""
        if not self.offer(message, self._connect_s):
            raise NoAnswer(why_no_answer(self.address))

    def offer(self, message: wire.ClientMessage, wait_s: float) -> bool:
        """Send if there is a connection within `wait_s` seconds that takes it; whether it was sent."""
        deadline = time.monotonic() + wait_s
        self._look()
        while not self._connected:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._monitor.poll(max(1, int(left_s * 1000))):
                return False
            self._look()
        if not self._socket.poll(max(0, int((deadline - time.monotonic()) * 1000)), zmq.POLLOUT):
            return False  # the server does not read
        self._socket.send(wire.encode(message), zmq.NOBLOCK)
        return True

    def receive(self, timeout_s: float) -> tuple[wire.HubMessage, bytes | None] | None:
        """The next message and its binary frame, if it has one; None when `timeout_s` passes first.

        Messages that this version does not know are left out. Raises NoAnswer when what listens at the address is no
        server of ours.
        """
        self._look()
        deadline = time.monotonic() + timeout_s
        while self._socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message, *payload = self._socket.recv_multipart()
            try:
                decoded = wire.decode_hub_message(message)
            except wire.UNREADABLE as error:
                raise NoAnswer(
                    f"what listens at {self.address} speaks another language, or another version of ours; "
                    "start `triptych serve`, or name its address"
                ) from error
            if decoded is not None:
                return decoded, payload[0] if payload else None
        return None

    def dropped(self) -> bool:
        """Whether a connection has ended since the last call. What the server still sent on it can be received."""
        self._look()
        dropped, self._dropped = self._dropped, False
        return dropped

    def _look(self) -> None:
        while self._monitor.poll(0):
            event, _value = struct.unpack("=HI", self._monitor.recv_multipart()[0])
            self._dropped |= self._connected and event == zmq.EVENT_DISCONNECTED
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def close(self) -> None:
        """Close, after what was sent (a cancel, say) has left or a moment has passed."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(200)
        self._context.term()
