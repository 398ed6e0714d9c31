"""Anonymous shared memory: a memfd of fixed size that is inherited by descriptor and has no name to leak."""

import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.core import cgroups
from stages.core.errors import StartFailed

_MEMORY_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
"""Limit and use of a control group, and its cache in memory.stat: as version 2 calls them, then version 1."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Region:
    """A mapped memfd. The creator decides its size, once; whoever gets the descriptor maps the same bytes, all of them.

    Sealed against resizing, so that no process can make another one's access fault; allocated in full at
    creation, so that a machine without the memory says so at the start and not by SIGBUS later.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.nbytes = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.nbytes)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "Region":
        """Allocate `nbytes`. Raises StartFailed, naming the bytes, when they cannot be had."""
        # Asked first: the kernel would find out only when it has given away all there is, and kill somebody then.
        if nbytes > (left := available_memory()):
            raise StartFailed(f"cannot allocate {nbytes:,} bytes of shared memory: {left:,} bytes are available")
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, nbytes)
        except OSError as error:
            os.close(fd)
            raise StartFailed(f"cannot allocate {nbytes:,} bytes of shared memory: {error.strerror}") from error
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(fd)

    def array(self, offset: int, nbytes: int) -> NDArray[np.uint8]:
        """The bytes [offset, offset + nbytes) as a writable uint8 array over the mapping."""
        return np.frombuffer(self._map, dtype=np.uint8, count=nbytes, offset=offset)

    def close(self) -> None:
        """Give up the descriptor. The mapping itself lives as long as arrays over it do, then goes with them."""
        os.close(self.fd)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be had now: MemAvailable, or less where the memory limit of a control group around us leaves less.

    That is `memory.max`, or in version 1 `memory.limit_in_bytes`.
    """
    left = [int((root / "proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]) * 1024]
    for group in cgroups.around("memory", root):
        for limit, used, cache in _MEMORY_FILES:
            try:
                granted, taken = (int((group / name).read_text()) for name in (limit, used))
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                # File cache counts as used, but is given up when memory is asked for.
                left.append(granted - taken + sum(int(stat[name]) for name in cache))
            except (OSError, ValueError, KeyError):  # no such controller, or no limit ("max")
                continue
    return max(0, min(left))
