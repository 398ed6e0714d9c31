"""Memory and CPU time of process trees, from /proc."""

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec
import psutil

_SHORTEST_S = 0.02
_LARGEST_SHARE = 0.05
"""Share of the time that reading smaps_rollup takes, at most: it stops the process while the kernel walks its pages."""


class Peak(msgspec.Struct, frozen=True):
    """Peak memory of a tree of processes, in bytes."""

    pss: int
    """Highest sum of PSS: pages that several processes map count once, the arena and mapped files included."""
    hwm: int
    """Sum of what each process had at its own most (VmHWM, pages shared by several counted for each). Never missed
    between two samples, so a PSS far below it, with one process, would be a peak that was missed."""


def descendants() -> dict[int, psutil.Process]:
    """Processes below this one, by id."""
    return {process.pid: process for process in psutil.Process().children(recursive=True)}


def pss(pid: int) -> int:
    """Proportional set size in bytes; 0 of a process that is gone."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") * 1024


def high_water_mark(pid: int) -> int:
    """The most memory that was resident so far, in bytes; 0 of a process that is gone."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") * 1024


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have used so far; those that are gone count nothing."""
    spent = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            spent += times.user + times.system
    return spent


def _kilobytes(file: Path, field: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


class PeakMemory:
    """Samples, in a thread, all processes below this one that were not there at the start of the `with` block."""

    def __init__(self) -> None:
        self._pss = 0
        self._hwm: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak memory", daemon=True)

    def __enter__(self) -> Self:
        self._others = set(descendants())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def peak(self) -> Peak:
        """The peak so far."""
        return Peak(self._pss, sum(self._hwm.values()))

    def _sample(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            pids = descendants().keys() - self._others
            self._pss = max(self._pss, sum(map(pss, pids)))
            # The newest mark, not the highest: until a child calls exec, its mark is that of the parent.
            self._hwm |= {pid: mark for pid in pids if (mark := high_water_mark(pid))}
            cost = time.monotonic() - began
            self._ended.wait(max(_SHORTEST_S, cost / _LARGEST_SHARE))
