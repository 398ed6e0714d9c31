"""Descriptors of this process: as many as it may have, and a few kept for what must not fail for want of one."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

KEPT = 48
"""What may be open at once for a moment: pipes and pidfd of a process that is started, and files of /proc."""


def raise_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a container may forbid even this
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def in_use() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd")) - 1  # that of the listing itself


class Reserve:
    """Descriptors held so that nobody else takes them, given up while something is done that needs some."""

    def __init__(self, count: int = KEPT) -> None:
        self._count = count
        self._held: list[int] = []
        self._fill()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the block have the reserve; taken back afterwards, as far as there are descriptors again."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def close(self) -> None:
        """Give all of them back."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def _fill(self) -> None:
        with suppress(OSError):  # at the limit; the next time may do better
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
