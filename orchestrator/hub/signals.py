"""Signals as data: the handler appends, the loop reads."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Signals:
    """Signals that have come, and a descriptor that is readable while some may have."""

    def __init__(self, wakeup: socket.socket) -> None:
        self._wakeup = wakeup
        self._signals: list[int] = []
        self._any = False

    def fileno(self) -> int:
        """For a poll set."""
        return self._wakeup.fileno()

    def append(self, number: int) -> None:
        """Called by the signal handler."""
        self._signals.append(number)

    def take(self) -> list[int]:
        """All signals since the last call.

        SIGHUP counts only where it is the first and alone: a terminal that is closed sends it twice, by its shell and
        by the kernel, and a supervisor may send it with SIGTERM. Nobody means by it that it is urgent.
        """
        with suppress(BlockingIOError):
            self._wakeup.recv(4096)
        signals, self._signals = self._signals, []
        wanted = [number for number in signals if number != signal.SIGHUP]
        if signals and not wanted and not self._any:
            wanted = [signal.SIGHUP]
        self._any = self._any or bool(wanted)
        return wanted


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """SIGTERM, SIGINT and SIGHUP go into an inbox for the loop to read, and wake its poll.

    SIGINT and SIGHUP are sent to everybody at a terminal, so where we were started to ignore them (`nohup`, or `&` in
    a script) they stay ignored. SIGTERM is meant for us by whoever sends it: to ignore it would leave only SIGKILL.
    """
    theirs, ours = socket.socketpair()
    theirs.setblocking(False)
    ours.setblocking(False)
    signals = Signals(ours)
    to_all = (signal.SIGINT, signal.SIGHUP)
    handled = [signal.SIGTERM, *(each for each in to_all if signal.getsignal(each) is not signal.SIG_IGN)]
    old_fd = signal.set_wakeup_fd(theirs.fileno())
    old = [signal.signal(number, lambda number, _frame: signals.append(number)) for number in handled]
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in zip(handled, old, strict=True):
            signal.signal(number, handler)
        theirs.close()
        ours.close()
