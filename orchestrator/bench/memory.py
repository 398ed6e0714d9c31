"""The memory of a tree of processes while it works, from before its first process starts."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

_COST_SHARE = 0.02
"""Share of one core that sampling takes, at most: reading how a large process shares its pages takes milliseconds."""

_SHORTEST_S = 0.02


class Sample(NamedTuple):
    """The memory of the tree at one moment."""

    at: float
    """Time of the sample, seconds of time.monotonic."""
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
        """The samples up to now, in order."""
        return list(self._samples)

    @property
    def peak_bytes(self) -> int | None:
        """Largest PSS of all samples, in bytes; None if there is no sample."""
        return max((sample.pss_bytes for sample in self.samples), default=0) or None

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            began = time.thread_time()
            self._samples.append(Sample(time.monotonic(), sum(_pss(pid) for pid in self._tree())))
            wait_s = max(_SHORTEST_S, (time.thread_time() - began) / _COST_SHARE)

    def _tree(self) -> Iterator[int]:
        if not self._descendants_only:
            yield self._root
        yield from _descendants(self._root)


def _descendants(pid: int) -> Iterator[int]:
    """Ids of a process's children and theirs, from the kernel's own lists: psutil would look at every process."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return
    for child in " ".join(lists).split():
        yield int(child)
        yield from _descendants(int(child))


def _pss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0
