"""Signals as data: the handler appends, the loop reads."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Inbox:
    """Signals that have come, and a descriptor that is readable while some may have."""

    def __init__(self, wakeup: socket.socket) -> None:
        self._wakeup = wakeup
        self._signals: list[int] = []

    def fileno(self) -> int:
        """For a poll set."""
        return self._wakeup.fileno()

    def append(self, number: int) -> None:
        """Called by the signal handler."""
        self._signals.append(number)

    def take(self) -> list[int]:
        """All signals since the last call."""
        with suppress(BlockingIOError):
            self._wakeup.recv(4096)
        signals, self._signals = self._signals, []
        return signals


@contextmanager
def signals() -> Iterator[Inbox]:
    """SIGINT and SIGTERM go into an inbox for the loop to read, and wake its poll."""
    theirs, ours = socket.socketpair()
    theirs.setblocking(False)
    ours.setblocking(False)
    inbox = Inbox(ours)
    handled = (signal.SIGINT, signal.SIGTERM)
    old_fd = signal.set_wakeup_fd(theirs.fileno())
    old = [signal.signal(number, lambda number, _frame: inbox.append(number)) for number in handled]
    try:
        yield inbox
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in zip(handled, old, strict=True):
            signal.signal(number, handler)
        theirs.close()
        ours.close()
