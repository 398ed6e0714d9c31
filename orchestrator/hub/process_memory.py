"""Memory of processes, by the kernel's own count of pages."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_COST_SHARE = 0.02
"""Share of the time that looking may take: the kernel walks all pages, tens of milliseconds for large processes."""


class Memory(NamedTuple):
    """Bytes of a process."""

    rss: int
    """Resident, pages that others share included."""
    pss: int
    """Proportional: of a page that n processes share, an n-th."""


class ProcessMemory:
    """Weighs processes, but not so often that it costs anybody: in between it tells what it found last."""

    def __init__(
        self, read: Callable[[int], Memory] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`read` looks at one process, by default at /proc/PID/smaps_rollup."""
        self._read = read or _rollup
        self._clock = clock
        self._known: dict[int, tuple[float, Memory]] = {}
        """Until when it is good enough, and what was found, by process id."""

    def sample(self, pid: int) -> Memory:
        """The memory of the process; zeros if it is gone or not ours to look at."""
        began = self._clock()
        good_until, memory = self._known.get(pid, (began, Memory(0, 0)))
        if began < good_until:
            return memory
        memory = self._read(pid)
        ended = self._clock()
        self._known = {other: known for other, known in self._known.items() if known[0] > began}
        self._known[pid] = (ended + (ended - began) / _COST_SHARE, memory)
        return memory


def _rollup(pid: int) -> Memory:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return Memory(0, 0)
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in rollup.splitlines()[1:]}
    return Memory(sizes.get("Rss:", 0), sizes.get("Pss:", 0))
