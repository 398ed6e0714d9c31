"""What a tree of processes takes in memory while it works, from before its first process starts."""

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

import psutil

_COST_SHARE = 0.02
"""Of one core, at most: reading how a large process shares its pages takes milliseconds."""

_SHORTEST_S = 0.02
_RESCAN_S = 0.5
"""Seconds between looks for new processes, which cost a look at every process of the machine."""


class Sample(NamedTuple):
    """What the tree took at a moment."""

    at: float
    """Seconds of time.monotonic."""
    pss_bytes: int
    """Proportional set size, shared pages counted once over all processes."""


class TreeMemory:
    """Samples the PSS of a process and its descendants, or of the descendants alone, in a thread; a context manager.

    The thread sleeps so long between samples that they cost at most 2 % of one core, so a peak that is shorter than
    that may be missed. Processes that have gone, or are not ours to look at, count as nothing.
    """

    def __init__(self, pid: int, descendants_only: bool) -> None:
        self._root = pid
        self._descendants_only = descendants_only
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tree-memory", daemon=True)

    @property
    def samples(self) -> list[Sample]:
        """What was seen up to now, in order."""
        return list(self._samples)

    @property
    def peak_bytes(self) -> int | None:
        """The most that was seen; None if nothing was."""
        return max((sample.pss_bytes for sample in self.samples), default=0) or None

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        processes: list[psutil.Process] = []
        scanned = -_RESCAN_S
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            began = time.thread_time()
            now = time.monotonic()
            if now - scanned >= _RESCAN_S:
                processes, scanned = self._tree(), now
            self._samples.append(Sample(now, sum(_pss(process) for process in processes)))
            wait_s = max(_SHORTEST_S, (time.thread_time() - began) / _COST_SHARE)

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._root)
            found = root.children(recursive=True)
        except psutil.Error:
            return []
        return found if self._descendants_only else [root, *found]


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0
