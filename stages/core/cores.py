"""Core sets: Linux CPU lists, what this process may use, pinning, and reading back what the kernel made of it."""

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stages.core import cgroups
from stages.core.errors import ConfigError

_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)
_LIMIT = 1 << 16
"""Highest core number that is believed; larger ones are typing errors and would cost memory."""


def parse(text: str) -> frozenset[int]:
    """Read a Linux CPU list such as `0-7,16`. Empty text is the empty set. Raises ConfigError."""
    cores: set[int] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ConfigError(f"{text!r} is no CPU list; write it like 0-7,16")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first or last >= _LIMIT:
            raise ConfigError(f"{part!r} in the CPU list {text!r} is no range of cores")
        cores.update(range(first, last + 1))
    return frozenset(cores)


def render(cores: Iterable[int]) -> str:
    """Write a set of cores as the shortest Linux CPU list; the inverse of `parse`."""
    runs: list[list[int]] = []
    for core in sorted(set(cores)):
        if runs and runs[-1][1] == core - 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def allowed() -> frozenset[int]:
    """The cores this process may run on: affinity mask and cpuset together, as the kernel reports them."""
    return frozenset(os.sched_getaffinity(0))


def quota(root: Path = Path("/")) -> float:
    """CPU seconds per second that the control groups around this process grant, or infinity.

    The smallest quota counts: `cpu.max`, or in version 1 `cpu.cfs_quota_us`. OpenVINO looks at none.
    """
    return min((_quota(group) for group in cgroups.around("cpu", root)), default=math.inf)


def _quota(group: Path) -> float:
    """CPU seconds per second that one group grants; infinity where that cannot be read or has no limit."""
    try:
        if (group / "cpu.max").exists():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        granted = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such controller, or no limit ("max")
        return math.inf
    return granted if granted > 0 else math.inf  # -1 where version 1 has no limit


def pin(cores: Iterable[int]) -> None:
    """Confine the calling process to `cores`: the threads it has (numpy's BLAS starts some when it is imported), and
    those it will have, which inherit the mask of the thread that starts them.

    Raises ConfigError when the kernel has none of these cores for us.
    """
    wanted = frozenset(cores)
    try:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it ended between the listing and here
                os.sched_setaffinity(int(thread), wanted)
    except (OSError, ValueError, OverflowError) as error:  # the latter two: no kernel counts so
        raise ConfigError(f"cannot run on cores {render(wanted)}: {error}") from error


def read_back(pid: int) -> frozenset[int]:
    """The union of the masks of all threads of `pid`, from /proc/PID/task/*/status. Empty if the process is gone."""
    seen: frozenset[int] = frozenset()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            text = status.read_text()
        except OSError:  # the thread ended between the listing and the reading
            continue
        _, _, rest = text.partition("Cpus_allowed_list:")
        seen |= parse(rest.split("\n", 1)[0].strip())
    return seen
