"""The client of the prompt socket: the same messages and the same socket that every other program uses."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from orchestrator import recording
from stages.core import wire
from stages.core.errors import NoAnswer
from stages.core.link import ClientLink

Event = tuple[wire.HubMessage, bytes | None]
"""A message of the hub, and the encoded picture if it is an `image`."""


class Client:
    """One connection to a running pipeline. Use as a context manager, from one thread.

    Raises NoAnswer from any method when nothing listens at `address` within `connect_s` seconds, or when the server
    falls silent for `silence_s` seconds although it was asked for its status.
    """

    def __init__(self, address: str, connect_s: float = 5.0, silence_s: float = 30.0) -> None:
        self._link = ClientLink(address, connect_s)
        self._silence_s = silence_s
        self.last_status: wire.Status | None = None
        """The newest status that passed through `events`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, message: wire.ClientMessage) -> None:
        """Send one message; answers come through `receive` or `events`."""
        self._link.send(message)

    def receive(self, timeout_s: float) -> Event | None:
        """The next message from the hub, or None when `timeout_s` seconds pass first."""
        return self._link.receive(timeout_s)

    def events(self, tick_s: float = 1.0, ask_s: float = 5.0) -> Iterator[Event | None]:
        """All messages as they come, without end; None whenever `tick_s` seconds pass without one.

        A server that has been silent for `ask_s` seconds is asked for its status, so that a dead one is told from a
        busy one. Not more often than needed: to answer, it reads the memory map of every stage.
        """
        heard = asked = time.monotonic()
        while True:
            event = self.receive(tick_s)
            now = time.monotonic()
            if event is None:
                if now - heard > self._silence_s:
                    raise NoAnswer(
                        f"{self._link.address} has been silent for {self._silence_s:.0f} s; is it still running?"
                    )
                if now - max(heard, asked) >= ask_s:
                    asked = now
                    self.send(wire.StatusRequest())
            else:
                heard = now
                if isinstance(event[0], wire.Status):
                    self.last_status = event[0]
            yield event

    def submit(self, request: wire.Submit) -> Iterator[Event]:
        """Send one prompt and iterate over its events until `done`; for a failure raises the error it names."""
        self.send(request)
        for event in self.events():
            if event is None or getattr(event[0], "id", None) != request.id:
                continue
            if isinstance(event[0], wire.Failed):
                raise event[0].error()
            yield event
            if isinstance(event[0], wire.Done):
                return

    def status(self, timeout_s: float = 5.0) -> wire.Status:
        """What the pipeline is doing now."""
        self.send(wire.StatusRequest())
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            event = self.receive(left)
            if event is not None and isinstance(event[0], wire.Status):
                return event[0]
        raise NoAnswer(f"{self._link.address} does not answer; is it still running?")

    def trace(self, seconds: float, timeout_s: float = 10.0) -> recording.Recording:
        """What the whole pipeline did in the last `seconds`, as far as the server remembers."""
        self.send(wire.TraceRequest(seconds=seconds))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            event = self.receive(left)
            if event is not None and isinstance(event[0], wire.Trace):
                return recording.decode(event[1] or b"")
        raise NoAnswer(f"{self._link.address} does not answer; is it still running?")

    def close(self) -> None:
        """End the connection; the server cancels what it still had to make for it."""
        self._link.close()
